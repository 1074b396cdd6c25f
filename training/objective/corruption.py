"""Random prompts and corrupted previous masks for training."""

import torch
import torch.nn.functional as F
from torch import Tensor

from sam2lite_core.frame.prompt_rasters import spot
from sam2lite_core.model.prompt_decoder import PROMPT_CHANNELS


def random_prompts(truth: Tensor, generator: torch.Generator) -> Tensor:
    """Box or point rasters for frame 0, at stride 4.

    Half of the objects get their box (corners jittered), the others one to three points inside, a third of them with a
    point outside as well.

    Args:
        truth: (N, K, h, w) true shares at stride 4.

    Returns:
        (N, K, 3, h, w) rasters: box, positive, negative.
    """
    device = truth.device
    # Pixel by pixel work: on an accelerator every look at a value would wait for it.
    truth = truth.cpu()
    batch, count, height, width = truth.shape
    out = torch.zeros(batch, count, PROMPT_CHANNELS, height, width)

    def uniform(low: float, high: float) -> float:
        return low + (high - low) * float(torch.rand((), generator=generator))

    for n in range(batch):
        for k in range(count):
            mask = truth[n, k] > 0.5
            if not mask.any():
                continue
            rows, columns = mask.any(1).nonzero().flatten(), mask.any(0).nonzero().flatten()
            if uniform(0, 1) < 0.5:
                y0, y1, x0, x1 = int(rows[0]), int(rows[-1]) + 1, int(columns[0]), int(columns[-1]) + 1
                jitter = [round(uniform(-0.05, 0.05) * (y1 - y0)), round(uniform(-0.05, 0.05) * (x1 - x0))]
                out[n, k, 0, max(y0 + jitter[0], 0) : y1 + jitter[0], max(x0 + jitter[1], 0) : x1 + jitter[1]] = 1.0
                continue
            inner = -F.max_pool2d(-truth[n, k][None, None], 5, 1, 2)[0, 0] > 0.5
            inside = (inner if inner.any() else mask).nonzero()
            for _ in range(int(uniform(1, 3.99)) if uniform(0, 1) < 0.4 else 1):
                y, x = inside[int(uniform(0, len(inside) - 0.01))].tolist()
                out[n, k, 1] = torch.maximum(out[n, k, 1], torch.from_numpy(spot(height, width, x, y)))
            if uniform(0, 1) < 0.3:
                outside = (~mask).nonzero()
                if len(outside):
                    y, x = outside[int(uniform(0, len(outside) - 0.01))].tolist()
                    out[n, k, 2] = torch.from_numpy(spot(height, width, x, y))
    return out.to(device)


def corrupt(warped: Tensor, generator: torch.Generator, probability: float) -> Tensor:
    """Damage some warped masks as real ones are: shifted, eroded, dilated or with a block missing. (N, K, h, w)."""
    out = warped.clone()
    for n in range(len(out)):
        if float(torch.rand((), generator=generator)) >= probability:
            continue
        kind = int(torch.randint(4, (), generator=generator))
        if kind == 0:
            shift = torch.randint(-6, 7, (2,), generator=generator).tolist()
            out[n] = torch.roll(out[n], shift, (-2, -1))
        elif kind == 1:
            out[n] = F.max_pool2d(out[n], 5, 1, 2)
        elif kind == 2:
            out[n] = -F.max_pool2d(-out[n], 5, 1, 2)
        else:
            y, x = (torch.rand(2, generator=generator) * torch.tensor(out.shape[-2:]) * 0.7).long().tolist()
            out[n, :, y : y + out.shape[-2] // 3, x : x + out.shape[-1] // 3] = 0.0
    return out
