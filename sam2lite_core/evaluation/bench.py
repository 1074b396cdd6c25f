"""Speed and memory of the tracker on this machine: `sam2lite bench`.

Frames come from the rendered clip, so that anybody measures the same; times are wall clock, medians of many steps after
a warm-up, everything in one process and one run.
"""

import resource
import statistics
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from sam2lite_core.errors import ConfigurationError
from sam2lite_core.evaluation.machine import describe_machine, resident_mb
from sam2lite_core.evaluation.rendered import render_clip
from sam2lite_core.tracker import Tracker
from sam2lite_core.types import Prompt, TrackResult

WARM_UP = 5
EDGE = 1000
"""Steps at either end of an endurance run that are compared."""

Image = NDArray[np.uint8]


@dataclass(frozen=True)
class BenchSettings:
    """What to measure.

    Attributes:
        variant, backend, threads, model: as for the tracker.
        scales: resolution scales.
        objects: numbers of objects followed at once.
        frames: timed steps per row.
        height, width: source size, px.
    """

    variant: str = "tiny"
    backend: str = "auto"
    threads: int | None = None
    model: str | None = None
    scales: tuple[float, ...] = (0.5, 0.7, 1.0)
    objects: tuple[int, ...] = (1, 2, 4, 8, 16)
    frames: int = 30
    height: int = 480
    width: int = 854

    def __post_init__(self) -> None:
        if self.frames < 3 or not self.scales or not self.objects or min(self.objects) < 1:
            raise ConfigurationError("bench needs at least 3 frames, one scale, and objects from 1 up")


def percentiles(values: list[float]) -> dict[str, float]:
    """p50, p95, p99 of milliseconds, rounded to the microsecond."""
    return {f"p{q}": round(float(np.percentile(values, q)), 3) for q in (50, 95, 99)}


def frames_of(settings: BenchSettings) -> list[Image]:
    """Ten rendered frames at the source's size."""
    clip = render_clip(0, height=240, width=320, frames=10)
    size = (settings.width, settings.height)
    return [np.asarray(cv2.resize(frame, size), dtype=np.uint8) for frame in clip.frames]


