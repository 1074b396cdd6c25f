"""From boxes and clicks to masks: the part of the student that only frames with such prompts run.

The paper leaves prompts to SAM 2's own encoder. Ours works on what the frame's encoder has seen anyway: where the
picture looks like the clicked places or like the inside of the box, and two small transformer blocks that make a shape
of it.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sam2lite_core.model.encoder import Block, Features
from sam2lite_core.model.layers import Linear
from sam2lite_core.variants import Variant

PROMPT_CHANNELS = 3
"""Prompt rasters at stride 4: box, positive points, negative points. A mask needs no decoding: it is the answer."""

MAPS = PROMPT_CHANNELS + 5
"""Per-object maps at stride 16: the rasters; similarity to positive points, negative points, the box's inside and its
outside; the mask so far."""

HEADS, RATIO = 4, 2.0


class PromptDecoder(nn.Module):
    """Boxes and points to mask logits at stride 4. Objects do not see each other; soft aggregation settles rivalry."""

    def __init__(self, variant: Variant, width: int = 72, middle: int = 32, narrow: int = 16) -> None:
        super().__init__()
        _, c4, c8 = variant.stem
        self.shared16 = Linear(variant.width, width)
        self.maps16 = nn.Conv2d(MAPS, width, 3, 1, 1)
        self.blocks = nn.ModuleList(Block(width, HEADS, RATIO) for _ in range(2))
        self.down8 = nn.Conv2d(width, middle, 1)
        self.shared8 = nn.Conv2d(c8, middle, 1)
        self.conv8 = nn.Conv2d(middle, middle, 3, 1, 1)
        self.down4 = nn.Conv2d(middle, narrow, 1)
        self.shared4 = nn.Conv2d(c4, narrow, 1)
        self.prompt4 = nn.Conv2d(PROMPT_CHANNELS, narrow, 3, 1, 1, bias=False)
        self.conv4 = nn.Conv2d(narrow, narrow, 3, 1, 1)
        self.out = nn.Conv2d(narrow, 1, 3, 1, 1)

    def forward(self, features: Features, key: Tensor, prompts: Tensor, warped: Tensor) -> Tensor:
        """Mask logits of every object from its own prompt.

        Args:
            features: encoder maps.
            key: (N, 256, h, w) unit keys of the frame.
            prompts: (N, K, 3, H/4, W/4) rasters; an object without any gets logits that mean nothing.
            warped: (N, K, H/4, W/4) the mask so far, -1..1, 0 = unknown.

        Returns:
            (N, K, H/4, W/4) logits.
        """
        batch, count = prompts.shape[:2]
        height, width = key.shape[-2:]
        flat = batch * count
        rasters = prompts.reshape(flat, PROMPT_CHANNELS, 4 * height, 4 * width)
        before = F.avg_pool2d(warped, 4).reshape(flat, 1, height, width)
        coarse = F.max_pool2d(rasters, 4)
        maps = torch.cat([coarse, self._similarity(key, prompts), before], dim=1)
        shared = self.shared16(features.stride16.flatten(2).transpose(1, 2)).transpose(1, 2)
        shared = shared.reshape(batch, 1, -1, height, width)
        grid = shared + self.maps16(maps).reshape(batch, count, -1, height, width)
        grid = grid.reshape(flat, -1, height, width)
        for block in self.blocks:
            grid = block(grid)

        grid = F.interpolate(self.down8(grid), scale_factor=2.0, mode="bilinear", align_corners=False)
        grid = F.relu(self._beside(grid, self.shared8(features.stride8), batch, count))
        grid = F.relu(self.conv8(grid) + grid)

        grid = F.interpolate(self.down4(grid), scale_factor=2.0, mode="bilinear", align_corners=False)
        grid = self._beside(grid, self.shared4(features.stride4), batch, count) + self.prompt4(rasters)
        grid = F.relu(grid)
        grid = F.relu(self.conv4(grid) + grid)
        logits: Tensor = self.out(grid).float()
        return logits.reshape(batch, count, 4 * height, 4 * width)

    @staticmethod
    def _beside(grid: Tensor, shared: Tensor, batch: int, count: int) -> Tensor:
        """Add (N, C, h, w) detail that all objects share to every object's (N * K, C, h, w)."""
        whole = grid.reshape(batch, count, *grid.shape[1:]) + shared.unsqueeze(1)
        return whole.reshape(grid.shape)

    @staticmethod
    def _similarity(key: Tensor, prompts: Tensor) -> Tensor:
        """Cosine of every patch's key with the mean key of what a raster covers, 0 where it covers nothing.

        Returns:
            (N * K, 4, h, w): positive points, negative points, the box's inside, its outside.
        """
        batch, count = prompts.shape[:2]
        height, width = key.shape[-2:]
        mean = F.avg_pool2d(prompts.reshape(batch * count, PROMPT_CHANNELS, 4 * height, 4 * width), 4)
        box, positive, negative = mean.reshape(batch, count, PROMPT_CHANNELS, -1).unbind(dim=2)
        boxed = (box.amax(dim=-1, keepdim=True) > 0.0).to(box.dtype)
        weight = torch.stack([positive, negative, box, (1.0 - box) * boxed], dim=2).flatten(1, 2)
        flat = key.flatten(2).to(weight.dtype)
        # Not divided by a norm with a little added to it: the exporter takes a little for nothing, and 0 / 0 is left.
        centre = F.normalize(weight @ flat.transpose(1, 2), dim=-1, eps=1e-4)
        return (centre @ flat).reshape(batch * count, 4, height, width)
