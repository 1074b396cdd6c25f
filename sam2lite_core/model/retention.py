"""Score tokens by policy and select those that the bank keeps (paper section 3.3)."""

import torch
from torch import Tensor

from sam2lite_core.model.bank import REJECTED, Bank

ANCHOR_BONUS = 100.0

ANCHORS_OF_ONE, ANCHORS_OF_ALL = 0.25, 0.5
"""Largest shares of the budget that one object's anchors, and all anchors, may take."""

STATIC_SHARE = 0.3
"""Share of the budget that a static scene may fill, unless anchors alone take more."""

RAREST = 1e-6
"""Draws lie this far from 0 and 1: of a million tokens one is told from the others."""

PERIOD = 1024.0
"""Frames after which the draws come again. Of two equal draws a gate that lets age count keeps the younger: nothing but
anchors outlives a few periods, about two minutes. Draws that never repeat were worse (training/RESULTS.md)."""

TIE_BREAK = 1e-4  # torch and ONNX Runtime choose differently among equal scores


def anchor_quota(bank: Bank, affinity: Tensor, budget: Tensor, prompted: Tensor) -> Bank:
    """Make anchors of the best tokens of a prompt frame: at most B / 4 for an object and B / 2 for all, shared evenly.

    Args:
        bank: old tokens followed by this frame's tokens; the latter have age 0.
        affinity: (N, S, M) how well a token represents an object of this prompt frame.
        budget: (N,) float, B.
        prompted: (N, M) float, 1 for the objects prompted on this frame.

    Returns:
        The bank with new `owner` and `affinity`; of a re-prompted object's former anchors, those that still fit.
    """
    fresh = (bank.column("age") < 0.5) & (bank.column("valid") > 0.5)
    masked = affinity * prompted.unsqueeze(1)
    best, slot = masked.max(dim=-1)
    owner = bank.column("owner")
    owner = torch.where(fresh & (best > 0.0), slot.to(owner.dtype) + 1.0, owner)
    worth = torch.where(fresh, best, bank.column("affinity"))
    # Newer prompts first, then affinity, then the index. All anchors of one prompt frame have one age, and beside it a
    # small bonus would be lost in fp32: each criterion is a comparison of its own.
    order = torch.arange(owner.shape[1], device=owner.device, dtype=owner.dtype)
    same = (owner.unsqueeze(2) - owner.unsqueeze(1)).abs() < 0.5
    older = bank.column("age").unsqueeze(2) - bank.column("age").unsqueeze(1)
    gain = worth.unsqueeze(1) - worth.unsqueeze(2)
    before = order.unsqueeze(0) < order.unsqueeze(1)
    better = (older > 0.5) | ((older.abs() < 0.5) & ((gain > 0.0) | ((gain >= 0.0) & before)))
    rank = (same & better).to(owner.dtype).sum(dim=2)
    slots = torch.arange(1, prompted.shape[1] + 1, device=owner.device, dtype=owner.dtype)
    present = ((owner.unsqueeze(2) - slots).abs() < 0.5).to(owner.dtype).amax(dim=1)
    owners = present.sum(dim=1).clamp(min=1.0)
    quota = torch.floor(torch.minimum(budget * ANCHORS_OF_ONE, budget * ANCHORS_OF_ALL / owners))
    kept = (rank < quota.unsqueeze(1)) & (owner > 0.5)
    none = torch.zeros_like(owner)
    return bank.with_columns(owner=torch.where(kept, owner, none), affinity=torch.where(kept, worth, none))


def draw(rows: Tensor, columns: Tensor, frame: Tensor) -> Tensor:
    """Draw low-discrepancy numbers, one a token, so that the largest of them cover the frame evenly.

    Args:
        rows, columns: (r, 1) and (1, c) indices of the frame's cells.
        frame: (N,) index of the frame.

    Returns:
        (N, r, c) in (0, 1): the additive recurrence of the plastic number, shifted by the golden ratio each frame.
    """
    # Frames are counted for days: whole turns are taken off before fp32 runs out of digits, and what is rounded is
    # common to all cells of a frame.
    shift = fraction(torch.remainder(frame, PERIOD) * 0.6180340)
    value = fraction(rows * 0.7548777) + fraction(columns * 0.5698403)
    return inside(fraction(value.unsqueeze(0) + shift.reshape(-1, 1, 1)))


def fraction(value: Tensor) -> Tensor:
    """Take the whole part off each number, [0, 1)."""
    return value - torch.floor(value)


