"""Share options between commands: their declarations, groups of them, and the progress bar."""

import contextlib
import functools
import inspect
import signal
import sys
from collections.abc import Callable, Iterator
from dataclasses import MISSING, dataclass, fields, is_dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_type_hints

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from sam2lite_core.errors import ConfigurationError
from sam2lite_core.files import check_json_path, write_atomically, write_json
from sam2lite_core.variants import DEFAULT_POLICY

if TYPE_CHECKING:
    from sam2lite_core.evaluation.tracker_options import TrackerOptions

VariantOption = Annotated[str, typer.Option(help="Model variant: tiny, small or base.")]
BackendOption = Annotated[
    str,
    typer.Option(
        help="Runtime: onnxruntime, torch, or auto for the best that is installed; transformers for a SAM 2.1 or "
        "EdgeTAM of your own."
    ),
]
ScaleOption = Annotated[float | None, typer.Option(help="Fix the resolution scale, 0.5..1.")]
ThreadsOption = Annotated[int | None, typer.Option(help="CPU threads of the runtime.")]
ModelOption = Annotated[
    Path | None,
    typer.Option(
        "--model",
        "--model-path",
        help="Folder of an exported model; with --backend transformers, of SAM 2.1 or EdgeTAM.",
    ),
]
BudgetOption = Annotated[int | None, typer.Option(help="Memory tokens, 64..1024; the variant's own by default.")]
PolicyOption = Annotated[str, typer.Option(help="What memory keeps: learned, fifo, random or uniform.")]
JsonOption = Annotated[Path | None, typer.Option("--json", help="Also write the result to this file.")]
OverwriteOption = Annotated[bool, typer.Option("--overwrite", help="Replace an earlier result in the output folder.")]

MarkdownOption = Annotated[Path | None, typer.Option("--markdown", help="Also write the tables to this file.")]


@dataclass(frozen=True)
class ModelChoice:
    """Options of the model that a tracker runs."""

    variant: VariantOption = "tiny"
    backend: BackendOption = "auto"
    threads: ThreadsOption = None
    model: ModelOption = None

    @property
    def model_path(self) -> str | None:
        """Return the model's folder as text."""
        return None if self.model is None else str(self.model)


@dataclass(frozen=True)
class TrackerChoice(ModelChoice):
    """Options of a tracker with a fixed policy."""

    scale: ScaleOption = None
    budget: BudgetOption = None
    policy: PolicyOption = DEFAULT_POLICY

    def options(self, workers: int = 1) -> "TrackerOptions":
        """Return the tracker that the options describe; see `tracker_options`."""
        return tracker_options(self, self.scale, self.budget, self.policy, workers)


@dataclass(frozen=True)
class Outputs:
    """Options of the files that a measurement is also written to."""

    json_file: JsonOption = None
    markdown_file: MarkdownOption = None

    def check(self) -> None:
        """Raise SourceError for files that cannot be written, before long work starts."""
        for file in (self.json_file, self.markdown_file):
            check_json_path(file)

    def write(self, content: dict[str, Any], text: str) -> None:
        """Print the tables and write both files."""
        print(text)
        if self.markdown_file is not None:
            write_atomically(self.markdown_file, text.encode())
        write_json(self.json_file, content)


def spread_options(command: Callable[..., None]) -> Callable[..., None]:
    """Replace parameters whose type is a dataclass of options by these options, for Typer."""
    hints = get_type_hints(command, include_extras=True)
    groups = {name: hint for name, hint in hints.items() if isinstance(hint, type) and is_dataclass(hint)}
    declared: dict[str, inspect.Parameter] = {}
    for name, parameter in inspect.signature(command).parameters.items():
        if name not in groups:
            declared[name] = parameter.replace(kind=parameter.KEYWORD_ONLY, annotation=hints[name])
            continue
        types = get_type_hints(groups[name], include_extras=True)
        for field in fields(groups[name]):
            default = parameter.empty if field.default is MISSING else field.default
            declared[field.name] = inspect.Parameter(
                field.name, parameter.KEYWORD_ONLY, default=default, annotation=types[field.name]
            )

    @functools.wraps(command)
    def run(**values: Any) -> None:
        for name, group in groups.items():
            values[name] = group(**{field.name: values.pop(field.name) for field in fields(group)})
        command(**values)

    run.__signature__ = inspect.Signature(list(declared.values()))  # type: ignore[attr-defined]
    run.__annotations__ = {name: parameter.annotation for name, parameter in declared.items()}
    return run


@contextlib.contextmanager
def show_progress(title: str, total: int | None, shown: bool = True) -> Iterator[Any]:
    """Show a progress bar on stderr; yields a function that moves it by one."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    console = Console(stderr=True)
    # Without a terminal the bar would leave blank lines in a log.
    with Progress(*columns, console=console, transient=True, disable=not (shown and console.is_terminal)) as bar:
        task = bar.add_task(title, total=total)
        yield lambda: bar.advance(task)


@contextlib.contextmanager
def resumable(kept: Path, anything_finished: Callable[[], bool], shown: bool = True) -> Iterator[None]:
    """Turn Ctrl-C into exit code 130 and one line, of the process `shown`, that says if work goes on from `kept`."""
    try:
        yield
    except KeyboardInterrupt:
        said = (
            f"the same command goes on from {kept}"
            if anything_finished()
            else "nothing was finished, so the same command starts over"
        )
        if shown:
            print(f"sam2lite: stopped; {said}", file=sys.stderr)
        raise typer.Exit(128 + signal.SIGINT) from None


def numbers(text: str, name: str) -> tuple[float, ...]:
    """Parse comma-separated numbers of an option, or raise ConfigurationError, which names it."""
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError:
        raise ConfigurationError(f"{name} {text!r} is not a list of numbers like 0.5,1") from None


def whole_numbers(text: str, name: str) -> tuple[int, ...]:
    """Parse comma-separated whole numbers of an option, or raise ConfigurationError, which names it."""
    values = numbers(text, name)
    if broken := [value for value in values if not value.is_integer()]:
        raise ConfigurationError(f"{name} {broken[0]:g} is not a whole number")
    return tuple(int(value) for value in values)


def split(names: str | None) -> tuple[str, ...] | None:
    """Parse comma-separated names, or raise ConfigurationError for one given twice: it would count twice."""
    if names is None:
        return None
    found = tuple(name.strip() for name in names.split(",") if name.strip())
    for name in found:
        if found.count(name) > 1:
            raise ConfigurationError(f"--sequences names {name} twice; name each once")
    return found


def tracker_options(
    model: ModelChoice, scale: float | None, budget: int | None = None, policy: str = DEFAULT_POLICY, workers: int = 1
) -> "TrackerOptions":
    """Return the tracker that the options describe; processes share the machine's cores unless threads are given."""
    from sam2lite_core.evaluation.runs.machine import usable_cores
    from sam2lite_core.evaluation.runs.team import processes_here
    from sam2lite_core.evaluation.tracker_options import TrackerOptions

    processes, threads = workers * processes_here(), model.threads
    if threads is None and processes > 1:
        threads = max(1, usable_cores() // processes)
    return TrackerOptions(model.variant, model.backend, scale, budget, policy, threads, model.model_path)
