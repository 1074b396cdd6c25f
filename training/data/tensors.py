"""Transform tensors of a batch of clips."""

import torch
import torch.nn.functional as F
from torch import Tensor

from sam2lite_core.frame.resolution import averaging_matrix
from sam2lite_core.model.encoder import Features


def one_hot(labels: Tensor, count: int) -> Tensor:
    """Turn (…, H, W) uint8 labels into (…, count, H, W) float masks of labels 1..count."""
    numbers = torch.arange(1, count + 1, device=labels.device, dtype=labels.dtype).view(-1, 1, 1)
    return (labels.unsqueeze(-3) == numbers).float()


def token_pool(rows: int, columns: int, pooled: bool, device: torch.device | str = "cpu") -> tuple[Tensor, Tensor]:
    """Make row and column weights from patches to tokens: 2x2 patches a token as at scale 1, or one."""
    step = 2 if pooled else 1
    over_rows, over_columns = (torch.from_numpy(averaging_matrix(n, -(-n // step))).to(device) for n in (rows, columns))
    return over_rows, over_columns


def warp(previous: Tensor, flow: Tensor) -> Tensor:
    """Carry (N, K, h, w) along backward flow (N, h, w, 2) in units of width and height; the edges repeat."""
    height, width = previous.shape[-2:]
    x = (torch.arange(width, device=flow.device) + 0.5) / width
    y = (torch.arange(height, device=flow.device) + 0.5) / height
    grid = torch.stack([x.expand(height, width), y.unsqueeze(1).expand(height, width)], dim=-1) + flow
    return F.grid_sample(previous, grid * 2.0 - 1.0, padding_mode="border", align_corners=False)


def frame_features(features: Features, batch: int, t: int) -> Features:
    """Select the features of frame t from those of N * T frames encoded together."""
    return Features(*(f.reshape(batch, -1, *f.shape[1:])[:, t] for f in features))
