"""Compute network size and token grid of a frame at a resolution rung."""

import math

import cv2
import numpy as np
from numpy.typing import NDArray

from sam2lite_core.variants import PATCH

RUNGS = (0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
"""Resolution scales that the controller may choose (methodology section 3.3)."""

BASE_SHORT_SIDE = 480
"""Short side of the network's input at scale 1, px, unless a caller chooses another."""

REFERENCE_SOURCE = (480, 854)
"""Height and width in px of the source that costs are stated for: the size of DAVIS and of the paper."""

PATCH_TOLERANCE = 1e-6
"""Rounding error allowed in a side, in patches: 0.6 * 480 is 288, not a hair more and so a patch more."""


def network_size(height: int, width: int, scale: float, base_short_side: int) -> tuple[int, int]:
    """Compute the size of the network's input for a source frame, design section 4 (resolution).

    A scale of 1 means a short side of `base_short_side` px; both sides are rounded up to multiples of 16 (480x854
    becomes 480x864) and are two patches at least; nothing is upsampled beyond that.

    Returns:
        (height, width) in px.
    """
    factor = min(1.0, base_short_side * scale / min(height, width))
    sides = (max(2 * PATCH, math.ceil(side * factor / PATCH - PATCH_TOLERANCE) * PATCH) for side in (height, width))
    rows, columns = sides
    return rows, columns


def token_grid(height: int, width: int, network: tuple[int, int], base_short_side: int) -> tuple[int, int]:
    """Compute rows and columns of a frame's memory tokens.

    A token covers 2x2 patches at scale 1, and the same share of the frame on every rung, so that what memory costs and
    sees does not change with the resolution; it never covers less than a patch.

    Args:
        height, width: source size, px.
        network: (H, W) of the network's input.
        base_short_side: short side at scale 1, px.
    """
    full = network_size(height, width, 1.0, base_short_side)
    rows, columns = (
        max(2, min(side // PATCH, math.ceil(whole / (2 * PATCH)))) for side, whole in zip(network, full, strict=True)
    )
    return rows, columns


def averaging_matrix(fine: int, coarse: int) -> NDArray[np.float32]:
    """Return weights (coarse, fine) that average cells in a row into coarse ones of equal width; rows sum to 1."""
    edges = np.arange(coarse + 1) * (fine / coarse)
    cells = np.arange(fine)
    overlap = np.minimum(edges[1:, None], cells + 1) - np.maximum(edges[:-1, None], cells)
    weights = np.clip(overlap, 0.0, None)
    return np.asarray(weights / weights.sum(axis=1, keepdims=True), dtype=np.float32)


def token_pool(
    height: int, width: int, network: tuple[int, int], base_short_side: int
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return weights (r, H/16) and (c, W/16) that average a frame's patches into its `token_grid`."""
    rows, columns = token_grid(height, width, network, base_short_side)
    return averaging_matrix(network[0] // PATCH, rows), averaging_matrix(network[1] // PATCH, columns)


def resize(image: NDArray[np.uint8], height: int, width: int) -> NDArray[np.uint8]:
    """Resize an (H, W, 3) image; area averaging when shrinking, as aliasing would look like motion."""
    if image.shape[:2] == (height, width):
        return image
    shrinking = height * width < image.shape[0] * image.shape[1]
    method = cv2.INTER_AREA if shrinking else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(image, (width, height), interpolation=method), dtype=np.uint8)
