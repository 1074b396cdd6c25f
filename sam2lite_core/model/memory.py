"""The bounded memory bank: what a token is, which tokens may be read, and which survive an update (design section 4).

Everything is batched over N clips so that training and the exported graphs run the same code; a robot has N = 1.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from sam2lite_core.variants import MAX_WINDOW

ANCHOR_BONUS = 100.0
ANCHORS_OF_ONE, ANCHORS_OF_ALL = 0.25, 0.5
"""Largest shares of the budget that one object's anchors, and all anchors, may take."""

SAME_KEY, SAME_PLACE, SAME_SHARE = 0.4, 0.08, 0.2
"""How far apart two tokens that say the same may be in one respect: distance of unit keys (a cosine of .92), of places
as a share of the frame, difference of the objects' shares."""

UNCHANGED, STILL = 0.6, 0.8
"""A token is found unchanged where the squares of its distances in key and place, each over its limit, sum to less than
the former; a scene is still where this share of all tokens, and of the anchors, is. Of the tokens kept from films in
which something moves 4 to 69 in 100 were found unchanged, 76 at most; of those kept from a picture that repeats with
noise of 4 grey levels 90 and more, but for one of fog and asphalt (74)."""

STILL_SHARE = 0.3
"""Share of the budget that a still scene may fill, unless anchors alone take more."""

SPARSE, LIKE = 0.6, 0.9
"""A bank that holds less than the former share of what it could has a say only on cells whose keys have at least the
latter cosine with one of its own."""

RAREST = 1e-6
"""Draws lie this far from 0 and 1: of a million tokens one is told from the others."""

PERIOD = 1024.0
"""Frames after which the draws come again. Of two equal draws a gate that lets age count keeps the younger: nothing but
anchors outlives a few periods, about two minutes. Draws that never repeat were worse (training/RESULTS.md)."""

TIE_BREAK = 1e-4  # torch and ONNX Runtime choose differently among equal scores
REJECTED = -1e4  # not -inf: an empty bank would give NaN, and fp16 engines overflow
POLICIES = ("learned", "fifo", "random", "uniform")
META = ("x", "y", "age", "motion", "uncertainty", "valid", "owner", "birth", "affinity", "draw")
"""Columns of `Bank.meta`: centre in [0, 1] of the frame; frames since written; relative flow magnitude in patch
widths per frame; mask entropy 0..1; 1 = slot in use; anchors hold 1 + the slot of the object whose prompt wrote them,
others 0; index of the frame that wrote the token; how well an anchor represents its object, 0 for other tokens; the
token's draw in (0, 1), see `draw`."""


class Bank(NamedTuple):
    """S memory slots of N clips.

    Attributes:
        key: (N, S, 256) float, unit length.
        value: (N, S, 256) float.
        identity: (N, S, M) float 0..1, share of the token's patch that each object covers.
        known: (N, S, M) float 0 or 1, whether that share means anything.
        meta: (N, S, 10) float, columns as in `META`.
    """

    key: Tensor
    value: Tensor
    identity: Tensor
    known: Tensor
    meta: Tensor

    def column(self, name: str) -> Tensor:
        """One column of `meta`, (N, S)."""
        return self.meta[..., META.index(name)]

    def gather(self, index: Tensor) -> "Bank":
        """Pick slots. index: (N, S') int64."""
        batch, count = self.key.shape[:2]
        # Rows of one long table: runtimes copy whole rows, where a gather along an axis goes number by number.
        start = torch.arange(batch, device=index.device).unsqueeze(1) * count
        rows = (index + start).flatten()

        def pick(tensor: Tensor) -> Tensor:
            flat = tensor.reshape(-1, tensor.shape[-1])
            return torch.index_select(flat, 0, rows).reshape(batch, -1, tensor.shape[-1])

        return Bank(*(pick(tensor) for tensor in self))

    def with_columns(self, **columns: Tensor) -> "Bank":
        """A copy with some of the meta columns replaced by (N, S) tensors."""
        parts = [columns.get(name, self.meta[..., i]) for i, name in enumerate(META)]
        return self._replace(meta=torch.stack(parts, dim=-1))


