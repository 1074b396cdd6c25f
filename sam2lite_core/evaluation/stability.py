"""Measure how steadily an object is followed: drift and consistency of its scores, flicker of its masks."""

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from sam2lite_core.evaluation.davis_protocol import ObjectScores
from sam2lite_core.evaluation.region_boundary import boundary_accuracy
from sam2lite_core.frame.motion import MotionEstimator
from sam2lite_core.media.label_map import LabelMap

DRIFT_FRAMES = 1000
"""Drift is stated per this many frames."""

DRIFT_LEAST_FRAMES = 300
"""Objects that were scored on fewer frames have no drift.

A slope's standard error over s frames is about 3.46 scatter / s^1.5: more than any drift below 300.
"""

FLICKER_SHORT_SIDE = 240
"""Masks are compared for flicker at most at this short side, px: the tolerance is 4 px there."""


@dataclass(frozen=True)
class Stability:
    """The stability of a sequence, averaged over its objects.

    Attributes:
        drift: slope of J&F over the frames, per 1,000 frames; negative when tracking gets worse. Of the objects with
            at least `DRIFT_LEAST_FRAMES`; None where none was.
        consistency: standard deviation of J&F across frames, 0 when every frame scores alike.
        flicker: boundary change that motion does not explain, 0..1; see `FlickerMeter`; None without pictures.
        flicker_of_truth: the same of the true masks: the error of the flow itself; None without truth.
    """

    drift: float | None
    consistency: float
    flicker: float | None
    flicker_of_truth: float | None


def drift(frames: Sequence[int], scores: Sequence[float]) -> float:
    """Fit the slope of the scores over frame indexes by least squares, per 1,000 frames; 0 for a single frame."""
    if len(scores) < 2:
        return 0.0
    x, y = np.asarray(frames, np.float64), np.asarray(scores, np.float64)
    x = x - x.mean()
    return float(DRIFT_FRAMES * (x @ (y - y.mean())) / (x @ x))


def consistency(scores: Sequence[float]) -> float:
    """Compute the standard deviation of the scores across frames."""
    return float(np.std(np.asarray(scores, np.float64)))


def mean_drift(objects: Sequence[ObjectScores]) -> float | None:
    """Average drift over the objects that were scored on `DRIFT_LEAST_FRAMES` or more; None where none was."""
    long = [entry for entry in objects if len(entry.frames) >= DRIFT_LEAST_FRAMES]
    return float(np.mean([drift(entry.frames, entry.frames_jf) for entry in long])) if long else None


def summarise_stability(
    objects: Sequence[ObjectScores], flicker: float | None, flicker_of_truth: float | None
) -> Stability:
    """Average drift and consistency over at least one object."""
    return Stability(
        drift=mean_drift(objects),
        consistency=float(np.mean([consistency(entry.frames_jf) for entry in objects])),
        flicker=flicker,
        flicker_of_truth=flicker_of_truth,
    )


class FlickerMeter:
    """Measures the boundary change between successive frames that motion does not explain.

    The previous mask is carried to this frame by optical flow (DIS, as the tracker has it). The change is 1 - F of the
    carried mask against this frame's mask, with the tolerance of the boundary accuracy F: 0 when the outline moved as
    the picture did. Flicker is its mean over objects and frames on which either mask has an object.
    """

    def __init__(self) -> None:
        self._motion = MotionEstimator()
        self._grid: NDArray[np.float32] | None = None
        self._size = (0, 0)
        self._previous: dict[str, LabelMap] = {}
        self._changes: dict[str, list[float]] = {}

    def look(self, image: NDArray[np.uint8]) -> None:
        """Take the next frame, (H, W, 3) uint8 RGB; call before `add`."""
        height, width = image.shape[:2]
        factor = min(1.0, FLICKER_SHORT_SIDE / min(height, width))
        rows, columns = max(1, round(height * factor)), max(1, round(width * factor))
        flow = self._motion.update(image)
        self._grid = None if flow is None else flow.sample_grid(rows, columns)
        if (columns, rows) != self._size:
            self._previous.clear()
        self._size = columns, rows

    def add(self, series: str, label_map: LabelMap, object_ids: Sequence[int]) -> None:
        """Compare this frame's (H, W) label map with the last one of the same series, such as prediction or truth."""
        small = cv2.resize(label_map, self._size, interpolation=cv2.INTER_NEAREST)
        previous = self._previous.get(series)
        self._previous[series] = small  # type: ignore[assignment]  # OpenCV's stubs are wider
        if previous is None or self._grid is None:
            return
        carried = cv2.remap(previous, self._grid, None, cv2.INTER_NEAREST, borderMode=cv2.BORDER_REPLICATE)  # type: ignore[call-overload]  # None is legal
        for object_id in object_ids:
            before, now = carried == object_id, small == object_id
            if before.any() or now.any():
                self._changes.setdefault(series, []).append(1.0 - boundary_accuracy(before, now))

    def result(self, series: str) -> float | None:
        """Return the flicker of a series, 0..1; None when nothing could be compared."""
        changes = self._changes.get(series)
        return float(np.mean(changes)) if changes else None
