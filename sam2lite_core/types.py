"""Frames and prompts, which go into the tracker, and results, which come out; all immutable."""

from dataclasses import dataclass, field
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

from sam2lite_core.errors import InvalidFrameError, InvalidPromptError

MAX_OBJECT_ID = 65535


class ObjectState(IntEnum):
    """State of a tracked object; the values are those of `TrackedObject.msg`."""

    TRACKED = 1
    LOST = 2


@dataclass(frozen=True)
class Frame:
    """One image of a source.

    Attributes:
        image: (H, W, 3) uint8, RGB.
        stamp: capture time in seconds since the source's own zero.
        index: position in the source, from 0.
        name: file stem for folders, zero-padded index otherwise; also of the mask files written for it.
    """

    image: NDArray[np.uint8]
    stamp: float
    index: int
    name: str


@dataclass(frozen=True, kw_only=True)
class Prompt:
    """An object shown on a frame by points, a box or a mask, at least one; in source pixels (x, y).

    ```python
    Prompt(object_id=1, box=np.array([100, 80, 220, 300], np.float32))
    Prompt(object_id=2, points=np.array([[50, 60]], np.float32))
    ```

    Attributes:
        object_id: the caller's id, 1..65535.
        points: (P, 2) float32 pixel coordinates, or None.
        point_labels: (P,) 1 = on the object, 0 = not on it; all 1 when points come without labels.
        box: (4,) float32 (x0, y0, x1, y1) with x0 < x1 and y0 < y1, or None.
        mask: (H, W) bool at the frame's size, or None.

    Raises:
        InvalidPromptError: for anything else; the message names the value.
    """

    object_id: int
    points: NDArray[np.float32] | None = None
    point_labels: NDArray[np.uint8] | None = None
    box: NDArray[np.float32] | None = None
    mask: NDArray[np.bool_] | None = None

    def __post_init__(self) -> None:
        if isinstance(self.object_id, bool) or not 1 <= int(self.object_id) <= MAX_OBJECT_ID:
            raise InvalidPromptError(f"object id {self.object_id} is not in 1..{MAX_OBJECT_ID}")
        object.__setattr__(self, "object_id", int(self.object_id))
        if self.points is None and self.point_labels is not None:
            raise self._error("point_labels given without points")
        if self.points is not None:
            self._normalise_points()
        if self.box is not None:
            box = np.asarray(self.box, dtype=np.float32)
            if box.shape != (4,) or not np.isfinite(box).all() or not (box[0] < box[2] and box[1] < box[3]):
                raise self._error(f"box {box.tolist()} is not (x0, y0, x1, y1) with x0 < x1 and y0 < y1")
            object.__setattr__(self, "box", box)
        if self.mask is not None:
            mask = np.asarray(self.mask)
            if mask.ndim != 2:
                raise self._error(f"mask has shape {mask.shape}, expected (H, W)")
            if not mask.any():
                raise self._error("mask is empty; mark at least one pixel")
            object.__setattr__(self, "mask", mask.astype(bool))
        if self.points is None and self.box is None and self.mask is None:
            raise self._error("give points, a box or a mask")

    def _error(self, message: str) -> InvalidPromptError:
        return InvalidPromptError(f"object {self.object_id}: {message}")

    def _normalise_points(self) -> None:
        points = np.asarray(self.points, dtype=np.float32)
        if points.ndim != 2 or points.shape[1] != 2 or len(points) == 0:
            raise self._error(f"points have shape {points.shape}, expected (P, 2)")
        if not np.isfinite(points).all():
            raise self._error(f"points {points.tolist()} are not finite")
        given = self.point_labels
        labels = np.ones(len(points), np.uint8) if given is None else np.asarray(given)
        if labels.shape != (len(points),):
            raise self._error(f"{labels.size} point labels for {len(points)} points; give one each")
        if not np.isin(labels, (0, 1)).all():
            raise self._error(f"point labels {labels.tolist()} are not all 0 or 1")
        if not (labels == 1).any() and self.box is None and self.mask is None:
            raise self._error("no positive point; give one, a box or a mask")
        object.__setattr__(self, "points", points)
        object.__setattr__(self, "point_labels", labels.astype(np.uint8))

    def check_inside(self, height: int, width: int) -> None:
        """Check that the prompt fits an image of this size.

        Raises:
            InvalidPromptError: a point or box lies outside the image, or the mask has another size.
        """
        image = f"{width}x{height}"
        if self.points is not None:
            x, y = self.points[:, 0], self.points[:, 1]
            outside = (x < 0) | (y < 0) | (x >= width) | (y >= height)
            if outside.any():
                raise self._error(f"point {self.points[outside][0].tolist()} lies outside the {image} image")
        if self.box is not None:
            x0, y0, x1, y1 = self.box
            if x1 <= 0 or y1 <= 0 or x0 >= width or y0 >= height:
                raise self._error(f"box {self.box.tolist()} lies outside the {image} image")
        if self.mask is not None and self.mask.shape != (height, width):
            size = f"{self.mask.shape[1]}x{self.mask.shape[0]}"
            raise self._error(f"mask is {size}, the image {image}; give the mask at the image's size")


