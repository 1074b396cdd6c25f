"""Measure the cost of further objects: `sam2lite bench objects`.

Beside the shipped graphs, which hold 16 objects, runs one exported from the same weights for one object only.
"""

import tempfile
from pathlib import Path
from statistics import median
from typing import Any

from sam2lite_core.backends.model_files import WEIGHTS_FILE, find_model
from sam2lite_core.bench.step import BenchSettings, endless, frames_of, middle_masks
from sam2lite_core.bench.tables import table
from sam2lite_core.tracker import Tracker
from sam2lite_core.variants import get_variant

WARM_UP = 5
ALONE = 0
"""Key of the graph for one object among numbers of objects."""


def measure(settings: BenchSettings) -> dict[str, Any]:
    """Time whole steps of the first scale by number of objects, and of one object in a graph of its own, in turns.

    Returns:
        `step_ms` (medians) by number of objects, `one_object_graph_ms`, and `ratios` of the first to their least and of
        the least to the last.

    Raises:
        ModelFileError: no such model.
        ImportError: exporting needs torch, onnx and onnxscript.
    """
    from sam2lite_core.backends.torch import load_shipped
    from sam2lite_core.export.onnx import export_student

    folder = find_model(get_variant(settings.variant), settings.model)
    with tempfile.TemporaryDirectory() as work:
        alone = Path(work) / "one"
        export_student(load_shipped(folder / WEIGHTS_FILE)[0], alone, max_objects=1)
        trackers = {count: _prompted(settings, folder, count) for count in settings.objects}
        trackers[ALONE] = _prompted(settings, alone, 1)
        source = endless(frames_of(settings))
        times: dict[int, list[float]] = {count: [] for count in trackers}
        for _ in range(WARM_UP + settings.frames):
            image = next(source)
            for count, tracker in trackers.items():
                times[count].append(tracker.step(image).timings.total_ms)
    medians = {count: round(median(values[WARM_UP:]), 3) for count, values in times.items()}
    one_graph = medians.pop(ALONE)
    fewest = min(medians)
    return {
        "variant": settings.variant,
        "scale": settings.scales[0],
        "threads": settings.threads,
        "step_ms": {str(count): value for count, value in medians.items()},
        "one_object_graph_ms": one_graph,
        "ratios": {
            **{f"{count}_over_{fewest}": round(medians[count] / medians[fewest], 3) for count in medians},
            f"{fewest}_over_one_object_graph": round(medians[fewest] / one_graph, 3),
        },
    }


def _prompted(settings: BenchSettings, folder: Path, count: int) -> Tracker:
    tracker = Tracker(
        settings.variant, settings.backend, scale=settings.scales[0], threads=settings.threads, model_path=folder
    )
    tracker.step(frames_of(settings)[0], middle_masks(count, settings))
    return tracker


def markdown(content: dict[str, Any]) -> str:
    """Write the figures as a Markdown table."""
    base = content["step_ms"][min(content["step_ms"], key=int)]
    times = {**content["step_ms"], "1, in a graph for one": content["one_object_graph_ms"]}
    rows = [(count, f"{value:.1f}", f"{value / base:.2f}") for count, value in times.items()]
    return "\n".join(table(("objects", "step p50 ms", "over one"), rows)) + "\n"
