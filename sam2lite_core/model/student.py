"""The student: encode a frame, read the memory, decode masks, write new memory (design section 4)."""

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sam2lite_core.graph_io import META
from sam2lite_core.model import bank as memory
from sam2lite_core.model import retention
from sam2lite_core.model.aggregation import aggregate_probability, entropy, soft_aggregate
from sam2lite_core.model.bank import Bank
from sam2lite_core.model.decoder import MaskHead, QueryDecoder
from sam2lite_core.model.encoder import Features, build_encoder
from sam2lite_core.model.gate import Gate
from sam2lite_core.model.layers import Linear
from sam2lite_core.model.prompt_decoder import PromptDecoder
from sam2lite_core.variants import Variant

EPSILON = 1e-4


class Readout(NamedTuple):
    """One frame's reading of the memory.

    Attributes:
        attention: (N, P, S) alpha over tokens, rows sum to 1 (equation 2); P = h * w queries.
        feature: (N, P, 256) alpha V (equation 5).
        share: (N, K, h, w) memory's opinion of each object's share of a patch.
        evidence: (N, K, h, w) attention mass that carried an opinion at all.
        agreement: (N, 1, h, w) highest similarity of the query to a readable token.
    """

    attention: Tensor
    feature: Tensor
    share: Tensor
    evidence: Tensor
    agreement: Tensor


class DecodedMasks(NamedTuple):
    """Masks and presence of a frame's objects, as decoded.

    Attributes:
        logits: (N, K, H/4, W/4) after soft aggregation: object against background, 0 where they tie.
        probability: (N, K, H/4, W/4) aggregated, sums with the background to 1.
        raw: (N, K, H/4, W/4) independent logits before aggregation.
        presence: (N, K) logits.
    """

    logits: Tensor
    probability: Tensor
    raw: Tensor
    presence: Tensor


def to_token_grid(grid: Tensor, pool: tuple[Tensor, Tensor]) -> Tensor:
    """Average (N, C, h, w) into cells (N, C, r, c); pool holds (r, h) and (c, w) weights whose rows sum to 1."""
    rows, columns = pool
    return rows @ grid @ columns.transpose(-2, -1)


def token_density(pool: tuple[Tensor, Tensor]) -> Tensor:
    """Compute the tokens per patch, r * c / (h * w), a scalar; pool as in `to_token_grid`."""
    rows, columns = pool
    return rows.sum() * rows.mean() * columns.sum() * columns.mean()