@dataclass(frozen=True)
class TrackedObject:
    """One object in one frame.

    Attributes:
        object_id: the caller's id.
        state: TRACKED, or LOST when the presence score is below the threshold (its mask is then empty).
        score: presence probability, 0..1.
        box: (x0, y0, x1, y1) source pixels, half open; zeros when the mask is empty.
        area: mask area in source pixels.
        centroid: (x, y) source pixels; zeros when the mask is empty.
    """

    object_id: int
    state: ObjectState
    score: float
    box: tuple[int, int, int, int]
    area: int
    centroid: tuple[float, float]


@dataclass(frozen=True)
class StepTimings:
    """Wall clock of the parts of a step, ms."""

    preprocess_ms: float = 0.0
    motion_ms: float = 0.0
    inference_ms: float = 0.0
    postprocess_ms: float = 0.0

    @property
    def total_ms(self) -> float:
        """Sum of the parts, ms."""
        return self.preprocess_ms + self.motion_ms + self.inference_ms + self.postprocess_ms


@dataclass(frozen=True)
class TrackResult:
    """The answer of `Tracker.step` to one frame.

    ```python
    result = tracker.step(image, prompts)
    for found in result.objects:
        print(found.object_id, found.state.name, found.box, (result.label_map == found.object_id).sum())
    ```

    Attributes:
        label_map: (H, W) uint8, or uint16 when an id exceeds 255, at the source's size; 0 = background.
        objects: one entry per followed object, in order of their ids.
        timings: where the time went.
        scale: resolution scale (rho) of this step, 0.5..1.
        window: memory window W of this step, frames.
        memory_tokens_used: valid tokens in the bank after the step.
        frame_index: steps since construction or reset, from 0.
    """

    label_map: NDArray[np.uint8] | NDArray[np.uint16]
    objects: tuple[TrackedObject, ...]
    timings: StepTimings = field(default_factory=StepTimings)
    scale: float = 1.0
    window: int = 8
    memory_tokens_used: int = 0
    frame_index: int = 0


def check_image(image: NDArray[np.uint8]) -> tuple[int, int]:
    """Return (height, width) of an (H, W, 3) uint8 image.

    Raises:
        InvalidFrameError: another shape or dtype, or an empty image.
    """
    if not isinstance(image, np.ndarray) or image.ndim != 3 or image.shape[2] != 3:
        raise InvalidFrameError(f"image has shape {getattr(image, 'shape', None)}, expected (H, W, 3)")
    if image.dtype != np.uint8:
        raise InvalidFrameError(f"image has dtype {image.dtype}, expected uint8")
    height, width = image.shape[:2]
    if height < 16 or width < 16:
        raise InvalidFrameError(f"image is {width}x{height}; both sides must be at least 16 px")
    return height, width
