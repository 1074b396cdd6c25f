"""Define options that several commands share, and read them."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sam2lite_core.errors import ConfigurationError

if TYPE_CHECKING:
    from training.config.run import RunConfig

CONFIGS = Path(__file__).parents[1] / "configs"

ConfigOption = Annotated[Path, typer.Option("--config", help="YAML file, or the name of one in training/configs.")]
SetOption = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Change a value, as in unroll.weights.edge=0. Repeatable."),
]
StageOption = Annotated[str, typer.Option(help="1, 2, 3 or all.")]
ThreadsOption = Annotated[int | None, typer.Option(help="CPU threads of the runtime.")]
OverwriteOption = Annotated[bool, typer.Option("--overwrite", help="Replace an earlier result.")]


def read_config(path: Path, changes: Sequence[str] | None) -> "RunConfig":
    """Read a configuration of `find_config` with changes; raises ConfigurationError for a wrong value or key."""
    from training.config import loading
    from training.config.run import RunConfig

    return loading.load(RunConfig, find_config(path), changes or ())


def find_config(path: Path) -> Path:
    """Find the file of a path, or of a name in `training/configs`; raises ConfigurationError without one."""
    named = CONFIGS / f"{path}.yaml"
    if not path.exists() and named.is_file():
        path = named
    if not path.is_file():
        names = sorted(str(p.relative_to(CONFIGS).with_suffix("")) for p in CONFIGS.rglob("*.yaml"))
        raise ConfigurationError(f"{path}: no such file; training/configs has {', '.join(names)}")
    return path


def chosen_stages(config: "RunConfig", stage: str) -> tuple[int, ...]:
    """Return the numbers of the stages that `--stage` names; raises ConfigurationError for an unknown one."""
    numbers = tuple(config.stages.numbered())
    chosen = tuple(number for number in numbers if stage in ("all", str(number)))
    if not chosen:
        raise ConfigurationError(f"--stage {stage}: choose {', '.join(map(str, numbers))} or all")
    return chosen


def split_names(text: str | None) -> tuple[str, ...] | None:
    """Split names at commas; None stays None."""
    return None if text is None else tuple(name.strip() for name in text.split(",") if name.strip())


def say(line: str) -> None:
    """Print a line and flush it."""
    print(line, flush=True)
