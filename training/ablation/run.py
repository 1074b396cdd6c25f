"""Fork stage 2 from one checkpoint into the paper's ablations and score them (table 3); interrupted forks go on."""

import json
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from sam2lite_core.datasets.base import Dataset
from sam2lite_core.datasets.davis import Davis
from sam2lite_core.datasets.stress import Stress
from sam2lite_core.errors import ConfigurationError
from sam2lite_core.evaluation.evaluate import evaluate
from sam2lite_core.evaluation.tracker_options import TrackerOptions
from sam2lite_core.files import write_json
from training import checkpoint
from training.config import loading
from training.config.run import RunConfig
from training.config.stages import StagesConfig
from training.loop.trainer import CHECKPOINTS, CONFIG_FILE, Trainer, differences

ROWS = Path(__file__).parents[1] / "configs" / "ablations"
FULL = "full"
"""Row that the others are compared with."""

NOT_FORKED = ("from_scratch",)
"""Rows without the common checkpoint."""

MAY_DIFFER = ("threads", "log_every", "checkpoints*", "folder", "data.workers", "data.prefetch")
"""Parts of a configuration without influence on the scores."""

STAGE = 2
OCCLUSIONS = "long_occlusion"
"""Rendered set with long occlusions."""

SCORES_FILE = "scores.json"


@dataclass(frozen=True)
class Fork:
    """A row of `configs/ablations` with one seed; stage 2 is the run's only one."""

    row: str
    seed: int
    config: RunConfig

    @property
    def name(self) -> str:
        """Name of its folder."""
        return f"{self.row}-{self.seed}"


def row_names() -> list[str]:
    """List all rows that can be forked, `FULL` first."""
    names = sorted(path.stem for path in ROWS.glob("*.yaml"))
    return [FULL, *(name for name in names if name not in (FULL, *NOT_FORKED))]


def row_changes(row: str) -> dict[str, Any]:
    """Read the changes of a row to any configuration.

    Raises:
        ConfigurationError: no such row, or one that cannot be forked.
    """
    if row in NOT_FORKED:
        raise ConfigurationError(f"{row} has no start in common with the others; use `run --config ablations/{row}`")
    if row not in row_names():
        raise ConfigurationError(f"no ablation {row!r}; choose from {', '.join(row_names())}")
    document = loading.read_mapping(ROWS / f"{row}.yaml")
    return {key: value for key, value in document.items() if key not in (loading.BASE, "folder")}


def make_forks(document: Mapping[str, Any], rows: Sequence[str], seeds: Sequence[int], out: Path) -> list[Fork]:
    """Make the runs of a table in the folder `out`, seed by seed, `FULL` first, from a document with a memory stage.

    Raises:
        ConfigurationError: an unknown row, no seed, no memory stage, no checkpoint to fork from, no dataset to score;
            or a length in minutes, which is not the same cost for every row.
    """
    if not seeds or len(set(seeds)) != len(seeds):
        raise ConfigurationError(f"seeds {list(seeds)}: give at least one, each of them once")
    forks = []
    for seed in seeds:
        for row in [FULL, *(name for name in dict.fromkeys(rows) if name != FULL)]:
            merged = loading.merge(document, row_changes(row))
            merged |= {"seed": seed, "folder": str(out / f"{row}-{seed}")}
            forks.append(Fork(row, seed, _forked(loading.build(RunConfig, merged))))
    return forks


def _forked(config: RunConfig) -> RunConfig:
    stage = config.stages.memory
    if stage is None:
        raise ConfigurationError("stages.memory is missing: ablations fork stage 2")
    if stage.minutes is not None:
        raise ConfigurationError(
            f"stages.memory.minutes is {stage.minutes:g}: rows of equal cost need steps or epochs; "
            "use --set stages.memory.minutes=null --set stages.memory.steps=N"
        )
    if config.init is None or not config.init.is_file():
        raise ConfigurationError(f"init is {config.init}: ablations fork from a checkpoint; use --set init=FILE")
    if config.evaluation.root is None:
        raise ConfigurationError("evaluation.root is missing: name the dataset that forks are scored on")
    return replace(config, stages=StagesConfig(memory=stage))


def run_forks(
    forks: Sequence[Fork], clips: int, *, threads: int | None = None, tell: Callable[[str], None] = lambda _: None
) -> bool:
    """Train every fork that is not scored yet, and score it also on rendered `clips` with a long occlusion.

    Returns:
        True; False when a signal ended training, with a checkpoint.

    Raises:
        ConfigurationError: a fork in its folder is of another configuration, or was scored on other clips.
        TrainingError, SourceError, ModelFileError: naming the file or value.
    """
    for fork in forks:
        check_same(fork, clips)
    for fork in forks:
        path = fork.config.folder / SCORES_FILE
        if path.is_file():
            continue
        tell(fork.name)
        done = checkpoint.stage_file(fork.config.folder / CHECKPOINTS, STAGE)
        if not done.is_file():
            begun = checkpoint.newest(fork.config.folder / CHECKPOINTS) is not None
            if Trainer(fork.config, (STAGE,), resume=begun, max_minutes=None).run() != 0:
                return False
        write_json(path, score(fork, done, clips, threads))
    return True


def check_same(fork: Fork, clips: int) -> None:
    """Raise ConfigurationError where an earlier run in the fork's folder differs, or its number of clips."""
    earlier, scores = fork.config.folder / CONFIG_FILE, fork.config.folder / SCORES_FILE
    if earlier.is_file():
        old, new = (loading.to_document(each) for each in (loading.load(RunConfig, earlier), fork.config))
        for key, before, now in differences(old, new, MAY_DIFFER):
            raise ConfigurationError(f"{key} is {now!r} now and was {before!r} in {earlier}; choose another --out")
    if scores.is_file():
        scored = len(json.loads(scores.read_text(encoding="utf-8"))["jf"][OCCLUSIONS])
        if scored != clips:
            raise ConfigurationError(f"--clips is {clips} now and was {scored} in {scores}; choose another --out")


def score(fork: Fork, weights: Path, clips: int, threads: int | None) -> dict[str, Any]:
    """Score J&F of every sequence, 0..1, by set; add the cost of the fork. Raises as `evaluate` does."""
    from training.students.export import export_checkpoint

    wanted = fork.config.evaluation
    assert wanted.root is not None  # make_forks has looked
    sets: dict[str, Dataset] = {
        "davis": Davis(wanted.root, wanted.year, wanted.sequences or None),
        OCCLUSIONS: Stress((OCCLUSIONS,), clips),
    }
    position = checkpoint.load(weights)["position"]
    with tempfile.TemporaryDirectory(prefix="sam2lite_") as folder:
        model = Path(folder) / fork.config.variant
        export_checkpoint(weights, model, note=fork.name)
        options = TrackerOptions(
            fork.config.variant, "onnxruntime", wanted.scale, wanted.budget, wanted.policy, threads, str(model)
        )
        evaluations = {name: evaluate(dataset, options, "mask").sequences for name, dataset in sets.items()}
    return {
        "row": fork.row,
        "seed": fork.seed,
        "steps": position["step"],
        "clips": position["clips"],
        "minutes": position["spent"] / 60.0,
        "policy": wanted.policy,
        "budget": wanted.budget,
        "scale": wanted.scale,
        "jf": {
            name: {result.name: result.scores.jf for result in results if result.scores is not None}
            for name, results in evaluations.items()
        },
    }
