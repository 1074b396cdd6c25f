"""Scores of a checkpoint by the DAVIS protocol, through the tracker that robots run."""

import tempfile
from dataclasses import dataclass
from pathlib import Path

from sam2lite_core.datasets.davis import Davis
from sam2lite_core.errors import ConfigurationError
from sam2lite_core.evaluation.evaluate import evaluate
from sam2lite_core.evaluation.results import Evaluation
from sam2lite_core.evaluation.tracker_options import TrackerOptions
from training import checkpoint
from training.config import loading
from training.config.run import EvaluationConfig, RunConfig

BACKENDS = ("onnxruntime", "torch")


@dataclass(frozen=True)
class Request:
    """What to score; what is None is as the run's configuration says. See `EvaluationConfig`."""

    root: Path | None = None
    year: int | None = None
    scale: float | None = None
    policy: str | None = None
    budget: int | None = None
    sequences: tuple[str, ...] | None = None

    def over(self, configured: EvaluationConfig) -> EvaluationConfig:
        """The request laid over a configuration."""
        given = {name: value for name, value in vars(self).items() if value is not None}
        return EvaluationConfig(**{**vars(configured), **given})


def evaluate_checkpoint(
    path: Path,
    request: Request,
    *,
    backend: str = "onnxruntime",
    threads: int | None = None,
    out: Path | None = None,
    overwrite: bool = False,
) -> Evaluation:
    """Export a checkpoint's averaged weights to a temporary folder and run the tracker on them.

    Args:
        path: the checkpoint.
        request: what to score.
        backend: onnxruntime runs the exported graphs, torch the student with the exported weights.
        threads: CPU threads of the runtime.
        out: folder for masks and davis.json.
        overwrite: replace an earlier result there.

    Raises:
        ModelFileError: the checkpoint cannot be read.
        ConfigurationError: an unknown backend, or neither request nor configuration names a dataset.
        SourceError: the dataset or `out`.
    """
    if backend not in BACKENDS:
        raise ConfigurationError(f"unknown backend {backend!r}; choose one of {', '.join(BACKENDS)}")
    state = checkpoint.load(path)
    configured = EvaluationConfig()
    if "config" in state:
        configured = loading.build(RunConfig, state["config"]).evaluation
    wanted = request.over(configured)
    if wanted.root is None:
        raise ConfigurationError("no dataset to score; give --root, or evaluation.root in the configuration")
    dataset = Davis(wanted.root, wanted.year, wanted.sequences or None)
    dataset.names()  # raises unless the data is there, before torch takes seconds to import and an export a minute
    from training.students.export import export_checkpoint

    with tempfile.TemporaryDirectory(prefix="sam2lite_") as folder:
        model = Path(folder) / state["variant"]
        export_checkpoint(path, model, note=f"checkpoint {path.name}")
        options = TrackerOptions(
            state["variant"], backend, wanted.scale, wanted.budget, wanted.policy, threads, str(model)
        )
        return evaluate(dataset, options, "mask", out, overwrite=overwrite)
