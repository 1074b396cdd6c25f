"""Measure optical flow between successive frames: it carries masks along and says how fast patches move.

OpenCV's DIS flow on grey images with a short side of 120 px costs about 1.5 ms; it does not depend on the resolution
scale, so that a rung change between two frames is no special case.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from sam2lite_core.variants import PATCH

MOTION_SHORT_SIDE = 120
"""Short side of the grey images in px: a quarter of the base resolution (design section 4)."""


@dataclass(frozen=True)
class Motion:
    """Backward flow of one frame: current(x) looks like previous(x + flow(x)).

    Attributes:
        flow: (h, w, 2) float32, (dx, dy) in units of the frame's width and height.
    """

    flow: NDArray[np.float32]

    def magnitude(self, rows: int, columns: int) -> NDArray[np.float32]:
        """Return (rows, columns) flow magnitude in patch widths, relative to the frame's median (the camera)."""
        grid: NDArray[np.float32] = np.asarray(
            cv2.resize(self.flow, (columns, rows), interpolation=cv2.INTER_AREA), dtype=np.float32
        )
        grid = grid * np.array([columns, rows], np.float32)
        grid -= np.median(grid.reshape(-1, 2), axis=0)
        return np.asarray(np.hypot(grid[..., 0], grid[..., 1]), dtype=np.float32)

    def sample_grid(self, height: int, width: int) -> NDArray[np.float32]:
        """Locate each pixel in the previous frame's map, (height, width, 2) float32 (x, y) for `cv2.remap`."""
        flow: NDArray[np.float32] = np.asarray(
            cv2.resize(self.flow, (width, height), interpolation=cv2.INTER_LINEAR), dtype=np.float32
        )
        grid = flow.reshape(height, 2 * width) * _pairs(width, height, width)
        grid = grid.reshape(height, width, 2)
        grid[..., 0] += np.arange(width, dtype=np.float32)
        grid[..., 1] += np.arange(height, dtype=np.float32)[:, None]
        return grid

    def warp(self, maps: Sequence[NDArray[np.float32]], height: int, width: int) -> NDArray[np.float32]:
        """Carry the previous frame's K maps (h, w) to this frame at height x width, bilinear, edges repeated."""
        grid = self.sample_grid(height, width)
        out = np.empty((len(maps), height, width), np.float32)
        for index, channel in enumerate(maps):
            fits = channel.shape == (height, width)
            source = channel if fits else cv2.resize(channel, (width, height), interpolation=cv2.INTER_LINEAR)
            # OpenCV's stubs do not know that the second map may be None.
            cv2.remap(source, grid, None, cv2.INTER_LINEAR, dst=out[index], borderMode=cv2.BORDER_REPLICATE)  # type: ignore[call-overload]  # None is legal
        return out


def motion_map(motion: Motion | None, rows: int, columns: int, elapsed: int = 1) -> NDArray[np.float32]:
    """Return relative flow magnitude (rows, columns) in patch widths per frame elapsed; zeros where it is unknown."""
    if motion is None:
        return np.zeros((rows, columns), np.float32)
    return motion.magnitude(rows, columns) / np.float32(max(elapsed, 1))


def grey(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Make a small grey picture of an (H, W, 3) RGB image for the flow: short side 120 px, never upsampled."""
    height, width = image.shape[:2]
    factor = min(1.0, MOTION_SHORT_SIDE / min(height, width))
    size = (max(PATCH, round(width * factor)), max(PATCH, round(height * factor)))
    # Grey first: averaging one channel takes a third of the time of three.
    return np.asarray(
        cv2.resize(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), size, interpolation=cv2.INTER_AREA), dtype=np.uint8
    )


class MotionEstimator:
    """Measure the flow from each frame's predecessor, of which a grey picture is kept."""

    def __init__(self) -> None:
        # OpenCV's stubs leave this factory out.
        self._flow = cv2.DISOpticalFlow_create(  # type: ignore[attr-defined]  # not in the stubs
            cv2.DISOPTICAL_FLOW_PRESET_MEDIUM
        )
        # The preset's five iterations cost a third of the flow's time and gain nothing measurable: without them four
        # sequences of davis16_dev scored 69.3 J&F, with them 68.6.
        self._flow.setVariationalRefinementIterations(0)
        self._previous: NDArray[np.uint8] | None = None

    def reset(self) -> None:
        """Forget the previous frame."""
        self._previous = None

    def update(self, image: NDArray[np.uint8]) -> Motion | None:
        """Measure the motion since the previous frame, given (H, W, 3) uint8 RGB.

        Returns None on the first frame or after a change of aspect.
        """
        current = grey(image)
        previous, self._previous = self._previous, current
        if previous is None or previous.shape != current.shape:
            return None
        flow = self._flow.calc(current, previous, None)
        height, width = current.shape
        relative = flow.reshape(height, 2 * width) / _pairs(width, height, width)
        return Motion(relative.reshape(height, width, 2))


def _pairs(x: float, y: float, count: int) -> NDArray[np.float32]:
    """Return x, y, x, y, ... (2 count,): a flow's row in one go takes numpy a seventh of the time of its pixels."""
    return np.tile(np.array([x, y], np.float32), count)
