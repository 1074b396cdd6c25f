"""Sum attention into bins (source frame, cell of an 8 x 8 grid), so that different tokens compare."""

import torch
from torch import Tensor

GRID = 8
"""Cells along each side of the frame."""

CELLS = GRID * GRID


def cell_of(x: Tensor, y: Tensor) -> Tensor:
    """Compute the index of the cell of a place, row by row, int64. x, y: same shape, 0..1 of width and height."""
    column, row = ((axis * GRID).long().clamp(0, GRID - 1) for axis in (x, y))
    return row * GRID + column


def grid_cells(rows: int, columns: int, device: torch.device | str = "cpu") -> Tensor:
    """Return the cell of every patch centre of a rows x columns grid, row by row, (rows * columns,) int64."""
    y, x = ((torch.arange(count, device=device) + 0.5) / count for count in (rows, columns))
    return cell_of(x.repeat(rows), y.repeat_interleave(columns))


def into_bins(attention: Tensor, source: Tensor, cell: Tensor, frames: int) -> Tensor:
    """Sum attention (N, P, S) over tokens into bins, (N, P, frames, CELLS) float32.

    Args:
        attention: of P queries over S tokens; tokens to leave out carry 0.
        source: (N, S) source frame of each token, 0..frames - 1.
        cell: (N, S) int64, its cell.
        frames: number of source frames T.
    """
    batch, queries, _ = attention.shape
    index = (source.long() * CELLS + cell).unsqueeze(1).expand(-1, queries, -1)
    out = torch.zeros(batch, queries, frames * CELLS, device=attention.device)
    # A half-precision sum of thousands would lose small weights.
    binned: Tensor = out.scatter_add(2, index, attention.float()).unflatten(2, (frames, CELLS))
    return binned


def occupied(held: Tensor, source: Tensor, cell: Tensor, frames: int) -> Tensor:
    """Find bins with at least one token, (N, T, CELLS) bool. held: (N, S) bool, the tokens that count."""
    return into_bins(held.float().unsqueeze(1), source, cell, frames).squeeze(1) > 0.5


def resample_queries(rows: Tensor, shape: tuple[int, int], wanted: tuple[int, int]) -> Tensor:
    """Resample rows (N, h * w, ...) to the grid `wanted` by the nearest centre; attentions must not be mixed."""
    if shape == wanted:
        return rows
    y, x = (
        ((torch.arange(new, device=rows.device) + 0.5) / new * old).long()
        for old, new in zip(shape, wanted, strict=True)
    )
    return rows[:, (y.unsqueeze(1) * shape[1] + x).flatten()]
