"""Losses of the student, each in its own function (paper section 3.2 to 3.5; InfoNCE is ours).

| term | equation | function |
|---|---|---|
| L_mask: BCE, hard pixels; IoU | 13 | `mask_cross_entropy`, `soft_iou` |
| L_edge: gradient matching | 13 | `edge` |
| L_attn: attention in common bins | 4 | `attention` |
| L_read: memory readout | 7 | `readout` |
| L_budget: ours; the paper's | 10 | `budget_loss`; `budget_loss_on_masks` |
| L_naive: outputs only | 1 | `output` |
| image features, correspondence, identity share, presence, gate supervision | ours | the functions of these names |
"""

import torch
import torch.nn.functional as F
from torch import Tensor

ATTENTION_EPSILON = 1e-4
"""Probability that every common bin has at least, so that an empty one has a logarithm (design section 4)."""

LEAST_MASS = 0.05
"""Share of the teacher's attention that the common bins must hold for a query to count: less is noise, blown up."""


def mask_cross_entropy(relative: Tensor, target: Tensor, hard_share: float) -> Tensor:
    """Compute the cross-entropy over background and objects, all pixels and the hardest once more (BCE of equation 13).

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
    """Compute 1 - soft IoU of (N, K, H, W) masks in 0..1 (equation 13); weight (N, K) says which objects count."""
    both = (probability * target).flatten(2).sum(-1)
    union = (probability + target).flatten(2).sum(-1) - both
    loss = 1.0 - (both + 1.0) / (union + 1.0)
    return (loss * weight).sum() / weight.sum().clamp(min=1.0)


def edge(probability: Tensor, target: Tensor, weight: Tensor) -> Tensor:
    """Match gradients near true edges (L_edge) of (N, K, H, W) masks in 0..1; weight (N, K) as in `soft_iou`."""
    total = probability.new_zeros(probability.shape[:2])
    for axis in (-1, -2):
        true = torch.diff(target, dim=axis)
        missed = (torch.diff(probability, dim=axis) - true).abs().flatten(2).sum(-1)
        # Per unit of true boundary: a small object's edge weighs as much as a large one's.
        total = total + missed / (true.abs().flatten(2).sum(-1) + 8.0)
    return (total * weight).sum() / weight.sum().clamp(min=1.0)


def correspondence(key: Tensor, places: Tensor, pairs: list[tuple[int, int]], temperature: float = 0.07) -> Tensor:
    """Compute InfoNCE on keys with the true correspondence of rendered clips.

    Args:
        key: (N, T, P, C) unit keys of T frames.
        places: (N, T, P, 3) (layer, x, y) of each patch centre, px; layer -1 is unknown.
        pairs: (query frame, memory frame) indices.
        temperature: of the softmax.
    """
    losses = []
    for query, memory in pairs:
        logits = key[:, query].float() @ key[:, memory].float().transpose(1, 2) / temperature
        layer_q, layer_m = places[:, query, :, :1], places[:, memory, :, 0].unsqueeze(1)
        distance = torch.cdist(places[:, query, :, 1:], places[:, memory, :, 1:])
        # A patch is 16 px wide: neighbours up to one patch away are partly the same picture.
        same = (layer_q == layer_m) & (layer_q >= 0)
        target = torch.exp(-((distance / 8.0) ** 2) / 2.0) * same * (distance < 16.0)
        mass = target.sum(-1)
        target = target / mass.unsqueeze(-1).clamp(min=1e-6)
        loss = -(target * F.log_softmax(logits, dim=-1)).sum(-1)
        counted = (mass > 0.3).float()
        losses.append((loss * counted).sum() / counted.sum().clamp(min=1.0))
    return torch.stack(losses).mean()


def share_loss(share: Tensor, evidence: Tensor, target: Tensor) -> Tensor:
    """Compute BCE of memory's share (N, K, h, w) against the true share, where memory had evidence."""
    loss = F.binary_cross_entropy(share.float().clamp(1e-3, 1 - 1e-3), target, reduction="none")
    weight = (evidence > 0.2).float()
    return (loss * weight).sum() / weight.sum().clamp(min=1.0)


def presence_loss(logits: Tensor, present: Tensor, weight: Tensor) -> Tensor:
    """Compute BCE of presence. logits, present, weight: (N, K)."""
    loss = F.binary_cross_entropy_with_logits(logits.float(), present, reduction="none")
    return (loss * weight).sum() / weight.sum().clamp(min=1.0)


