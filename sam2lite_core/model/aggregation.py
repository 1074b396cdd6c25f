"""Combine the masks of several objects, and measure their entropy."""

import math

import torch
from torch import Tensor


def soft_aggregate(logits: Tensor) -> Tensor:
    """Soft aggregation across objects as STM does: each object's logit minus the background's.

    The background's probability is the product of (1 - p) over the objects.

    Args:
        logits: (N, K, ...) independent logits.

    Returns:
        (N, K, ...) logits relative to the background.
    """
    limited = logits.clamp(-12.0, 12.0)
    # ONNX Runtime computes softplus number by number, these two at once; the limit keeps log within a hundredth.
    background = torch.log(torch.sigmoid(-limited)).sum(dim=1, keepdim=True).clamp(-16.0, -1e-6)
    # log(b / (1 - b)) with log b known; expm1 keeps the digits where b is near 1.
    background_logit = background - torch.log(-torch.expm1(background))
    return limited - background_logit


def aggregate_probability(relative: Tensor) -> Tensor:
    """Softmax over background (logit 0) and K objects; returns the objects' (N, K, ...) probabilities."""
    # Soft aggregation keeps logits within 28, so that nothing need be subtracted; a softmax that is not over the last
    # axis takes ONNX Runtime five times as long.
    odds = torch.exp(relative.clamp(max=40.0))
    return odds / (1.0 + odds.sum(dim=1, keepdim=True))


def entropy(probability: Tensor) -> Tensor:
    """Binary entropy of the foreground, 0..1. probability: (N, K, ...) of the objects; returns (N, 1, ...)."""
    foreground = probability.sum(dim=1, keepdim=True).clamp(1e-4, 1.0 - 1e-4)
    bits = foreground * torch.log(foreground) + (1.0 - foreground) * torch.log(1.0 - foreground)
    return -bits / math.log(2.0)
