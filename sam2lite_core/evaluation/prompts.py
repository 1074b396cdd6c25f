"""Make prompts from true masks: the mask itself, its box, or one click."""

import cv2
import numpy as np
from numpy.typing import NDArray

from sam2lite_core.errors import ConfigurationError
from sam2lite_core.media.label_map import LabelMap
from sam2lite_core.types import Prompt

PROMPTS = ("mask", "box", "point")


def check_prompt_kind(kind: str) -> str:
    """Return the kind of prompt, or raise ConfigurationError."""
    if kind not in PROMPTS:
        raise ConfigurationError(f"unknown prompt {kind!r}; choose one of {', '.join(PROMPTS)}")
    return kind


def prompts_from_masks(label_map: LabelMap, kind: str = "mask") -> list[Prompt]:
    """Make a prompt of every object of an (H, W) label map, in order of their ids.

    Kinds: mask, box (tight, half open) or point (the one farthest from the mask's outline).
    """
    return [_prompt(label_map == value, int(value), kind) for value in np.unique(label_map) if value != 0]


def _prompt(mask: NDArray[np.bool_], object_id: int, kind: str) -> Prompt:
    """Make the prompt of one object from its (H, W) mask."""
    if kind == "mask":
        return Prompt(object_id=object_id, mask=mask)
    binary = mask.view(np.uint8)
    if kind == "box":
        x, y, width, height = cv2.boundingRect(binary)
        return Prompt(object_id=object_id, box=np.array([x, y, x + width, y + height], np.float32))
    # The zero border counts the image's edge as outline: a point on it would be a poor click.
    padded = cv2.copyMakeBorder(binary, 1, 1, 1, 1, cv2.BORDER_CONSTANT, value=0)
    depth = cv2.distanceTransform(padded, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)[1:-1, 1:-1]
    row, column = np.unravel_index(int(depth.argmax()), depth.shape)
    return Prompt(object_id=object_id, points=np.array([[column, row]], np.float32))