def empty_bank(batch: int, slots: int, width: int, objects: int, device: torch.device | str = "cpu") -> Bank:
    """A bank of S = slots free slots."""
    shape = (batch, slots)
    return Bank(
        torch.zeros(*shape, width, device=device),
        torch.zeros(*shape, width, device=device),
        torch.zeros(*shape, objects, device=device),
        torch.zeros(*shape, objects, device=device),
        torch.zeros(*shape, len(META), device=device),
    )


def concat(first: Bank, second: Bank) -> Bank:
    """Both banks' slots in one, (N, S1 + S2, ...)."""
    return Bank(*(torch.cat(pair, dim=1) for pair in zip(first, second, strict=True)))


def begin_frame(bank: Bank, active: Tensor) -> Bank:
    """Age every token by a frame and forget the objects that were removed.

    Args:
        bank: the bank after the last frame.
        active: (N, M) float, 1 where a slot's object is still followed.

    Returns:
        The bank in which a removed object has no identity, no known share and no anchors of its own.
    """
    identity = bank.identity * active.unsqueeze(1)
    known = bank.known * active.unsqueeze(1)
    owner = bank.column("owner")
    # Slot 0 of the padded vector stands for "no owner", which nobody can remove.
    padded = F.pad(active, (1, 0), value=1.0)
    kept = torch.gather(padded, 1, owner.to(torch.int64))
    bank = bank._replace(identity=identity, known=known)
    return bank.with_columns(age=bank.column("age") + bank.column("valid"), owner=owner * kept)


def readable(bank: Bank, window: Tensor) -> Tensor:
    """Which tokens this frame may read.

    Tokens younger than W are the recent context; those past 8 frames were promoted by the gate and stay readable, as
    anchors do. So W trims recent context only.

    Args:
        bank: S slots.
        window: (N,) float, W in frames.

    Returns:
        (N, S) bool.
    """
    age = bank.column("age")
    recent = age <= window.unsqueeze(1)
    promoted = age > float(MAX_WINDOW)
    anchor = bank.column("owner") > 0.5
    return (bank.column("valid") > 0.5) & (recent | promoted | anchor)


def anchor_quota(bank: Bank, affinity: Tensor, budget: Tensor, prompted: Tensor) -> Bank:
    """Make anchors of the best tokens of a prompt frame.

    An object gets B / 4 of them at most, so that a still scene with one object leaves most of the bank free, and all
    objects together B / 2, shared evenly.

    Args:
        bank: old slots followed by this frame's tokens; the latter have age 0.
        affinity: (N, S, M) how well a token represents an object of this prompt frame.
        budget: (N,) float, B.
        prompted: (N, M) float, 1 for the objects prompted on this frame.

    Returns:
        The bank with its `owner` column rewritten: a re-prompted object keeps its former anchors only as far as its
        share reaches after the new ones.
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
    """Low-discrepancy numbers, one a token, by which tokens that are equally worth keeping are told apart.

    Keeping the largest of them keeps cells that cover the frame evenly, and others on every frame. Chosen by noise of
    its own, each token would leave gaps beside clusters; by its score alone, whole regions would be gone.

    Args:
        rows, columns: (r, 1) and (1, c) indices of the frame's cells.
        frame: (N,) index of the frame.

    Returns:
        (N, r, c) in (0, 1): the two-dimensional additive recurrence of the plastic number over the cells, shifted by
        the golden ratio with each frame of a `PERIOD`.
    """
    # Frames are counted for days: whole turns are taken off before fp32 runs out of digits, and what is rounded is
    # common to all cells of a frame.
    shift = fraction(torch.remainder(frame, PERIOD) * 0.6180340)
    value = fraction(rows * 0.7548777) + fraction(columns * 0.5698403)
    return inside(fraction(value.unsqueeze(0) + shift.reshape(-1, 1, 1)))


def fraction(value: Tensor) -> Tensor:
    """What is left of each number without its whole part, [0, 1)."""
    return value - torch.floor(value)


def inside(drawn: Tensor) -> Tensor:
    """Draws, far enough from 0 and 1 to have a logarithm of their odds."""
    return drawn.clamp(RAREST, 1.0 - RAREST)


def hash_noise(bank: Bank, frame: Tensor) -> Tensor:
    """Reproducible noise in [0, 1) from a token's place and birth and the current frame, (N, S)."""
    seed = bank.column("x") * 12.9898 + bank.column("y") * 78.233 + bank.column("birth") * 3.7719
    seed = seed + frame.unsqueeze(1) * 1.6180
    wave = torch.sin(seed) * 437.585
    return wave - torch.floor(wave)