def inside(drawn: Tensor) -> Tensor:
    """Clamp draws away from 0 and 1, so that their odds have a logarithm."""
    return drawn.clamp(RAREST, 1.0 - RAREST)


def hash_noise(bank: Bank, frame: Tensor) -> Tensor:
    """Compute reproducible noise in [0, 1) from a token's place and birth and the current frame, (N, S)."""
    seed = bank.column("x") * 12.9898 + bank.column("y") * 78.233 + bank.column("birth") * 3.7719
    seed = seed + frame.unsqueeze(1) * 1.6180
    wave = torch.sin(seed) * 437.585
    return wave - torch.floor(wave)


def token_limit(bank: Bank, static: Tensor, budget: Tensor, learned: Tensor) -> Tensor:
    """Compute how many tokens may be kept, (N,): the budget, or a share of it in a static scene if `learned`.

    Args:
        bank: S tokens before this frame's tokens.
        static: (N,) from `redundancy.is_static`.
        budget: (N,) float, B.
        learned: (N,) float, 1 where the policy is the learned one.
    """
    anchors = ((bank.column("owner") > 0.5) & (bank.column("valid") > 0.5)).to(budget.dtype).sum(dim=1)
    few = torch.minimum(torch.maximum(torch.floor(STATIC_SHARE * budget), anchors), budget)
    return torch.where((static > 0.5) & (learned > 0.5), few, budget)


def policy_scores(bank: Bank, gate_score: Tensor, frame: Tensor, policy: Tensor, repeated: Tensor) -> Tensor:
    """Score every token by the chosen policy, before the anchors' bonus.

    Args:
        bank: S rows.
        gate_score: (N, S) from the gate, in [-20, 20].
        frame: (N,) float, index of the current frame.
        policy: (N, 4) one-hot over `POLICIES`.
        repeated: (N, S) float, from `repeats`; 0 for old tokens.

    Returns:
        (N, S) scores. The learned policy keeps a share p = sigmoid(s) of tokens, evenly spread, and rejects repeats.
    """
    noise = hash_noise(bank, frame)
    age = bank.column("age")
    drawn = inside(bank.column("draw"))
    spread = gate_score + torch.log(drawn) - torch.log(1.0 - drawn)
    wanted = (spread > 0.0) & (repeated < 0.5)
    learned = torch.where(wanted, spread, torch.full_like(gate_score, REJECTED))
    # Within a frame, fifo and uniform have no preference of their own: a spread that does not change with time.
    lasting = hash_noise(bank, torch.zeros_like(frame))
    fifo = -age / (age + 1.0) * 8.0 + 1e-3 * lasting / (age + 1.0) ** 2
    # Keeping the smallest of a number that each token draws once is a uniform sample of everything ever written.
    uniform = -8.0 * lasting
    stacked = torch.stack([learned, fifo, noise * 8.0, uniform], dim=-1)
    return (stacked * policy.unsqueeze(1)).sum(dim=-1)


def select(bank: Bank, score: Tensor, capacity: int, budget: Tensor) -> Bank:
    """Keep the best tokens: score, top-B, gather (methodology section 2.3).

    Args:
        bank: candidates, old tokens first.
        score: (N, S) policy scores.
        capacity: rows S' of the new bank.
        budget: (N,) float B <= S'; rows past it stay free.

    Returns:
        A bank of S' rows of which at most B are valid.
    """
    count = score.shape[1]
    order = torch.arange(count, device=score.device, dtype=score.dtype)
    anchor = (bank.column("owner") > 0.5).to(score.dtype)
    valid = bank.column("valid")
    # Anchors are far above the rest and all alike, so that their ties can be broken by steps that fp32 resolves at 100.
    ties = order / count * (TIE_BREAK * (1.0 - anchor) + anchor)
    score = score.clamp(min=REJECTED) * (1.0 - anchor) + anchor * ANCHOR_BONUS - ties
    score = torch.where(valid > 0.5, score, torch.full_like(score, 2.0 * REJECTED))
    best, index = torch.topk(score, capacity, dim=1, largest=True, sorted=True)
    kept = bank.gather(index)
    rank = torch.arange(capacity, device=score.device, dtype=score.dtype)
    alive = (best > 0.5 * REJECTED) & (rank.unsqueeze(0) < budget.unsqueeze(1))
    flag = alive.to(score.dtype).unsqueeze(-1)
    # Freed rows are zeroed: what was forgotten must not linger in memory that a client can read.
    return Bank(*(tensor * flag for tensor in kept))
