"""Rasterise prompts for the graphs."""

from collections.abc import Sequence
from dataclasses import replace

import cv2
import numpy as np
from numpy.typing import NDArray

from sam2lite_core.errors import InvalidPromptError
from sam2lite_core.graph_io import PromptInputs
from sam2lite_core.types import Prompt

STRIDE = 4
"""Stride of the graphs' masks and prompt rasters in network pixels."""

POINT_SIGMA = 2.0
"""Radius of a click's spot in stride-4 pixels; the student was trained with the same."""


def separate_masks(prompts: Sequence[Prompt]) -> tuple[Prompt, ...]:
    """Make the given masks of one frame disjoint: a pixel belongs to the smallest mask that covers it.

    Raises:
        InvalidPromptError: smaller masks leave nothing of a mask.
    """
    given = [(prompt, prompt.mask) for prompt in prompts if prompt.mask is not None]
    taken: NDArray[np.bool_] | None = None
    cut: dict[int, Prompt] = {}
    for prompt, mask in sorted(given, key=lambda pair: int(np.count_nonzero(pair[1]))):
        if taken is None or taken.shape != mask.shape:  # sizes are checked against the image elsewhere
            taken = mask.copy()
            continue
        left = mask & ~taken
        if not left.any():
            raise InvalidPromptError(
                f"object {prompt.object_id}: smaller masks of this frame cover its mask; "
                "give each object pixels of its own"
            )
        if np.count_nonzero(left) != np.count_nonzero(mask):
            cut[prompt.object_id] = replace(prompt, mask=left)
        taken |= mask
    return tuple(cut.get(prompt.object_id, prompt) for prompt in prompts)


def prompt_inputs(
    object_ids: Sequence[int], prompts: Sequence[Prompt], source: tuple[int, int], network: tuple[int, int]
) -> PromptInputs:
    """Rasterise prompts at stride 4.

    Args:
        object_ids: the K objects to decode, in the order of the graph's objects axis.
        prompts: this frame's prompts, at most one for an object.
        source: (H, W) of the source frame, whose pixels the prompts speak of.
        network: (H, W) of the network's input.
    """
    rows, columns = network[0] // STRIDE, network[1] // STRIDE
    factor = np.array([columns / source[1], rows / source[0]], np.float32)
    rasters = np.zeros((len(object_ids), 3, rows, columns), np.float32)
    masks = np.zeros((len(object_ids), rows, columns), np.float32)
    given = np.zeros(len(object_ids), np.float32)
    prompted = np.zeros(len(object_ids), np.float32)
    for prompt in prompts:
        k = list(object_ids).index(prompt.object_id)
        prompted[k] = 1.0
        if prompt.mask is not None:
            given[k] = 1.0
            masks[k] = cv2.resize(prompt.mask.astype(np.float32), (columns, rows), interpolation=cv2.INTER_AREA)
        if prompt.box is not None:
            x0, y0, x1, y1 = np.round(prompt.box * np.tile(factor, 2)).astype(int)
            x0, y0 = min(max(x0, 0), columns - 1), min(max(y0, 0), rows - 1)
            rasters[k, 0, y0 : max(y1, y0 + 1), x0 : max(x1, x0 + 1)] = 1.0
        if prompt.points is not None and prompt.point_labels is not None:
            for (x, y), label in zip(prompt.points * factor, prompt.point_labels, strict=True):
                channel = 1 if label else 2
                rasters[k, channel] = np.maximum(rasters[k, channel], spot(rows, columns, x - 0.5, y - 0.5))
    return PromptInputs(rasters, masks, given, prompted)


def spot(rows: int, columns: int, x: float, y: float) -> NDArray[np.float32]:
    """Draw a Gaussian spot (rows, columns) around a point in stride-4 pixels, 1 at its centre."""
    dy = np.arange(rows, dtype=np.float32)[:, None] - np.float32(y)
    dx = np.arange(columns, dtype=np.float32)[None] - np.float32(x)
    return np.asarray(np.exp(-(dx * dx + dy * dy) / (2.0 * POINT_SIGMA**2)), dtype=np.float32)
