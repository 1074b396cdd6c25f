"""Score a checkpoint by the DAVIS protocol."""

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sam2lite_core.datasets.davis import Davis
from sam2lite_core.errors import ConfigurationError
from sam2lite_core.evaluation.evaluate import evaluate
from sam2lite_core.evaluation.results import Evaluation
from sam2lite_core.evaluation.tracker_options import TrackerOptions
from training import checkpoint
from training.config import loading
from training.config.run import EvaluationConfig

BACKENDS = ("onnxruntime", "torch")


def evaluate_checkpoint(
    path: Path,
    request: Mapping[str, Any],
    *,
    backend: str = "onnxruntime",
    threads: int | None = None,
    out: Path | None = None,
    overwrite: bool = False,
) -> Evaluation:
    """Export a checkpoint's averaged weights to a temporary folder and run the tracker on them.

    Args:
        path: the checkpoint.
        request: values of `EvaluationConfig`; None leaves the run's own.
        backend: one of `BACKENDS`; torch runs the student with the exported weights.
        threads: CPU threads of the runtime.
        out: folder for masks and davis.json, replaced if `overwrite`.

    Raises:
        ModelFileError, ConfigurationError, SourceError: of the checkpoint, the backend or dataset, the folders.
    """
    if backend not in BACKENDS:
        raise ConfigurationError(f"unknown backend {backend!r}; choose one of {', '.join(BACKENDS)}")
    state = checkpoint.load(path)
    given = {name: value for name, value in request.items() if value is not None}
    wanted = loading.build(EvaluationConfig, state.get("config", {}).get("evaluation", {}) | given)
    if wanted.root is None:
        raise ConfigurationError("no dataset to score; give --root, or evaluation.root in the configuration")
    dataset = Davis(wanted.root, wanted.year, wanted.sequences or None)
    dataset.names()  # raises where the data is missing, before an export that takes a minute
    from training.students.export import export_checkpoint

    with tempfile.TemporaryDirectory(prefix="sam2lite_") as folder:
        model = Path(folder) / state["variant"]
        export_checkpoint(path, model, note=f"checkpoint {path.name}")
        options = TrackerOptions(
            state["variant"], backend, wanted.scale, wanted.budget, wanted.policy, threads, str(model)
        )
        return evaluate(dataset, options, "mask", out, overwrite=overwrite)
