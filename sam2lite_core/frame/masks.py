"""Turn the graphs' logits into label maps at the source's size, with state, box, area and centroid of objects."""

import math
from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from sam2lite_core.graph_io import StepOutputs
from sam2lite_core.types import ObjectState, Prompt, TrackedObject

FloatArray = NDArray[np.float32]
LabelMap = NDArray[np.uint8] | NDArray[np.uint16]
Crop = tuple[slice, slice]

_AROUND = np.ones((7, 7), np.uint8)
"""All cells that go into a pixel that a cell goes into."""

WIDE = 0.7
"""Share of the columns from which on all of them are interpolated at once, which saves a pass."""

LEVELS = 92.0
"""Levels of a byte that the largest logit is worth: what the cubic kernel overshoots in one direction, 3/8 at most,
stays inside the byte. Enlarging and comparing bytes takes half the time that floats take."""

MOST = 32.0
"""Logits are drawn as no larger: what a foreign model puts where nothing is, -1024, would leave no levels for the
rest."""

BOUNDARY = 127
"""The level of a logit of 0 and the highest outside an object. Levels are rounded up, so that each stands for logits on
either side of what it says, half a level lower, and boundaries move neither way."""

KERNEL_REACH = 4
"""Cells around an object that are interpolated with it: two that its logits reach, two that those are made of."""


def probabilities(logits: FloatArray) -> FloatArray:
    """Softmax over background (logit 0) and K objects; (K, h, w) to (K, h, w)."""
    top = np.maximum(logits.max(axis=0), 0.0)
    exponent = np.exp(logits - top)
    return np.asarray(exponent / (exponent.sum(axis=0) + np.exp(-top)), dtype=np.float32)


def label_map(logits: FloatArray, object_ids: Sequence[int], height: int, width: int) -> LabelMap:
    """Label every source pixel with its most likely object, to within two or three of 92 levels.

    Args:
        logits: (K, h, w) object against background.
        object_ids: of the K objects.
        height, width: source size in px.

    Returns:
        (height, width) uint8, or uint16 when an id exceeds 255; 0 = background.
    """
    return paint(logits, object_ids, height, width)[0]


def paint(logits: FloatArray, object_ids: Sequence[int], height: int, width: int) -> tuple[LabelMap, dict[int, Crop]]:
    """Make the `label_map`, and the crop (rows, columns) of each object that is in it."""
    dtype = np.uint16 if max(object_ids, default=0) > 255 else np.uint8
    labels = np.zeros((height, width), dtype)
    crops: dict[int, Crop] = {}
    seen = [pair for pair in zip(logits, object_ids, strict=True) if pair[0].max() > 0.0]
    if not seen:
        return labels, crops
    levels = LEVELS / min(MOST, max(float(np.abs(channel).max()) for channel, _ in seen))
    # A frame to compare with costs more than all else, where there is no other object to compare with.
    best = np.full((height, width), BOUNDARY, np.uint8) if len(seen) > 1 else None
    for channel, object_id in seen:
        full, target = _enlarged(channel, levels, height, width)
        crops[object_id] = target
        # OpenCV's stubs do not know that it compares with a number.
        ahead = cv2.compare(full, BOUNDARY if best is None else best[target], cv2.CMP_GT)  # type: ignore[arg-type]  # legal
        # NumPy takes thirty times as long to write where a mask says.
        cv2.copyTo(np.full(full.shape, object_id, dtype), ahead, labels[target])
        if best is not None and object_id != seen[-1][1]:
            cv2.max(full, best[target], best[target])
    return labels, crops