def middle_boxes(count: int, settings: BenchSettings) -> list[Prompt]:
    """Boxes in a grid of cells, one per object."""
    side = int(np.ceil(np.sqrt(count)))
    cell = np.array([settings.width / side, settings.height / side])
    corners = [(index % side, index // side) for index in range(count)]
    return [
        Prompt(
            object_id=k + 1, box=np.array([*(cell * (np.array(at) + 0.2)), *(cell * (np.array(at) + 0.8))])
        )
        for k, at in enumerate(corners)
    ]


def middle_masks(count: int, settings: BenchSettings) -> list[Prompt]:
    """The same boxes as masks: they need no reading, so that every object is followed and drawn."""
    prompts = []
    for prompt in middle_boxes(count, settings):
        assert prompt.box is not None  # middle_boxes makes boxes
        mask = np.zeros((settings.height, settings.width), np.bool_)
        x0, y0, x1, y1 = (int(value) for value in prompt.box)
        mask[y0:y1, x0:x1] = True
        prompts.append(Prompt(object_id=prompt.object_id, mask=mask))
    return prompts


def endless(frames: list[Image]) -> Iterator[Image]:
    """Frames forward and backward for ever, so that no cut appears."""
    while True:
        yield from frames
        yield from frames[-2:0:-1]


def _tracker(settings: BenchSettings, scale: float) -> Tracker:
    return Tracker(
        settings.variant, settings.backend, scale=scale, threads=settings.threads, model_path=settings.model
    )


def latency_rows(
    settings: BenchSettings, tell: Callable[[str], None] = lambda _: None
) -> list[dict[str, Any]]:
    """Time of a step by part, for every scale and number of objects.

    Args:
        settings: what to measure.
        tell: called with a line before each row is measured.
    """
    frames = frames_of(settings)
    rows = []
    for scale in settings.scales:
        tracker = _tracker(settings, scale)
        for count in settings.objects:
            tell(f"{settings.variant}, scale {scale}, {count} objects")
            tracker.reset()
            source = endless(frames)
            tracker.step(next(source), middle_boxes(count, settings))
            # Random or lost objects cost as much as found ones: a lost one is still looked for.
            results = [tracker.step(next(source)) for _ in range(WARM_UP + settings.frames)][WARM_UP:]
            rows.append({"variant": settings.variant, "scale": scale, "objects": count, **_parts(results)})
    return rows


def _parts(results: list[TrackResult]) -> dict[str, Any]:
    """Percentiles of the whole step and medians of its parts."""
    totals = [result.timings.total_ms for result in results]
    parts = ("preprocess_ms", "motion_ms", "inference_ms", "postprocess_ms")
    medians = {part: round(statistics.median(getattr(r.timings, part) for r in results), 3) for part in parts}
    return {"step_ms": percentiles(totals), **medians, "fps": round(1000.0 / statistics.median(totals), 1)}


def endurance(
    settings: BenchSettings, steps: int, tell: Callable[[str], None] = lambda _: None
) -> dict[str, Any]:
    """Many steps in a row at the first scale, one object: does anything grow or slow down?

    Raises:
        ConfigurationError: too few steps to compare the first thousand with the last.
    """
    if steps < 2 * EDGE:
        raise ConfigurationError(f"endurance of {steps} steps; give at least {2 * EDGE}")
    tracker = _tracker(settings, settings.scales[0])
    source = endless(frames_of(settings))
    tracker.step(next(source), middle_boxes(1, settings))
    for _ in range(200):  # allocators and caches settle
        tracker.step(next(source))
    before = resident_mb()
    times, tokens = [], 0
    for step in range(steps):
        result = tracker.step(next(source))
        times.append(result.timings.total_ms)
        tokens = max(tokens, result.memory_tokens_used)
        if step % 1000 == 999:
            tell(f"{step + 1} of {steps} steps, {resident_mb() - before:+.1f} MB")
    return {
        "variant": settings.variant,
        "scale": settings.scales[0],
        "steps": steps,
        "resident_mb_before": round(before, 1),
        "resident_mb_growth": round(resident_mb() - before, 2),
        "peak_resident_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024 * 1.048576, 1),
        "first_1000_median_ms": round(statistics.median(times[:EDGE]), 3),
        "last_1000_median_ms": round(statistics.median(times[-EDGE:]), 3),
        "most_tokens": tokens,
        "memory_budget": tracker.memory_budget,
    }


def report(
    settings: BenchSettings, rows: list[dict[str, Any]], endured: dict[str, Any] | None
) -> dict[str, Any]:
    """Everything that was measured, with what it was measured on."""
    return {
        "machine": describe_machine(),
        "settings": asdict(settings),
        "latency": rows,
        **({"endurance": endured} if endured is not None else {}),
    }


def markdown(content: dict[str, Any]) -> str:
    """The latency rows as a Markdown table."""
    machine, settings = content["machine"], content["settings"]
    lines = [
        f"{machine['cpu']}, {machine['cores']} cores, {settings['threads'] or 'default'} threads, "
        f"onnxruntime {machine.get('onnxruntime', '-')}, source {settings['width']}x{settings['height']}, "
        f"median of {settings['frames']} steps",
        "",
        "| variant | scale | objects | step p50 ms | p95 ms | inference ms | motion ms | pre ms | post ms | FPS |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for row in content["latency"]:
        step = row["step_ms"]
        lines.append(
            f"| {row['variant']} | {row['scale']} | {row['objects']} | {step['p50']:.1f} | {step['p95']:.1f} "
            f"| {row['inference_ms']:.1f} | {row['motion_ms']:.1f} | {row['preprocess_ms']:.1f} "
            f"| {row['postprocess_ms']:.1f} | {row['fps']} |"
        )
    return "\n".join(lines) + "\n"
