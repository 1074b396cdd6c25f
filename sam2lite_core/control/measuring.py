"""Measure the latency table: a few steps at every rung, with the longest and the shortest window by turns."""

import math
from collections.abc import Callable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from sam2lite_core.control.latency_table import LatencyTable
from sam2lite_core.frame.resolution import RUNGS
from sam2lite_core.types import Prompt
from sam2lite_core.variants import MAX_WINDOW, MIN_WINDOW

REPEATS = 2
"""Timed steps per rung and window. With a warm-up at each rung that makes 30 steps, 2 to 3 s on two slow cores."""

_SHIFT = 2
_SMALLEST_SPREAD = 0.02

MeasuredStep = Callable[[NDArray[np.uint8], Sequence[Prompt], float, int], float]
"""A step on an image with prompts, at a resolution scale and a memory window; returns its time, ms."""


def measure_latency(step: MeasuredStep, size: tuple[int, int], objects: int) -> LatencyTable:
    """Time steps of a tracker on frames of (height, width) px with so many objects; see `measure_table`."""
    frames = moving_frames(*size)
    step(next(frames), boxes(objects, *size), RUNGS[-1], MAX_WINDOW)
    return measure_table(lambda scale, window: step(next(frames), (), scale, window))


def measure_table(step: Callable[[float, int], float], repeats: int = REPEATS) -> LatencyTable:
    """Time steps at every rung and window.

    The share that the shorter window saves is taken to be the same at every rung: so few steps could not tell 3 % from
    noise at each.

    Args:
        step: runs a step at a scale and a window, returns its time in ms.
        repeats: timed steps per rung and window; medians count.
    """
    laps: list[list[tuple[float, float]]] = []
    for rung in RUNGS:
        step(rung, MAX_WINDOW)  # the first step at a size allocates
        # By turns, so that a load that comes or goes meets both windows.
        laps.append([(step(rung, MIN_WINDOW), step(rung, MAX_WINDOW)) for _ in range(repeats)])
    times = np.array(laps)  # (rungs, repeats, windows)
    share = min(1.0, float(np.median(times[..., 0] / times[..., 1])))
    steps = (times / (share, 1.0)).reshape(len(RUNGS), -1)
    full = np.median(steps, axis=1)
    residuals = np.log(steps / full[:, None])
    # The median took one of each rung's degrees of freedom.
    spread = math.sqrt(float((residuals**2).sum()) / (residuals.size - len(RUNGS)))
    rows = tuple((share * usual, usual) for usual in full.tolist())
    return LatencyTable(RUNGS, (MIN_WINDOW, MAX_WINDOW), rows, max(spread, _SMALLEST_SPREAD))


def moving_frames(height: int, width: int) -> Iterator[NDArray[np.uint8]]:
    """Yield endless (H, W, 3) uint8 frames of a texture that moves, so that optical flow has its usual work."""
    coarse = np.random.default_rng(0).integers(0, 256, (-(-height // 8), -(-width // 8), 3), dtype=np.uint8)
    image = coarse.repeat(8, axis=0).repeat(8, axis=1)[:height, :width]
    while True:
        yield image
        image = np.ascontiguousarray(np.roll(image, _SHIFT, axis=1))


def boxes(count: int, height: int, width: int) -> list[Prompt]:
    """Return prompts for so many objects: the same box in the middle, since cost does not depend on where they are."""
    box = np.array([0.3 * width, 0.3 * height, 0.7 * width, 0.7 * height], np.float32)
    return [Prompt(object_id=index + 1, box=box) for index in range(count)]
