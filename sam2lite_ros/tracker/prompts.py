"""Turn requests of operators and parameters into prompts for the core."""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import numpy as np
from geometry_msgs.msg import Point, PointStamped
from numpy.typing import NDArray
from sensor_msgs.msg import RegionOfInterest

from sam2lite_core.errors import InvalidPromptError
from sam2lite_core.media.label_map import read_label_map
from sam2lite_core.types import MAX_OBJECT_ID, Prompt
from sam2lite_ros.conversions import MASK_ENCODINGS, prompt_mask
from sam2lite_ros.tracker.parameters import InitialPrompt

MAX_POINTS = 1024
"""Most points of one prompt: each is drawn for the model."""


@dataclass(frozen=True)
class PromptRequest:
    """A prompt as it arrives, before its id is chosen and its frame found.

    Attributes:
        stamp_ns: stamp of the frame that the operator saw, nanoseconds; 0 = the newest.
        object_id: the id asked for, 0 = choose.
        label: free text that travels with the object.
        points: (P, 2) source pixels, or None.
        point_labels: (P,) 1 or 0, or None.
        box: (4,) x0, y0, x1, y1 source pixels, or None.
        mask: (H, W) bool at the source's size, or None.
    """

    stamp_ns: int
    object_id: int = 0
    label: str = ""
    points: NDArray[np.float32] | None = None
    point_labels: NDArray[np.uint8] | None = None
    box: NDArray[np.float32] | None = None
    mask: NDArray[np.bool_] | None = None

    def prompt(self, object_id: int) -> Prompt:
        """Return the prompt for this id; InvalidPromptError as `Prompt` raises it."""
        return Prompt(
            object_id=object_id, points=self.points, point_labels=self.point_labels, box=self.box, mask=self.mask
        )


def stamp_nanoseconds(stamp: Any) -> int:
    """Return a builtin_interfaces/Time as nanoseconds."""
    return int(stamp.sec) * 1_000_000_000 + int(stamp.nanosec)


def request_from_service(request: Any) -> PromptRequest:
    """Read an AddObject request.

    Raises:
        InvalidPromptError: an odd number of coordinates, or more than `MAX_POINTS` points.
        InvalidFrameError: a mask that cannot be read.
    """
    flat = np.asarray(request.points_xy, np.float32)
    if flat.size % 2:
        raise InvalidPromptError(f"points_xy has {flat.size} numbers; give x and y for each point")
    if flat.size > 2 * MAX_POINTS:
        raise InvalidPromptError(f"points_xy holds {flat.size // 2} points; give at most {MAX_POINTS}, or a mask")
    labels = np.asarray(bytearray(request.point_labels), np.uint8)
    has_mask = len(request.mask.data) > 0 or request.mask.height > 0 or request.mask.width > 0
    return PromptRequest(
        stamp_ns=stamp_nanoseconds(request.header.stamp),
        object_id=int(request.object_id),
        label=request.label,
        points=flat.reshape(-1, 2) if flat.size else None,
        point_labels=labels if labels.size else None,
        box=_box(request.box),
        mask=prompt_mask(request.mask) if has_mask else None,
    )


def request_from_point(message: PointStamped) -> PromptRequest:
    """Read a click: a new object at pixel (x, y) of the frame with that stamp; z is ignored."""
    point = np.array([[message.point.x, message.point.y]], np.float32)
    return PromptRequest(stamp_ns=stamp_nanoseconds(message.header.stamp), points=point)


def request_from_click(message: Point) -> PromptRequest:
    """Read a click without a header: a new object in the newest frame."""
    return request_from_point(PointStamped(point=message))


def request_from_box(message: RegionOfInterest) -> PromptRequest:
    """Read a drawn box, which has no stamp: a new object in the newest frame; InvalidPromptError when it is empty."""
    box = _box(message)
    if box is None:
        raise InvalidPromptError(f"box is {message.width}x{message.height}; both sides must be positive")
    return PromptRequest(stamp_ns=0, box=box)


def _box(region: RegionOfInterest) -> NDArray[np.float32] | None:
    if region.width == 0 or region.height == 0:
        return None
    left, top = region.x_offset, region.y_offset
    return np.array([left, top, left + region.width, top + region.height], np.float32)


def initial_prompts(initial: InitialPrompt, mask_encoding: str) -> tuple[Prompt, ...]:
    """Make the prompts for the first frame; the published mask of this encoding has to hold their ids.

    Raises:
        SourceError: the mask file cannot be read.
        InvalidPromptError: an empty mask, an id that the published mask could not hold, or values that make no sense.
    """
    if not initial.given:
        return ()
    labels = None if initial.mask_file is None else read_label_map(initial.mask_file)
    if initial.object_id == 0 and labels is not None:
        prompts = tuple(Prompt(object_id=int(value), mask=labels == value) for value in np.unique(labels) if value)
        if not prompts:
            raise InvalidPromptError(f"{initial.mask_file}: the mask is empty; mark at least one pixel")
    else:
        prompt = Prompt(
            object_id=initial.object_id,
            points=np.array(initial.points, np.float32) if initial.points else None,
            point_labels=np.array(initial.point_labels, np.uint8) if initial.point_labels else None,
            box=None if initial.box is None else np.array(initial.box, np.float32),
            mask=None if labels is None else labels > 0,
        )
        prompts = (prompt,)
    for prompt in prompts:
        _check_id(prompt.object_id, mask_encoding)
    return prompts


def resolve_id(asked: int, taken: Collection[int], mask_encoding: str) -> int:
    """Return the id to follow: the one asked for, or for 0 the smallest that is free.

    Raises:
        InvalidPromptError: the published mask could not hold it.
    """
    largest = _check_id(asked, mask_encoding)
    if asked:
        return asked
    free = next((candidate for candidate in range(1, largest + 1) if candidate not in taken), None)
    if free is None:
        raise InvalidPromptError(f"all ids up to {largest} are taken; remove an object or use mono16")
    return free


def _check_id(object_id: int, mask_encoding: str) -> int:
    """Return the largest id that a mask in this encoding holds, or refuse one that is larger."""
    largest = min(int(np.iinfo(MASK_ENCODINGS[mask_encoding]).max), MAX_OBJECT_ID)
    if object_id > largest:
        raise InvalidPromptError(
            f"object id {object_id} does not fit mask_encoding {mask_encoding} (up to {largest}); use mono16"
        )
    return largest
