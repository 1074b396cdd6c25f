"""Find tokens that repeat others, and static scenes."""

import torch
from torch import Tensor

from sam2lite_core.model.bank import REJECTED, Bank

SAME_KEY, SAME_PLACE, SAME_SHARE = 0.4, 0.08, 0.2
"""How far apart two tokens that say the same may be in one respect: distance of unit keys (a cosine of .92), of places
as a share of the frame, difference of the objects' shares."""

UNCHANGED, STATIC = 0.6, 0.8
"""A token is found unchanged where the squares of its distances in key and place, each over its limit, sum to less than
the former; a scene is static where this share of all tokens, and of the anchors, is. Of the tokens kept from films in
which something moves 4 to 69 in 100 were found unchanged, 76 at most; of those kept from a picture that repeats with
noise of 4 grey levels 90 and more, but for one of fog and asphalt (74)."""

SPARSE, LIKE = 0.6, 0.9
"""A bank that holds less than the former share of what it could has a say only on cells whose keys have at least the
latter cosine with one of its own."""


def distances(bank: Bank, key: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """Compute half the squared distance of cells to tokens in key and place, each over its limit, (N, S', S).

    Args:
        bank: S tokens; free rows are far away.
        key: (N, S', 256) unit keys of the cells.
        x, y: (S',) their centres.
    """
    old = torch.cat([bank.key / SAME_KEY, bank.meta[..., :2] / SAME_PLACE], dim=-1)
    place = torch.stack([x, y], dim=-1).unsqueeze(0).expand(key.shape[0], -1, -1)
    new = torch.cat([key / SAME_KEY, place / SAME_PLACE], dim=-1)
    half_old = 0.5 * (old * old).sum(dim=-1) + (1.0 - bank.column("valid")) * -REJECTED
    half_new = 0.5 * (new * new).sum(dim=-1)
    # |a - b|^2 / 2 = |a|^2 / 2 + |b|^2 / 2 - a.b: one product.
    return half_new.unsqueeze(2) + half_old.unsqueeze(1) - new @ old.transpose(1, 2)


def repeats(bank: Bank, fresh: Bank, apart: Tensor) -> Tensor:
    """Find fresh tokens that repeat what the bank holds, (N, S') float 0 or 1 (ours; the paper has none).

    Args:
        bank: S kept tokens.
        fresh: S' tokens of this frame.
        apart: (N, S', S), from `distances`.
    """
    old, new = (some.identity * some.known / SAME_SHARE for some in (bank, fresh))
    half_old, half_new = (0.5 * (shares * shares).sum(dim=-1) for shares in (old, new))
    shares_apart = half_new.unsqueeze(2) + half_old.unsqueeze(1) - new @ old.transpose(1, 2)
    return ((apart + shares_apart).amin(dim=2) < 0.5).to(fresh.key.dtype)


def is_static(bank: Bank, apart: Tensor) -> Tensor:
    """Find scenes in which the bank's tokens, and each object's anchors, are where they were; (N,) float 0 or 1.

    Args:
        bank: S tokens; an empty bank is never static.
        apart: (N, S', S), from `distances`.
    """
    valid = bank.column("valid")
    unchanged = (apart.amin(dim=1) < 0.5 * UNCHANGED).to(valid.dtype) * valid
    count = valid.sum(dim=1)
    tokens = (count > 0.5) & (unchanged.sum(dim=1) >= STATIC * count)
    owner = (bank.column("owner") * valid).unsqueeze(2)
    slots = torch.cumsum(torch.ones_like(bank.identity[:, :1]), dim=2)
    owned = ((owner - slots).abs() < 0.5).to(valid.dtype)
    moved = (unchanged.unsqueeze(2) * owned).sum(dim=1) < STATIC * owned.sum(dim=1)
    return (tokens & (moved.to(valid.dtype).amax(dim=1) < 0.5)).to(valid.dtype)


def knows(bank: Bank, key: Tensor, static: Tensor, budget: Tensor) -> Tensor:
    """Find the cells of a frame for which memory can tell the object, (N, S') float 0 or 1.

    A full bank holds a token like every cell. Few tokens, or those of a static scene, speak only for cells like them.

    Args:
        bank: S tokens.
        key: (N, S', 256) unit keys of the cells.
        static: (N,) from `is_static`.
        budget: (N,) float, B.
    """
    valid = bank.column("valid")
    # Counted, since a shape would be written into an exported graph as a number.
    cells = torch.ones_like(key[:, :, 0]).sum(dim=1)
    few = valid.sum(dim=1) < SPARSE * torch.minimum(budget, cells)
    cosine = key @ bank.key.transpose(1, 2) + (valid.unsqueeze(1) - 1.0) * 2.0
    like = cosine.amax(dim=2) > LIKE
    return (like | ~((static > 0.5) | few).unsqueeze(1)).to(key.dtype)