def _enlarged(channel: FloatArray, levels: float, height: int, width: int) -> tuple[NDArray[np.uint8], Crop]:
    """Enlarge the part of an object's logits (h, w) that can be positive; returns levels, source rows and columns.

    Cubic: a boundary inside a cell of 8 px is read off its neighbours' slopes too, .3 J&F at scale .5.
    """
    # The cubic kernel's negative weights make values between low and low / 3.2 overshoot into the positive; low is
    # the least of the cells that a pixel is made of.
    inside = (channel > cv2.erode(channel, _AROUND) / 3.0).view(np.uint8)
    x, y, columns, rows = cv2.boundingRect(inside)
    (top, upper) = _aligned(y, y + rows, channel.shape[0], height)
    left = _first_pixel(x - KERNEL_REACH, channel.shape[1], width)
    right = width - _first_pixel(channel.shape[1] - x - columns - KERNEL_REACH, channel.shape[1], width)
    clipped = np.clip(channel[top], -MOST, MOST)
    cells = (np.ceil(clipped * np.float32(levels)) + BOUNDARY).astype(np.uint8)
    if right - left > WIDE * width:
        full = cv2.resize(cells, (width, upper.stop - upper.start), interpolation=cv2.INTER_CUBIC)
        return np.asarray(full, dtype=np.uint8), (upper, slice(0, width))
    # One axis after the other, as OpenCV does by itself: columns of pixels can be cut anywhere, where columns of cells
    # and of pixels may have no common edge but the frame's.
    wide = cv2.resize(cells, (width, top.stop - top.start), interpolation=cv2.INTER_CUBIC)
    size = (right - left, upper.stop - upper.start)
    full = cv2.resize(np.ascontiguousarray(wide[:, left:right]), size, interpolation=cv2.INTER_CUBIC)
    return np.asarray(full, dtype=np.uint8), (upper, slice(left, right))


def _first_pixel(cell: int, cells: int, pixels: int) -> int:
    """Return the first pixel of a cell, rounded down; that of the first cell for those before it."""
    return max(0, cell) * pixels // cells


def _aligned(start: int, stop: int, cells: int, pixels: int) -> tuple[slice, slice]:
    """Widen a range of `cells` by the kernel's reach, to where cells and `pixels` have a common edge."""
    common = math.gcd(cells, pixels)
    step = cells // common
    first = max(0, start - KERNEL_REACH) // step
    last = -(-min(cells, stop + KERNEL_REACH) // step)
    share = pixels // common
    return slice(first * step, last * step), slice(first * share, last * share)


def read_objects(
    outputs: StepOutputs | None,
    ids: Sequence[int],
    prompts: Sequence[Prompt],
    size: tuple[int, int],
    presence_threshold: float,
) -> tuple[LabelMap, tuple[TrackedObject, ...]]:
    """Read label map and objects off a step's outputs.

    Args:
        outputs: of the step; None when no object is followed.
        ids: of the K objects, in the outputs' order.
        prompts: of the frame; their masks are written into the label map as they are.
        size: (height, width) of the source frame, px.
        presence_threshold: an object below it is LOST, 0..1.
    """
    if outputs is None:
        return np.zeros(size, np.uint8), ()
    labels, crops = paint(outputs.logits, ids, *size)
    for prompt in prompts:
        if prompt.mask is not None:
            impose_mask(labels, prompt.object_id, prompt.mask)
            crops.pop(prompt.object_id, None)
    objects = []
    for object_id, score in zip(ids, map(float, outputs.presence), strict=True):
        state = ObjectState.TRACKED if score >= presence_threshold else ObjectState.LOST
        objects.append(describe(labels, object_id, score, state, crops.get(object_id)))
    return labels, tuple(objects)


def impose_mask(labels: LabelMap, object_id: int, mask: NDArray[np.bool_]) -> None:
    """Write a given mask into a label map, in place: it is the operator's, exact to the pixel."""
    labels[(labels == object_id) & ~mask] = 0
    labels[mask] = object_id


def describe(
    labels: LabelMap, object_id: int, score: float, state: ObjectState, crop: Crop | None = None
) -> TrackedObject:
    """Measure box, area and centroid of one object in a label map; it lies in the crop, where one is given."""
    top, left = (0, 0) if crop is None else (crop[0].start, crop[1].start)
    mask = (labels if crop is None else labels[crop]) == object_id
    mask = mask.view(np.uint8)
    x, y, width, height = cv2.boundingRect(mask)
    if width == 0:
        return TrackedObject(object_id, state, score, (0, 0, 0, 0), 0, (0.0, 0.0))
    # Of the box's contents only: a small object should not cost a pass over the frame. Sums along both axes take a
    # tenth of the time of moments.
    inside = mask[y : y + height, x : x + width]
    columns, rows = (cv2.reduce(inside, axis, cv2.REDUCE_SUM, dtype=cv2.CV_32S).ravel() for axis in (0, 1))
    x, y, area = x + left, y + top, int(columns.sum())
    centroid = (
        x + float(np.dot(columns.astype(np.float64), np.arange(width))) / area,
        y + float(np.dot(rows.astype(np.float64), np.arange(height))) / area,
    )
    return TrackedObject(object_id, state, score, (x, y, x + width, y + height), area, centroid)
