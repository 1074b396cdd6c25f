"""The bounded memory bank: what a token is, which tokens may be read, and which survive an update (design section 4).

Everything is batched over N clips so that training and the exported graphs run the same code; a robot has N = 1.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from sam2lite_core.variants import MAX_WINDOW

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
