"""Which tokens are worth keeping: those that later frames of an unbounded memory read (design section 4, top-B)."""

import torch
from torch import Tensor

from sam2lite_core.model.bank import Bank


def oldest_duplicate(bank: Bank, similarity: float, reach: float) -> Tensor:
    """For every token the index of the oldest token that says the same, itself if none does. (N, S) int64."""
    cosine = bank.key @ bank.key.transpose(1, 2)
    place = torch.stack([bank.column("x"), bank.column("y")], dim=-1)
    near = torch.cdist(place, place) < reach
    same = (bank.identity.unsqueeze(2) - bank.identity.unsqueeze(1)).abs().amax(-1) < 0.25
    birth = bank.column("birth")
    older = birth.unsqueeze(1) <= birth.unsqueeze(2)
    duplicate = (cosine > similarity) & near & same & older
    index = torch.arange(birth.shape[1], device=birth.device)
    # The first token in writing order is the oldest; a token always duplicates itself.
    first = torch.where(duplicate, index, birth.shape[1]).amin(dim=2)
    return torch.minimum(first, index)


def credit(attention: Tensor, oldest: Tensor) -> Tensor:
    """Attention (N, S) with that of duplicates moved to their oldest (N, S)."""
    return torch.zeros_like(attention).scatter_add(1, oldest, attention)


def keep_targets(later: Tensor, valid: Tensor, budget: int, floor: float) -> Tensor:
    """Mark the tokens worth keeping, (N, S) 0 or 1: the most read, unless hardly read at all.

    Args:
        later: (N, S) attention that later frames pay.
        valid: (N, S) bool, tokens that exist at the time of the decision.
        budget: tokens that are marked, at most.
        floor: as in `KeepConfig`.
    """
    later = torch.where(valid, later, torch.zeros_like(later))
    best = later.topk(min(budget, later.shape[1]), dim=1).values
    threshold = torch.maximum(best[:, -1:], floor * best.mean(dim=1, keepdim=True)).clamp(min=1e-9)
    return ((later >= threshold) & valid).float()