def budget_loss(expected: Tensor, mean_probability: Tensor, budget: int) -> Tensor:
    """Penalise tokens above the budget, (max(0, sum p / B - 1))^2 + 0.01 mean p (design section 4).

    Args:
        expected: (N,) sum of the keep probabilities.
        mean_probability: (N,) their mean.
        budget: B, tokens.
    """
    over = (expected / budget - 1.0).clamp(min=0.0)
    return (over * over + 0.01 * mean_probability).mean()


def budget_loss_on_masks(kept: Tensor, score: Tensor, budget: int) -> Tensor:
    """Penalise hard masks as the paper does, max(0, sum mask - B)^2 + 0.01 sum s (equation 10).

    Hard masks have no gradient, and top-B never exceeds B: only the second term teaches.

    Args:
        kept: (N, S) 0 or 1.
        score: (N, S) gate scores, 0 for rows that do not count.
        budget: B, tokens.
    """
    over = (kept.detach().sum(dim=1) - budget).clamp(min=0.0)
    return (over * over + 0.01 * score.sum(dim=1)).mean()


def gate_supervision(score: Tensor, target: Tensor, counted: Tensor) -> Tensor:
    """Compute balanced BCE of keep probabilities against what an unbounded memory read later (design section 4).

    Args:
        score: (N, S) gate scores s; p = sigmoid(s).
        target: (N, S) 1 for tokens worth keeping.
        counted: (N, S) 1 for tokens that the gate decides on.
    """
    wanted, useless = target * counted, (1.0 - target) * counted
    weight = wanted / wanted.sum().clamp(min=1.0) + useless / useless.sum().clamp(min=1.0)
    loss = F.binary_cross_entropy_with_logits(score.float(), target, reduction="none")
    return (loss * weight).sum() / 2.0


def attention(student: Tensor, teacher: Tensor, common: Tensor, known: Tensor) -> tuple[Tensor, Tensor]:
    """Compute KL(student || teacher) of attention in the bins that both hold, normalised there (L_attn, equation 4).

    Args:
        student, teacher: (N, P, G) attention mass per bin.
        common: (N, G) bool, bins that both hold.
        known: (N, P) bool, queries that the teacher speaks of.

    Returns:
        The mean over known queries with at least LEAST_MASS in common bins; the teacher's mean mass outside them.
    """
    shared = common.unsqueeze(1).float()
    bins = shared.sum(-1, keepdim=True).clamp(min=1.0)

    def normalised(mass: Tensor) -> tuple[Tensor, Tensor]:
        inside = mass.float() * shared
        total = inside.sum(-1, keepdim=True)
        share = inside / total.clamp(min=1e-8)
        return (share + ATTENTION_EPSILON) / (1.0 + ATTENTION_EPSILON * bins) * shared, total.squeeze(-1)

    (ours, held), (theirs, kept) = normalised(student), normalised(teacher)
    one = torch.ones_like(ours)
    ratio = torch.log(torch.where(shared > 0.0, ours, one)) - torch.log(torch.where(shared > 0.0, theirs, one))
    divergence = (ours * ratio).sum(-1)
    speaks = known.float()
    # A student that looks elsewhere entirely has nothing to compare yet; its share is all epsilon.
    counted = speaks * (kept >= LEAST_MASS) * (held > ATTENTION_EPSILON)
    lost = ((1.0 - kept) * speaks).sum() / speaks.sum().clamp(min=1.0)
    return (divergence * counted).sum() / counted.sum().clamp(min=1.0), lost.detach()


def readout(projected: Tensor, teacher: Tensor, known: Tensor) -> Tensor:
    """Compute the squared distance of readouts (L_read, equation 7), in units of the teacher's mean square.

    Args:
        projected: (N, P, D) student readout, projected to the teacher's width.
        teacher: (N, P, D) teacher readout.
        known: (N, P) bool, queries that the teacher speaks of.
    """
    weight = known.float()
    distance = (projected.float() - teacher.float()).pow(2).sum(-1)
    scale = teacher.float().pow(2).sum(-1)
    return (distance * weight).sum() / (scale * weight).sum().clamp(min=1e-6)


def features(projected: Tensor, teacher: Tensor) -> Tensor:
    """Compute the share of an image teacher's feature variance, (N, P, D), that projected features do not explain."""
    return (projected.float() - teacher).pow(2).mean()


def output(probability: Tensor, teacher: Tensor, weight: Tensor) -> Tensor:
    """Compute the mean squared difference of (N, K, h, w) masks (L_naive, equation 1); weight (N, K)."""
    difference = (probability.float() - teacher.float()).pow(2).flatten(2).mean(-1)
    return (difference * weight).sum() / weight.sum().clamp(min=1.0)