def distances(bank: Bank, key: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """Half the squared distance in key and place, each over its limit, of a frame's cells to the bank's tokens.

    Args:
        bank: S slots.
        key: (N, S', 256) unit keys of the cells.
        x, y: (S',) their centres.

    Returns:
        (N, S', S); free slots are far away.
    """
    old = torch.cat([bank.key / SAME_KEY, bank.meta[..., :2] / SAME_PLACE], dim=-1)
    place = torch.stack([x, y], dim=-1).unsqueeze(0).expand(key.shape[0], -1, -1)
    new = torch.cat([key / SAME_KEY, place / SAME_PLACE], dim=-1)
    half_old = 0.5 * (old * old).sum(dim=-1) + (1.0 - bank.column("valid")) * -REJECTED
    half_new = 0.5 * (new * new).sum(dim=-1)
    # |a - b|^2 / 2 = |a|^2 / 2 + |b|^2 / 2 - a.b: one product.
    return half_new.unsqueeze(2) + half_old.unsqueeze(1) - new @ old.transpose(1, 2)


def repeats(bank: Bank, fresh: Bank, apart: Tensor) -> Tensor:
    """Which fresh tokens say nothing that the bank does not hold already.

    The gate judges each token by itself and cannot know that; without it a still scene would fill the bank with copies
    of one frame (ours; the paper has none).

    Args:
        bank: S kept slots.
        fresh: S' tokens of this frame.
        apart: (N, S', S), from `distances`.

    Returns:
        (N, S') float, 1 where some valid slot has nearly the same key, place and shares: their distances, each over its
        limit, have squares that sum to less than 1.
    """
    old, new = (some.identity * some.known / SAME_SHARE for some in (bank, fresh))
    half_old, half_new = (0.5 * (shares * shares).sum(dim=-1) for shares in (old, new))
    shares_apart = half_new.unsqueeze(2) + half_old.unsqueeze(1) - new @ old.transpose(1, 2)
    return ((apart + shares_apart).amin(dim=2) < 0.5).to(fresh.key.dtype)


def is_still(bank: Bank, apart: Tensor) -> Tensor:
    """Whether all that the bank holds is where it was, each object's anchors by themselves too.

    One object may move, or be gone, while all others and all around them stand still.

    Args:
        bank: S slots.
        apart: (N, S', S), from `distances`.

    Returns:
        (N,) float 0 or 1; an empty bank knows no scene.
    """
    valid = bank.column("valid")
    unchanged = (apart.amin(dim=1) < 0.5 * UNCHANGED).to(valid.dtype) * valid
    count = valid.sum(dim=1)
    tokens = (count > 0.5) & (unchanged.sum(dim=1) >= STILL * count)
    owner = (bank.column("owner") * valid).unsqueeze(2)
    slots = torch.cumsum(torch.ones_like(bank.identity[:, :1]), dim=2)
    owned = ((owner - slots).abs() < 0.5).to(valid.dtype)
    moved = (unchanged.unsqueeze(2) * owned).sum(dim=1) < STILL * owned.sum(dim=1)
    return (tokens & (moved.to(valid.dtype).amax(dim=1) < 0.5)).to(valid.dtype)


def knows(bank: Bank, key: Tensor, still: Tensor, budget: Tensor) -> Tensor:
    """Of which cells of a frame the bank can tell which object's they are.

    Attention always sums to 1: what is like nothing in memory is told about by what is least unlike it. A full bank
    holds a token like every cell; few tokens, or those of a scene that stands still and needs no more, have a say only
    on what is like them, wherever it is. The warped mask tells the rest.

    Args:
        bank: S slots.
        key: (N, S', 256) unit keys of the cells.
        still: (N,) from `is_still`.
        budget: (N,) float, B.

    Returns:
        (N, S') float, 0 where memory's opinion of the objects' shares is not to count.
    """
    valid = bank.column("valid")
    # Counted, since a shape would be written into an exported graph as a number.
    cells = torch.ones_like(key[:, :, 0]).sum(dim=1)
    few = valid.sum(dim=1) < SPARSE * torch.minimum(budget, cells)
    cosine = key @ bank.key.transpose(1, 2) + (valid.unsqueeze(1) - 1.0) * 2.0
    like = cosine.amax(dim=2) > LIKE
    return (like | ~((still > 0.5) | few).unsqueeze(1)).to(key.dtype)


def token_limit(bank: Bank, still: Tensor, budget: Tensor, learned: Tensor) -> Tensor:
    """How many tokens may be kept: the budget, and under the learned policy less of it while the scene is still.

    A scene that stands still is told by few tokens; when something moves, the next frame is written whole again.

    Args:
        bank: S slots before this frame's tokens.
        still: (N,) from `is_still`.
        budget: (N,) float, B.
        learned: (N,) float, 1 where the policy is the learned one.

    Returns:
        (N,) float, at most B; never less than the anchors are.
    """
    anchors = ((bank.column("owner") > 0.5) & (bank.column("valid") > 0.5)).to(budget.dtype).sum(dim=1)
    few = torch.minimum(torch.maximum(torch.floor(STILL_SHARE * budget), anchors), budget)
    return torch.where((still > 0.5) & (learned > 0.5), few, budget)


def policy_scores(bank: Bank, gate_score: Tensor, frame: Tensor, policy: Tensor, repeated: Tensor) -> Tensor:
    """Score every token by the chosen policy, before the anchors' bonus.

    Args:
        bank: S slots.
        gate_score: (N, S) from the gate, in [-20, 20].
        frame: (N,) float, index of the current frame.
        policy: (N, 4) one-hot over `POLICIES`.
        repeated: (N, S) float, from `repeats`; 0 for old slots.

    Returns:
        (N, S) scores; the learned policy rejects tokens whose keep probability p = sigmoid(s) is below their draw, so
        that it keeps a share p of them, evenly spread; and those that repeat others.
    """
    noise = hash_noise(bank, frame)
    age = bank.column("age")
    drawn = inside(bank.column("draw"))
    spread = gate_score + torch.log(drawn) - torch.log(1.0 - drawn)
    wanted = (spread > 0.0) & (repeated < 0.5)
    learned = torch.where(wanted, spread, torch.full_like(gate_score, REJECTED))
    # Within a frame, fifo and uniform have no preference of their own: a spread that does not change with time.
    still = hash_noise(bank, torch.zeros_like(frame))
    fifo = -age / (age + 1.0) * 8.0 + 1e-3 * still / (age + 1.0) ** 2
    # Keeping the smallest of a number that each token draws once is a uniform sample of everything ever written.
    uniform = -8.0 * still
    stacked = torch.stack([learned, fifo, noise * 8.0, uniform], dim=-1)
    return (stacked * policy.unsqueeze(1)).sum(dim=-1)


def select(bank: Bank, score: Tensor, slots: int, budget: Tensor) -> Bank:
    """Keep the best tokens: score, top-B, gather (methodology section 2.3).

    Args:
        bank: candidates, old slots first.
        score: (N, S) policy scores.
        slots: size S' of the new bank.
        budget: (N,) float B <= S'; slots past it stay free.

    Returns:
        A bank of S' slots of which at most B are valid.
    """
    count = score.shape[1]
    order = torch.arange(count, device=score.device, dtype=score.dtype)
    anchor = (bank.column("owner") > 0.5).to(score.dtype)
    valid = bank.column("valid")
    # Anchors are far above the rest and all alike, so that their ties can be broken by steps that fp32 resolves at 100.
    ties = order / count * (TIE_BREAK * (1.0 - anchor) + anchor)
    score = score.clamp(min=REJECTED) * (1.0 - anchor) + anchor * ANCHOR_BONUS - ties
    score = torch.where(valid > 0.5, score, torch.full_like(score, 2.0 * REJECTED))
    best, index = torch.topk(score, slots, dim=1, largest=True, sorted=True)
    kept = bank.gather(index)
    rank = torch.arange(slots, device=score.device, dtype=score.dtype)
    alive = (best > 0.5 * REJECTED) & (rank.unsqueeze(0) < budget.unsqueeze(1))
    flag = alive.to(score.dtype).unsqueeze(-1)
    # Freed slots are zeroed: what was forgotten must not linger in memory that a client can read.
    return Bank(*(tensor * flag for tensor in kept))
