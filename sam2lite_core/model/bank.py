"""The bounded memory bank: its tokens, their ageing, and which may be read (design section 4).

Everything is batched over N clips so that training and the exported graphs run the same code; a robot has N = 1.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from sam2lite_core.graph_io import META
from sam2lite_core.variants import MAX_WINDOW

REJECTED = -1e4  # not -inf: an empty bank would give NaN, and fp16 engines overflow


class Bank(NamedTuple):
    """S memory tokens of N clips, some of which may be free rows.

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
        """Return one column of `meta`, (N, S)."""
        return self.meta[..., META.index(name)]

    def gather(self, index: Tensor) -> "Bank":
        """Pick rows. index: (N, S') int64."""
        batch, count = self.key.shape[:2]
        # Rows of one long table: runtimes copy whole rows, where a gather along an axis goes number by number.
        start = torch.arange(batch, device=index.device).unsqueeze(1) * count
        rows = (index + start).flatten()

        def pick(tensor: Tensor) -> Tensor:
            flat = tensor.reshape(-1, tensor.shape[-1])
            return torch.index_select(flat, 0, rows).reshape(batch, -1, tensor.shape[-1])

        return Bank(*(pick(tensor) for tensor in self))

    def with_columns(self, **columns: Tensor) -> "Bank":
        """Copy with some of the meta columns replaced by (N, S) tensors."""
        parts = [columns.get(name, self.meta[..., i]) for i, name in enumerate(META)]
        return self._replace(meta=torch.stack(parts, dim=-1))


def empty_bank(batch: int, capacity: int, width: int, objects: int, device: torch.device | str = "cpu") -> Bank:
    """Make a bank of S = capacity free rows."""
    shape = (batch, capacity)
    return Bank(
        torch.zeros(*shape, width, device=device),
        torch.zeros(*shape, width, device=device),
        torch.zeros(*shape, objects, device=device),
        torch.zeros(*shape, objects, device=device),
        torch.zeros(*shape, len(META), device=device),
    )


def concat(first: Bank, second: Bank) -> Bank:
    """Join the rows of both banks, (N, S1 + S2, ...)."""
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
    """Find the tokens that this frame may read, (N, S) bool: younger than W (N,), promoted at 8 frames, or anchors."""
    age = bank.column("age")
    recent = age <= window.unsqueeze(1)
    promoted = age > float(MAX_WINDOW)
    anchor = bank.column("owner") > 0.5
    return (bank.column("valid") > 0.5) & (recent | promoted | anchor)
