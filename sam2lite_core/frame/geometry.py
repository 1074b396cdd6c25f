"""Map a source frame onto the network's input."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sam2lite_core.frame import prompt_rasters, resolution
from sam2lite_core.frame.motion import Motion, motion_map
from sam2lite_core.frame.prompt_rasters import STRIDE
from sam2lite_core.graph_io import PromptInputs
from sam2lite_core.types import Prompt
from sam2lite_core.variants import PATCH

FloatArray = NDArray[np.float32]


@dataclass(frozen=True)
class Geometry:
    """Which pixels of the source the network sees, and at which size: today the whole frame.

    Everything that a step derives from it is made here: the picture, the motion of its patches, the masks carried from
    the previous frame, the rasters of its prompts and the grid of its memory tokens.

    Attributes:
        source: (height, width) of the source frame, px.
        network: (H, W) of the network's input, px; multiples of 16.
        short_side: short side of the network's input at scale 1, px.
    """

    source: tuple[int, int]
    network: tuple[int, int]
    short_side: int

    @classmethod
    def at_scale(cls, source: tuple[int, int], scale: float, short_side: int) -> "Geometry":
        """Return the geometry of the whole frame at a resolution scale."""
        return cls(source, resolution.network_size(*source, scale, short_side), short_side)

    def picture(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Resize the source image to (H, W, 3) uint8."""
        return resolution.resize(image, *self.network)

    def motion_map(self, motion: Motion | None, elapsed: int) -> FloatArray:
        """Return the (H/16, W/16) motion of patches; see `frame.motion.motion_map`."""
        return motion_map(motion, self.network[0] // PATCH, self.network[1] // PATCH, elapsed)

    def carry(self, masks: Mapping[int, FloatArray], ids: Sequence[int], motion: Motion | None) -> FloatArray:
        """Carry previous masks along the flow.

        Args:
            masks: (h, w) probability at any size, by object id; an object without one is unknown.
            ids: of the K objects.
            motion: since the masks' frame; None when it is not known.

        Returns:
            (K, H/4, W/4) float32, -1..1; 0 where nothing is known.
        """
        rows, columns = self.network[0] // STRIDE, self.network[1] // STRIDE
        carried = np.zeros((len(ids), rows, columns), np.float32)
        known = [index for index, object_id in enumerate(ids) if object_id in masks]
        if motion is not None and known:
            # All at once: where pixels came from is the same for every object, and costs more than fetching them.
            moved = motion.warp([masks[ids[index]] for index in known], rows, columns)
            carried[known] = moved * 2.0 - 1.0
        return carried

    def prompt_inputs(self, ids: Sequence[int], prompts: Sequence[Prompt]) -> PromptInputs:
        """Rasterise prompts, which speak of source pixels."""
        return prompt_rasters.prompt_inputs(ids, prompts, self.source, self.network)

    def token_pool(self) -> tuple[FloatArray, FloatArray]:
        """Return the weights that average patches into memory tokens; see `frame.resolution.token_pool`."""
        return resolution.token_pool(*self.source, self.network, self.short_side)
