"""Measure speed and memory of the tracker on this machine: `sam2lite bench`.

Frames come from the rendered clip, so that anybody measures the same; times are wall clock, medians after a warm-up.
"""

import resource
import statistics
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from sam2lite_core.bench.energy import Gauge
from sam2lite_core.errors import ConfigurationError
from sam2lite_core.evaluation.runs.machine import describe_machine, resident_mb
from sam2lite_core.scenes.clip import render_clip
from sam2lite_core.tracker import Tracker
from sam2lite_core.types import Prompt, TrackResult

WARM_UP = 5
EDGE = 1000
"""Steps at either end of an endurance run that are compared."""

Image = NDArray[np.uint8]


@dataclass(frozen=True)
class BenchSettings:
    """Settings of a measurement; those not listed are the tracker's.

    Attributes:
        scales: resolution scales; None for a foreign model's own size, which rows call scale 1.
        objects: numbers of objects followed at once.
        frames: timed steps per row.
        height, width: source size, px.
    """

    variant: str = "tiny"
    backend: str = "auto"
    threads: int | None = None
    model: str | None = None
    scales: tuple[float | None, ...] = (0.5, 0.7, 1.0)
    objects: tuple[int, ...] = (1, 2, 4, 8, 16)
    frames: int = 30
    height: int = 480
    width: int = 854
    precision: str = "auto"
    device: str = "auto"

    def __post_init__(self) -> None:
        if self.frames < 3 or not self.scales or not self.objects or min(self.objects) < 1:
            raise ConfigurationError("bench needs at least 3 frames, one scale, and objects from 1 up")


def percentiles(values: list[float]) -> dict[str, float]:
    """Compute p50, p95, p99 of milliseconds, rounded to the microsecond."""
    return {f"p{q}": round(float(np.percentile(values, q)), 3) for q in (50, 95, 99)}


def frames_of(settings: BenchSettings) -> list[Image]:
    """Render ten frames at the source's size."""
    clip = render_clip(0, height=240, width=320, frames=10)
    size = (settings.width, settings.height)
    return [np.asarray(cv2.resize(frame, size), dtype=np.uint8) for frame in clip.frames]


def middle_boxes(count: int, settings: BenchSettings) -> list[Prompt]:
    """Place boxes in a grid of cells, one per object."""
    side = int(np.ceil(np.sqrt(count)))
    cell = np.array([settings.width / side, settings.height / side] * 2)
    inner = np.array([0.2, 0.2, 0.8, 0.8])
    corners = [np.array([index % side, index // side] * 2) for index in range(count)]
    return [Prompt(object_id=k + 1, box=cell * (at + inner)) for k, at in enumerate(corners)]


def middle_masks(count: int, settings: BenchSettings) -> list[Prompt]:
    """Return the same boxes as masks, so that every object is followed and drawn."""
    prompts = []
    for prompt in middle_boxes(count, settings):
        mask = np.zeros((settings.height, settings.width), np.bool_)
        x0, y0, x1, y1 = np.asarray(prompt.box, dtype=int)
        mask[y0:y1, x0:x1] = True
        prompts.append(Prompt(object_id=prompt.object_id, mask=mask))
    return prompts


def endless(frames: list[Image]) -> Iterator[Image]:
    """Yield frames forward and backward for ever, so that no cut appears."""
    while True:
        yield from frames
        yield from frames[-2:0:-1]


def tracker_options(settings: BenchSettings, scale: float | None) -> dict[str, Any]:
    """Return the arguments of the tracker, plain values."""
    return {
        "variant": settings.variant,
        "backend": settings.backend,
        "precision": settings.precision,
        "device": settings.device,
        "scale": scale,
        "threads": settings.threads,
        "model_path": settings.model,
    }


def latency_rows(
    settings: BenchSettings,
    tell: Callable[[str], None] = lambda _: None,
    gauge: Gauge | None = None,
    weights: str = "shipped",
) -> list[dict[str, Any]]:
    """Time steps by part, for every scale and number of objects, and measure their energy with a gauge.

    `tell` gets a line before each row; `weights` (shipped, given or random) stands in the rows.
    """
    frames = frames_of(settings)
    rows = []
    for scale in settings.scales:
        tracker = Tracker(**tracker_options(settings, scale))
        for count in settings.objects:
            tell(f"{tracker.backend.info.variant}, {tracker.backend.name}, scale {scale or 1}, {count} objects")
            tracker.reset()
            source = endless(frames)
            tracker.step(next(source), middle_boxes(count, settings))
            # Random or lost objects cost as much as found ones: a lost one is still looked for.
            _steps(tracker, source, WARM_UP)
            timed = partial(_steps, tracker, source, settings.frames)
            results, energy = (gauge or Gauge([], [])).per_step(timed, settings.frames)
            rows.append(
                {
                    "variant": tracker.backend.info.variant,
                    "backend": tracker.backend.name,
                    "precision": settings.precision,
                    "weights": weights,
                    "scale": scale or 1.0,
                    "objects": count,
                    **_parts(results),
                    **({} if energy is None else {"energy_mj": energy}),
                }
            )
    return rows


def _steps(tracker: Tracker, source: Iterator[Image], count: int) -> list[TrackResult]:
    return [tracker.step(next(source)) for _ in range(count)]


def _parts(results: list[TrackResult]) -> dict[str, Any]:
    """Compute percentiles of the whole step and medians of its parts."""
    totals = [result.timings.total_ms for result in results]
    parts = ("preprocess_ms", "motion_ms", "inference_ms", "postprocess_ms")
    medians = {part: round(statistics.median(getattr(r.timings, part) for r in results), 3) for part in parts}
    return {"step_ms": percentiles(totals), **medians, "fps": round(1000.0 / statistics.median(totals), 1)}


def endurance(settings: BenchSettings, steps: int, tell: Callable[[str], None] = lambda _: None) -> dict[str, Any]:
    """Run many steps, 2,000 or more, at the first scale with one object, to see growth and slowdown."""
    if steps < 2 * EDGE:
        raise ConfigurationError(f"endurance of {steps} steps; give at least {2 * EDGE}")
    tracker = Tracker(**tracker_options(settings, settings.scales[0]))
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
    peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6
    return {
        "variant": settings.variant,
        "scale": settings.scales[0],
        "steps": steps,
        "resident_mb_before": round(before, 1),
        "resident_mb_growth": round(resident_mb() - before, 2),
        # The kernel counts pages in batches a thread: its peak may lag behind what it told a moment ago.
        "peak_resident_mb": round(max(peak_mb, before, resident_mb()), 1),
        "first_1000_median_ms": round(statistics.median(times[:EDGE]), 3),
        "last_1000_median_ms": round(statistics.median(times[-EDGE:]), 3),
        "most_tokens": tokens,
        "memory_budget": tracker.memory_budget,
    }


def report(
    settings: BenchSettings,
    rows: list[dict[str, Any]],
    endured: dict[str, Any] | None,
    *,
    fresh: list[dict[str, Any]] | None = None,
    energy: str | None = None,
) -> dict[str, Any]:
    """Join the rows of `latency_rows` and `fresh_process` and the rest with the machine and the first model's settings.

    `energy` names the meters, or says why there are none.
    """
    others = {"endurance": endured, "fresh_process": fresh, "energy": energy}
    return {
        "machine": describe_machine(),
        "settings": asdict(settings),
        "latency": rows,
        **{name: value for name, value in others.items() if value is not None},
    }
