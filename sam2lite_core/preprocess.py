"""From a source frame and the caller's prompts to what the graphs take."""

import math
from collections.abc import Sequence
from dataclasses import replace

import cv2
import numpy as np
from numpy.typing import NDArray

from sam2lite_core.backends.base import PromptInputs
from sam2lite_core.errors import InvalidPromptError
from sam2lite_core.motion import Motion
from sam2lite_core.types import Prompt
from sam2lite_core.variants import PATCH

ROUNDING = 1e-6  # 0.6 * 480 is 288, not a hair more and so a patch more

STRIDE = 4
"""Stride of the graphs' masks and prompt rasters in network pixels."""

POINT_SIGMA = 2.0
"""Radius of a click's spot in stride-4 pixels; the student was trained with the same."""


def network_size(height: int, width: int, scale: float, base_short_side: int) -> tuple[int, int]:
    """Size of the network's input for a source frame, design section 4 (resolution).

    A scale of 1 means a short side of `base_short_side` px; both sides are rounded up to multiples of 16 (480x854
    becomes 480x864) and are two patches at least; nothing is upsampled beyond that.

    Returns:
        (height, width) in px.
    """
    factor = min(1.0, base_short_side * scale / min(height, width))
    sides = (max(2 * PATCH, math.ceil(side * factor / PATCH - ROUNDING) * PATCH) for side in (height, width))
    rows, columns = sides
    return rows, columns


def token_grid(height: int, width: int, network: tuple[int, int], base_short_side: int) -> tuple[int, int]:
    """Rows and columns of a frame's memory tokens.

    A token covers 2x2 patches at scale 1, and the same share of the frame on every rung, so that what memory costs and
    sees does not change with the resolution; it never covers less than a patch.

    Args:
        height, width: source size, px.
        network: (H, W) of the network's input.
        base_short_side: short side at scale 1, px.
    """
    full = network_size(height, width, 1.0, base_short_side)
    rows, columns = (
        max(2, min(side // PATCH, math.ceil(whole / (2 * PATCH))))
        for side, whole in zip(network, full, strict=True)
    )
    return rows, columns


def averaging_matrix(fine: int, coarse: int) -> NDArray[np.float32]:
    """Weights that average `fine` cells in a row into `coarse` ones of equal width; (coarse, fine), rows sum to 1."""
    edges = np.arange(coarse + 1) * (fine / coarse)
    cells = np.arange(fine)
    overlap = np.minimum(edges[1:, None], cells + 1) - np.maximum(edges[:-1, None], cells)
    weights = np.clip(overlap, 0.0, None)
    return np.asarray(weights / weights.sum(axis=1, keepdims=True), dtype=np.float32)


def token_pool(
    height: int, width: int, network: tuple[int, int], base_short_side: int
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Weights (r, H/16) and (c, W/16) that average a frame's patches into its `token_grid`; arguments as there."""
    rows, columns = token_grid(height, width, network, base_short_side)
    return averaging_matrix(network[0] // PATCH, rows), averaging_matrix(network[1] // PATCH, columns)


def motion_map(motion: Motion | None, rows: int, columns: int, elapsed: int = 1) -> NDArray[np.float32]:
    """Relative flow magnitude (rows, columns) in patch widths per frame; zeros where no motion was measured.

    Args:
        motion: since the last step.
        rows, columns: of the map.
        elapsed: frames since the last step; frames that were skipped are no faster motion.
    """
    if motion is None:
        return np.zeros((rows, columns), np.float32)
    return motion.magnitude(rows, columns) / np.float32(max(elapsed, 1))


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


def resize(image: NDArray[np.uint8], height: int, width: int) -> NDArray[np.uint8]:
    """Resize an (H, W, 3) image; area averaging when shrinking, as aliasing would look like motion."""
    if image.shape[:2] == (height, width):
        return image
    shrinking = height * width < image.shape[0] * image.shape[1]
    method = cv2.INTER_AREA if shrinking else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(image, (width, height), interpolation=method), dtype=np.uint8)


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
            masks[k] = cv2.resize(
                prompt.mask.astype(np.float32), (columns, rows), interpolation=cv2.INTER_AREA
            )
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
    """A Gaussian spot (rows, columns) around a point in stride-4 pixels, 1 at its centre."""
    dy = np.arange(rows, dtype=np.float32)[:, None] - np.float32(y)
    dx = np.arange(columns, dtype=np.float32)[None] - np.float32(x)
    return np.asarray(np.exp(-(dx * dx + dy * dy) / (2.0 * POINT_SIGMA**2)), dtype=np.float32)
