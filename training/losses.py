"""Losses of the student, each in its own function (paper section 3.2 to 3.5; InfoNCE is ours)."""

import torch
import torch.nn.functional as F
from torch import Tensor


def mask_cross_entropy(relative: Tensor, target: Tensor, hard_share: float) -> Tensor:
    """Cross-entropy over background and objects, all pixels and the hardest once more (the BCE of L_mask, equation 13).

    Args:
        relative: (N, K, H, W) logits against the background.
        target: (N, K, H, W) soft shares 0..1 of the objects.
        hard_share: share of each frame's pixels that count as hardest, above 0 and up to 1.
    """
    logits = torch.cat([torch.zeros_like(relative[:, :1]), relative], dim=1)
    background = (1.0 - target.sum(dim=1, keepdim=True)).clamp(min=0.0)
    truth = torch.cat([background, target], dim=1)
    loss = -(truth * F.log_softmax(logits, dim=1)).sum(dim=1).flatten(1)
    keep = max(1, int(loss.shape[1] * hard_share))
    hardest = loss.topk(keep, dim=1, sorted=False).values.mean()
    # The hardest pixels alone teach hedging: the masks grew worse within 200 steps.
    return loss.mean() + 0.5 * hardest


def soft_iou(probability: Tensor, target: Tensor, weight: Tensor) -> Tensor:
    """1 - soft intersection over union per object (the IoU part of L_mask, equation 13).

    Args:
        probability, target: (N, K, H, W) in 0..1.
        weight: (N, K) which objects count.
    """
    both = (probability * target).flatten(2).sum(-1)
    union = (probability + target).flatten(2).sum(-1) - both
    loss = 1.0 - (both + 1.0) / (union + 1.0)
    return (loss * weight).sum() / weight.sum().clamp(min=1.0)


def edge(probability: Tensor, target: Tensor, weight: Tensor) -> Tensor:
    """Gradient matching for sharp boundaries (L_edge): mean |difference of finite differences| near true edges.

    Args:
        probability, target: (N, K, H, W) in 0..1.
        weight: (N, K) which objects count.
    """
    total = probability.new_zeros(probability.shape[:2])
    for axis in (-1, -2):
        true = torch.diff(target, dim=axis)
        missed = (torch.diff(probability, dim=axis) - true).abs().flatten(2).sum(-1)
        # Per unit of true boundary: a small object's edge weighs as much as a large one's.
        total = total + missed / (true.abs().flatten(2).sum(-1) + 8.0)
    return (total * weight).sum() / weight.sum().clamp(min=1.0)


def correspondence(
    key: Tensor, places: Tensor, pairs: list[tuple[int, int]], temperature: float = 0.07
) -> Tensor:
    """InfoNCE on keys with the true correspondence of rendered clips.

    Args:
        key: (N, T, P, C) unit keys of T frames.
        places: (N, T, P, 3) (layer, x, y) of each patch centre, px.
        pairs: (query frame, memory frame) indices.
        temperature: of the softmax.
    """
    losses = []
    for query, memory in pairs:
        logits = key[:, query].float() @ key[:, memory].float().transpose(1, 2) / temperature
        layer_q, layer_m = places[:, query, :, :1], places[:, memory, :, 0].unsqueeze(1)
        distance = torch.cdist(places[:, query, :, 1:], places[:, memory, :, 1:])
        # A patch is 16 px wide: neighbours up to one patch away are partly the same picture.
        target = torch.exp(-((distance / 8.0) ** 2) / 2.0) * (layer_q == layer_m) * (distance < 16.0)
        mass = target.sum(-1)
        target = target / mass.unsqueeze(-1).clamp(min=1e-6)
        loss = -(target * F.log_softmax(logits, dim=-1)).sum(-1)
        counted = (mass > 0.3).float()
        losses.append((loss * counted).sum() / counted.sum().clamp(min=1.0))
    return torch.stack(losses).mean()


def share_loss(share: Tensor, evidence: Tensor, target: Tensor) -> Tensor:
    """BCE of the memory's identity readout against the patch's true share, where memory had an opinion.

    Args:
        share, evidence, target: (N, K, h, w) in 0..1.
    """
    loss = F.binary_cross_entropy(share.float().clamp(1e-3, 1 - 1e-3), target, reduction="none")
    weight = (evidence > 0.2).float()
    return (loss * weight).sum() / weight.sum().clamp(min=1.0)


def presence_loss(logits: Tensor, present: Tensor, weight: Tensor) -> Tensor:
    """BCE of presence. logits, present, weight: (N, K)."""
    loss = F.binary_cross_entropy_with_logits(logits.float(), present, reduction="none")
    return (loss * weight).sum() / weight.sum().clamp(min=1.0)


def budget_loss(expected: Tensor, mean_probability: Tensor, budget: int) -> Tensor:
    """Hinge on the expected number of tokens kept, (max(0, sum p / B - 1))^2 + 0.01 mean p (design section 4).

    The second term makes a token that nobody needs lose its place even when there is room.

    Args:
        expected: (N,) sum of the keep probabilities.
        mean_probability: (N,) their mean.
        budget: B, tokens.
    """
    over = (expected / budget - 1.0).clamp(min=0.0)
    return (over * over + 0.01 * mean_probability).mean()
