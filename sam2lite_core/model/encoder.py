"""Frame encoder: convolutions and a short vision transformer at stride 16 (paper section 3.1)."""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sam2lite_core.model.layers import Gelu, Linear, attend, conv_bn, pool2
from sam2lite_core.model.trunk import Trunk
from sam2lite_core.variants import Variant

# ImageNet's channel statistics on 0..255; any fixed affine map would do, this one is what the field expects.
MEAN = (123.675, 116.28, 103.53)
STD = (58.395, 57.12, 57.375)


class Features(NamedTuple):
    """Encoder output for a batch of N frames: maps at strides 4, 8 and 16, each (N, C, H / s, W / s) float."""

    stride4: Tensor
    stride8: Tensor
    stride16: Tensor


class PooledAttention(nn.Module):
    """Self-attention whose keys and values are 2x2-pooled: a third of the encoder's time less at full resolution."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query = Linear(width, width)
        self.key_value = Linear(width, 2 * width)
        self.out = Linear(width, width)

    def forward(self, tokens: Tensor, height: int, width: int) -> Tensor:
        """Attend within a frame. tokens: (N, h*w, C); height, width: h and w. Returns the same shape."""
        batch, count, channels = tokens.shape
        grid = tokens.transpose(1, 2).reshape(batch, channels, height, width)
        pooled = pool2(grid).flatten(2).transpose(1, 2)
        query = self.query(tokens).reshape(batch, count, self.heads, -1).transpose(1, 2)
        key, value = self.key_value(pooled).chunk(2, dim=-1)
        key = key.reshape(batch, -1, self.heads, channels // self.heads).transpose(1, 2)
        value = value.reshape(batch, -1, self.heads, channels // self.heads).transpose(1, 2)
        mixed = attend(query, key, value)
        return self.out(mixed.transpose(1, 2).reshape(batch, count, channels))


class Block(nn.Module):
    """Pre-norm transformer block; a depthwise 3x3 convolution carries position, so that any resolution works."""

    def __init__(self, width: int, heads: int, mlp_ratio: float) -> None:
        super().__init__()
        hidden = int(width * mlp_ratio)
        self.position = nn.Conv2d(width, width, 3, 1, 1, groups=width)
        self.norm1 = nn.LayerNorm(width)
        self.attention = PooledAttention(width, heads)
        self.norm2 = nn.LayerNorm(width)
        self.mlp = nn.Sequential(Linear(width, hidden), Gelu(), Linear(hidden, width))

    def forward(self, grid: Tensor) -> Tensor:
        """Map (N, C, h, w) to the same shape."""
        height, width = grid.shape[-2], grid.shape[-1]
        tokens = (grid + self.position(grid)).flatten(2).transpose(1, 2)
        tokens = tokens + self.attention(self.norm1(tokens), height, width)
        tokens = tokens + self.mlp(self.norm2(tokens))
        return tokens.transpose(1, 2).reshape(grid.shape)


def _attended(grid: Tensor, blocks: nn.ModuleList, norm: nn.Module) -> Tensor:
    """Transformer blocks and a last norm over a map (N, C, h, w); the same shape."""
    for block in blocks:
        grid = block(grid)
    normed: Tensor = norm(grid.flatten(2).transpose(1, 2)).transpose(1, 2).reshape(grid.shape)
    return normed


class StemEncoder(nn.Module):
    """Image to features at strides 4, 8 and 16: a plain convolutional stem, then all blocks.

    The stem's strides 4 and 8 go to the mask head: 16x16 patches alone cannot resolve objects under 32 px, the
    paper's first limitation (section 5.2).
    """

    mean: Tensor
    std: Tensor

    def __init__(self, variant: Variant) -> None:
        super().__init__()
        c2, c4, c8 = variant.stem
        self.stem2 = conv_bn(3, c2, 2)
        self.stem4 = conv_bn(c2, c4, 2)
        self.stem8 = conv_bn(c4, c8, 2)
        self.stem16 = conv_bn(c8, variant.width, 2)
        self.blocks = nn.ModuleList(
            Block(variant.width, variant.heads, variant.mlp_ratio) for _ in range(variant.depth)
        )
        self.norm = nn.LayerNorm(variant.width)
        self.register_buffer("mean", torch.tensor(MEAN).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(STD).view(1, 3, 1, 1), persistent=False)

    def forward(self, image: Tensor) -> Features:
        """Encode frames. image: (N, 3, H, W) float, 0..255 RGB, sides multiples of 16."""
        stride2 = self.stem2((image - self.mean) / self.std)
        stride4 = self.stem4(stride2)
        stride8 = self.stem8(stride4)
        grid = self.stem16(stride8)
        return Features(stride4, stride8, _attended(grid, self.blocks, self.norm))


class TrunkEncoder(nn.Module):
    """Image to features at strides 4, 8 and 16: a deep convolutional trunk, its stride 32 beside its stride 16, blocks.

    Strides 4 and 8 go to the mask head, as from `StemEncoder`.
    """

    MIDDLE, HALF_RANGE = 127.0, 128.0  # what the published weights of the trunk were trained to see

    def __init__(self, variant: Variant) -> None:
        super().__init__()
        assert variant.trunk is not None
        self.trunk = Trunk(variant.trunk)
        *_, near, far = self.trunk.widths
        self.side16 = nn.Conv2d(near, variant.width, 1)
        self.side32 = nn.Conv2d(far, variant.width, 1, bias=False)
        self.blocks = nn.ModuleList(
            Block(variant.width, variant.heads, variant.mlp_ratio) for _ in range(variant.depth)
        )
        self.norm = nn.LayerNorm(variant.width)

    def forward(self, image: Tensor) -> Features:
        """Encode frames. image: (N, 3, H, W) float, 0..255 RGB, sides multiples of 16."""
        stride4, stride8, near, far = self.trunk((image - self.MIDDLE) / self.HALF_RANGE)
        height, width = near.shape[-2], near.shape[-1]
        wide = F.interpolate(self.side32(far), scale_factor=2.0, mode="bilinear", align_corners=False)
        grid = self.side16(near) + wide[..., :height, :width]
        return Features(stride4, stride8, _attended(grid, self.blocks, self.norm))


def build_encoder(variant: Variant) -> StemEncoder | TrunkEncoder:
    """The encoder of a variant, untrained."""
    return TrunkEncoder(variant) if variant.trunk else StemEncoder(variant)