class Student(nn.Module):
    """The whole model of one variant; `step.step` runs it on a frame."""

    def __init__(self, variant: Variant) -> None:
        super().__init__()
        self.variant = variant
        width, key_width = variant.decoder_width, variant.key_width
        self.encoder = build_encoder(variant)
        self.key = Linear(variant.width, key_width)
        self.value = Linear(variant.width + 2, key_width)
        self.log_scale = nn.Parameter(torch.tensor(math.log(14.0)))
        self.locality = nn.Parameter(torch.tensor([-2.0, 1.0]))  # softplus'd: all tokens, extra for young ones
        # An anchor's mask was shown, not guessed: how much more it counts than other tokens of one patch. Training
        # hardly moves it, so it starts where it was best (training/RESULTS.md, how much an anchor counts).
        self.anchor_bonus = nn.Parameter(torch.tensor(2.35))
        self.pixel = Linear(variant.width, width)
        self.readout = Linear(key_width, width)
        self.pixel_norm = nn.LayerNorm(width)
        self.decoder = QueryDecoder(variant)
        self.similarity = Linear(width, width)
        self.head = MaskHead(variant)
        self.prompt = PromptDecoder(variant)
        self.presence = nn.Sequential(Linear(width + 4, 64), nn.ReLU(), Linear(64, 1))
        self.gate = Gate(key_width)

    # ---- encoding and reading -------------------------------------------------------------------------------------

    def encode(self, image: Tensor) -> tuple[Features, Tensor]:
        """Encode frames. image: (N, 3, H, W) float 0..255. Returns features and unit keys (N, 256, h, w)."""
        features = self.encoder(image)
        tokens = features.stride16.flatten(2).transpose(1, 2)
        key = F.normalize(self.key(tokens), dim=-1)
        return features, key.transpose(1, 2).reshape(key.shape[0], -1, *features.stride16.shape[-2:])

    def positions(self, height: int, width: int, like: Tensor) -> tuple[Tensor, Tensor]:
        """Compute the centres (x, y) in [0, 1] of an h x w grid, each (h, w)."""
        x = (torch.arange(width, device=like.device, dtype=like.dtype) + 0.5) / width
        y = (torch.arange(height, device=like.device, dtype=like.dtype) + 0.5) / height
        return x.unsqueeze(0).expand(height, width), y.unsqueeze(1).expand(height, width)

    def attention_logits(self, key: Tensor, bank: Bank, window: Tensor, pool: tuple[Tensor, Tensor]) -> Tensor:
        """Compute the scaled similarity of every pixel to every token, (N, P, S); unreadable tokens are masked.

        A learned penalty on distance, which fades with age, separates look-alikes (ours; the paper has none). Anchors
        have a bonus, smaller where a token is the mean of several patches.

        Args:
            key: (N, 256, h, w) of the frame.
            bank: S tokens.
            window: (N,) W in frames.
            pool: weights that average patches into tokens, see `tokens`.
        """
        queries = key.flatten(2).transpose(1, 2).float()
        x, y = (side.reshape(1, -1, 1) for side in self.positions(key.shape[-2], key.shape[-1], queries))
        there_x, there_y = bank.column("x"), bank.column("y")
        always, young = F.softplus(self.locality)
        strength = always + 4.0 * young * torch.exp(-bank.column("age") / 4.0)
        allowed = memory.readable(bank, window)
        owned = bank.column("owner") > 0.5
        bonus = owned.to(queries.dtype) * (self.anchor_bonus * token_density(pool).sqrt())
        bonus = bonus + (~allowed).to(queries.dtype) * memory.REJECTED
        # Everything that depends on the token alone, and the squared distance written out, are columns of one product:
        # maps of pixels times tokens are the largest of the memory, and each operation on them costs as much as it.
        bonus = bonus - strength * (there_x * there_x + there_y * there_y)
        here = torch.cat([x, y, x * x + y * y, torch.ones_like(x)], dim=-1).expand(queries.shape[0], -1, -1)
        there = torch.stack([2.0 * strength * there_x, 2.0 * strength * there_y, -strength, bonus], dim=-1)
        scaled = bank.key * self.log_scale.exp()
        return torch.cat([queries, here], dim=-1) @ torch.cat([scaled, there], dim=-1).transpose(1, 2)

    def read(self, key: Tensor, bank: Bank, slots: Tensor, logits: Tensor) -> Readout:
        """Read the memory (equations 2 and 5), and each object's identity with the same attention.

        Args:
            key: (N, 256, h, w) of the frame.
            bank: S tokens.
            slots: (N, K, M) one-hot, object slot of each decoded object.
            logits: (N, P, S) from `attention_logits`.
        """
        batch, _, height, width = key.shape
        attention = torch.softmax(logits, dim=-1)
        # An empty bank leaves a uniform softmax over masked tokens; their zero keys, values and shares say nothing.
        known = bank.known @ slots.transpose(1, 2)
        identity = bank.identity @ slots.transpose(1, 2) * known
        # One product reads everything: the map of pixels times tokens is large, and passing over it is what costs.
        width_ = bank.value.shape[-1]
        read = attention @ torch.cat([bank.value, known, identity], dim=-1)
        evidence, mass = (
            read[..., start : start + known.shape[-1]].transpose(1, 2).reshape(batch, -1, height, width)
            for start in (width_, width_ + known.shape[-1])
        )
        agreement = logits.amax(dim=-1).reshape(batch, 1, height, width) / self.log_scale.exp()
        return Readout(attention, read[..., :width_], mass / (evidence + EPSILON), evidence, agreement.clamp(-1.0, 1.0))

    def projected(self, bank: Bank) -> Bank:
        """Project the bank's values for `decode(..., projected=True)`: S products instead of P, same result."""
        return bank._replace(value=self.readout(bank.value))

    def decode(
        self,
        features: Features,
        key: Tensor,
        readout: Readout,
        warped: Tensor,
        rasters: Tensor | None = None,
        *,
        projected: bool = False,
    ) -> DecodedMasks:
        """Decode masks and presence of K objects.

        Args:
            features, key: from `encode`.
            readout: of the memory.
            warped: (N, K, H/4, W/4) previous mask carried along the flow, -1..1, 0 = unknown.
            rasters: (N, K, 3, H/4, W/4) box, positive and negative points; zeros leave an object tracked.
            projected: the memory was read from a bank that `projected` made.
        """
        batch, count = readout.share.shape[:2]
        height, width = readout.share.shape[-2:]
        feature = readout.feature if projected else self.readout(readout.feature)
        tokens = self.pixel(features.stride16.flatten(2).transpose(1, 2)) + feature
        pixels = self.pixel_norm(tokens).transpose(1, 2).reshape(batch, -1, height, width)
        coarse = F.avg_pool2d(warped, 4)
        belief = (readout.share * readout.evidence + coarse.clamp(min=0.0)) * 0.5
        queries, background = self.decoder(pixels, belief)
        response = self._response(pixels, queries, background)
        share = readout.share * readout.evidence
        rivals = share.sum(dim=1, keepdim=True) - share
        rivals_warped = coarse.clamp(min=0.0).sum(dim=1, keepdim=True) - coarse.clamp(min=0.0)
        agreement = readout.agreement.expand(-1, count, -1, -1)
        maps = torch.stack([share, readout.evidence, rivals, coarse, rivals_warped, agreement, response], dim=2)
        raw = self.head(pixels, features, queries, maps, warped)
        if rasters is not None:
            answered = rasters.flatten(2).amax(dim=-1) > 0.0
            answer = self.prompt(features, key, rasters, warped)
            raw = torch.where(answered.unsqueeze(-1).unsqueeze(-1), answer, raw)
        relative = soft_aggregate(raw.float())
        probability = aggregate_probability(relative)
        present = self._presence(queries, probability, share)
        return DecodedMasks(relative, probability, raw, present)

    def _response(self, pixels: Tensor, queries: Tensor, background: Tensor) -> Tensor:
        """Measure each object's claim on a patch against the background queries, (N, K, h, w), -1..1."""
        batch, channels, height, width = pixels.shape
        flat = pixels.flatten(2)
        scale = channels**-0.5
        claim = self.similarity(queries) @ flat * scale
        rest = torch.logsumexp(self.similarity(background) @ flat * scale, dim=1, keepdim=True)
        return torch.tanh((claim - rest) * 0.25).reshape(batch, -1, height, width)

    def _presence(self, queries: Tensor, probability: Tensor, share: Tensor) -> Tensor:
        """Compute presence logits (N, K) from the query and from what mask and memory claim."""
        peak = probability.flatten(2).amax(dim=-1)
        area = probability.flatten(2).mean(dim=-1)
        claims = torch.stack([peak, area.sqrt(), share.flatten(2).amax(dim=-1), share.flatten(2).mean(-1)], dim=-1)
        return self.presence(torch.cat([queries.float(), claims.float()], dim=-1)).squeeze(-1)

    # ---- writing --------------------------------------------------------------------------------------------------

    def tokens(
        self,
        features: Features,
        key: Tensor,
        probability: Tensor,
        trusted: Tensor,
        slots: Tensor,
        motion: Tensor,
        frame: Tensor,
        pool: tuple[Tensor, Tensor],
    ) -> Bank:
        """Write this frame's memory tokens, one per cell of the token grid.

        Args:
            features, key: from `encode`.
            probability: (N, K, H/4, W/4) masks to remember.
            trusted: (N, K) 1 where an object's mask is known, 0 for LOST ("unknown", not "absent").
            slots: (N, K, M) one-hot.
            motion: (N, 1, h, w) relative flow magnitude, patch widths per frame.
            frame: (N,) float, index of this frame.
            pool: (r, h) and (c, w) weights that average patches into the r x c token grid.
        """
        batch = key.shape[0]
        share = F.avg_pool2d(probability * trusted.unsqueeze(-1).unsqueeze(-1), 4)
        doubt = F.avg_pool2d(entropy(probability * trusted.unsqueeze(-1).unsqueeze(-1)), 4)
        foreground = share.sum(dim=1, keepdim=True)
        content = self.value(torch.cat([features.stride16, foreground, doubt], dim=1).flatten(2).transpose(1, 2))
        height, width = key.shape[-2:]
        content = content.transpose(1, 2).reshape(batch, -1, height, width)
        grid = torch.cat([key, content, share, motion, doubt], dim=1).float()
        grid = to_token_grid(grid, pool)
        rows, columns = grid.shape[-2:]
        flat = grid.flatten(2).transpose(1, 2)
        sizes = [key.shape[1], content.shape[1], share.shape[1], 1, 1]
        new_key, value, identity, moved, unsure = flat.split(sizes, dim=-1)
        identity = identity @ slots
        known = (trusted.unsqueeze(1) @ slots).expand(-1, identity.shape[1], -1)
        x, y = self.positions(rows, columns, flat)
        cells = torch.arange(rows, device=flat.device), torch.arange(columns, device=flat.device)
        drawn = retention.draw(cells[0].to(flat.dtype).unsqueeze(1), cells[1].to(flat.dtype).unsqueeze(0), frame)
        one = torch.ones_like(moved.squeeze(-1))
        zero = torch.zeros_like(one)
        columns_ = {
            "x": x.reshape(1, -1) * one,
            "y": y.reshape(1, -1) * one,
            "birth": frame.unsqueeze(1) * one,
            "draw": drawn.flatten(1) * one,
        }
        columns_ |= {"motion": moved.squeeze(-1), "uncertainty": unsure.squeeze(-1), "valid": one}
        meta = torch.stack([columns_.get(name, zero) for name in META], dim=-1)
        return Bank(F.normalize(new_key, dim=-1), value, identity, known * 1.0, meta)

    def cells(self, key: Tensor, pool: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        """Average the frame as memory would keep it: unit keys (N, r * c, 256), centres x and y (r * c,)."""
        grid = to_token_grid(key.float(), pool)
        x, y = self.positions(grid.shape[-2], grid.shape[-1], grid)
        return F.normalize(grid.flatten(2).transpose(1, 2), dim=-1), x.reshape(-1), y.reshape(-1)

    def to_patches(self, cells: Tensor, key: Tensor, pool: tuple[Tensor, Tensor]) -> Tensor:
        """Upsample per-token values (N, r * c) to patches (N, 1, h, w); key gives the shape, pool as in `tokens`."""
        rows, columns = pool
        grid = cells.reshape(key.shape[0], 1, rows.shape[-2], columns.shape[-2])
        weights = rows.transpose(-2, -1) @ grid @ columns
        return weights / (rows.transpose(-2, -1) @ torch.ones_like(grid) @ columns)

    def gate_scores(self, bank: Bank) -> Tensor:
        """Compute the gate scores s (equation 8) of every token, (N, S)."""
        return self.gate(bank.key, bank.value, bank.column("age"), bank.column("motion"), bank.column("uncertainty"))

    def affinity(self, probability: Tensor, slots: Tensor, pool: tuple[Tensor, Tensor]) -> Tensor:
        """Rate how well each of this frame's tokens represents each object, (N, r * c, M); own patches come first."""
        share = to_token_grid(F.avg_pool2d(probability, 4), pool)
        near = F.avg_pool2d(F.pad(share, (2, 2, 2, 2)), 5, 1)
        far = F.avg_pool2d(F.pad(share, (6, 6, 6, 6)), 13, 1)
        score = share + near + far
        return score.flatten(2).transpose(1, 2) @ slots
