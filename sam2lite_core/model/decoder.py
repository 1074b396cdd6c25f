"""Compact cross-attention decoder and mask head (paper section 3.1, design section 4)."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sam2lite_core.model.encoder import Features
from sam2lite_core.model.layers import Linear, attend, pool2
from sam2lite_core.variants import Variant

MAPS = 7
"""Per-object maps at stride 16: memory share and its evidence, the rivals' share, warped previous mask (its own and the
rivals'), memory agreement of the query, and the query's own response."""


class QueryLayer(nn.Module):
    """Self-attention among queries, cross-attention to the pixels, feed-forward; pre-norm, no dropout."""

    def __init__(self, width: int, heads: int, hidden: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2, self.norm3 = nn.LayerNorm(width), nn.LayerNorm(width), nn.LayerNorm(width)
        self.self_in = Linear(width, 3 * width)
        self.self_out = Linear(width, width)
        self.cross_query = Linear(width, width)
        self.cross_key_value = Linear(width, 2 * width)
        self.cross_out = Linear(width, width)
        self.mlp = nn.Sequential(Linear(width, hidden), nn.ReLU(), Linear(hidden, width))

    def _split(self, tokens: Tensor) -> Tensor:
        batch, count, width = tokens.shape
        return tokens.reshape(batch, count, self.heads, width // self.heads).transpose(1, 2)

    def _attend(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        mixed = attend(self._split(query), self._split(key), self._split(value))
        return mixed.transpose(1, 2).flatten(2)

    def forward(self, queries: Tensor, pixels: Tensor) -> Tensor:
        """Refine queries (N, Q, C) by pixels (N, P, C)."""
        query, key, value = self.self_in(self.norm1(queries)).chunk(3, dim=-1)
        queries = queries + self.self_out(self._attend(query, key, value))
        key, value = self.cross_key_value(pixels).chunk(2, dim=-1)
        queries = queries + self.cross_out(self._attend(self.cross_query(self.norm2(queries)), key, value))
        return queries + self.mlp(self.norm3(queries))


class QueryDecoder(nn.Module):
    """Object and background queries over the pixels of one frame.

    An object's query is one shared learned vector plus the masked pooling of its readout, so that objects are
    interchangeable; the other queries are learned background.
    """

    def __init__(self, variant: Variant) -> None:
        super().__init__()
        width = variant.decoder_width
        self.object_query = nn.Parameter(torch.randn(width) * 0.02)
        self.background = nn.Parameter(torch.randn(variant.queries - variant.object_queries, width) * 0.5)
        self.pool = Linear(width, width)
        self.layers = nn.ModuleList(
            QueryLayer(width, variant.decoder_heads, variant.decoder_ffn) for _ in range(variant.decoder_layers)
        )
        self.norm = nn.LayerNorm(width)

    def forward(self, pixels: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
        """Decode queries.

        Args:
            pixels: (N, C, h, w) fused pixel and readout features.
            weight: (N, K, h, w) where each of K objects is believed to be, 0..1.

        Returns:
            Object queries (N, K, C) and background queries (N, 84, C).
        """
        flat = weight.flatten(2)
        pooled = flat @ pixels.flatten(2).transpose(1, 2) / (flat.sum(dim=-1, keepdim=True) + 0.1)
        objects = self.object_query + self.pool(pooled)
        background = self.background.unsqueeze(0).expand(pixels.shape[0], -1, -1)
        queries = torch.cat([objects, background], dim=1)
        coarse = pool2(pixels).flatten(2).transpose(1, 2)
        for layer in self.layers:
            queries = layer(queries, coarse)
        queries = self.norm(queries)
        count = weight.shape[1]
        return queries[:, :count], queries[:, count:]


class MaskHead(nn.Module):
    """Per-object maps and shared detail to mask logits at stride 4.

    Everything that depends on the pixels alone is computed once and modulated by each object's query, so that ten
    objects cost little more than one.
    """

    def __init__(self, variant: Variant, wide: int = 64, middle: int = 32, narrow: int = 16) -> None:
        super().__init__()
        width = variant.decoder_width
        _, c4, c8 = variant.stem
        self.shared16 = nn.Conv2d(width, wide, 1)
        self.maps16 = nn.Conv2d(MAPS, wide, 1)
        self.modulate = Linear(width, 2 * wide + middle + narrow)
        self.conv16 = nn.Conv2d(wide, wide, 3, 1, 1)
        self.down8 = nn.Conv2d(wide, middle, 1)
        self.shared8 = nn.Conv2d(c8, middle, 1)
        self.conv8 = nn.Conv2d(middle, middle, 3, 1, 1)
        self.down4 = nn.Conv2d(middle, narrow, 1)
        self.shared4 = nn.Conv2d(c4, narrow, 1)
        self.warp4 = nn.Conv2d(1, narrow, 3, 1, 1, bias=False)
        self.conv4 = nn.Conv2d(narrow, narrow, 3, 1, 1)
        self.out = nn.Conv2d(narrow, 1, 3, 1, 1)
        # The answer starts from what memory and flow say; without it the head leans on the flow alone for an hour.
        self.prior = nn.Parameter(torch.tensor([1.5, 1.0]))
        self.sizes = (wide, wide, middle, narrow)

    def forward(self, pixels: Tensor, features: Features, queries: Tensor, maps: Tensor, warped: Tensor) -> Tensor:
        """Compute mask logits (N, K, H/4, W/4).

        Args:
            pixels: (N, C, h, w) fused features at stride 16.
            features: encoder maps.
            queries: (N, K, C) object queries.
            maps: (N, K, MAPS, h, w).
            warped: (N, K, H/4, W/4) previous mask, -1..1, 0 = unknown.
        """
        batch, count = queries.shape[:2]
        flat = batch * count

        def per_object(shared: Tensor) -> Tensor:
            """(N, C, h, w) to (N, K, C, h, w) by broadcasting."""
            return shared.unsqueeze(1)

        gain16, bias16, gain8, gain4 = self.modulate(queries).unsqueeze(-1).unsqueeze(-1).split(self.sizes, dim=2)
        height, width = pixels.shape[-2], pixels.shape[-1]
        hidden = per_object(self.shared16(pixels)) * (1.0 + gain16) + bias16
        hidden = hidden + self.maps16(maps.reshape(flat, MAPS, height, width)).reshape(hidden.shape)
        grid = F.relu(hidden.reshape(flat, -1, height, width))
        grid = F.relu(self.conv16(grid) + grid)

        grid = F.interpolate(self.down8(grid), scale_factor=2.0, mode="bilinear", align_corners=False)
        detail = per_object(self.shared8(features.stride8)) * (1.0 + gain8)
        grid = F.relu(grid + detail.reshape(grid.shape))
        grid = F.relu(self.conv8(grid) + grid)

        grid = F.interpolate(self.down4(grid), scale_factor=2.0, mode="bilinear", align_corners=False)
        # Before the shared detail: the sum is then part of the convolution, in its own layout.
        grid = grid + self.warp4(warped.reshape(flat, 1, 4 * height, 4 * width))
        detail = per_object(self.shared4(features.stride4)) * (1.0 + gain4)
        grid = F.relu(grid + detail.reshape(grid.shape))
        grid = F.relu(self.conv4(grid) + grid)
        opinion = (2.0 * maps[:, :, 0] - maps[:, :, 1]).reshape(flat, 1, height, width)
        opinion = F.interpolate(opinion, scale_factor=4.0, mode="bilinear", align_corners=False)
        logits = self.out(grid).float() + self.prior[0] * opinion + self.prior[1] * warped.reshape(opinion.shape)
        return logits.reshape(batch, count, 4 * height, 4 * width)
