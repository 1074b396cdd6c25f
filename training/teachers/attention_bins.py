"""Bins in which attentions over different tokens compare: (source frame, cell of an 8 x 8 grid over the frame)."""

import torch
from torch import Tensor

GRID = 8
"""Cells along each side of the frame."""

CELLS = GRID * GRID


def cell_of(x: Tensor, y: Tensor) -> Tensor:
    """Index of the cell that holds a place, row by row, int64. x, y: same shape, 0..1 of width and height."""
    column = (x * GRID).long().clamp(0, GRID - 1)
    row = (y * GRID).long().clamp(0, GRID - 1)
    return row * GRID + column


def grid_cells(rows: int, columns: int, device: torch.device | str = "cpu") -> Tensor:
    """Return the cell of every patch centre of a rows x columns grid, row by row, (rows * columns,) int64."""
    y = (torch.arange(rows, device=device) + 0.5) / rows
    x = (torch.arange(columns, device=device) + 0.5) / columns
    return cell_of(x.repeat(rows), y.repeat_interleave(columns))


def into_bins(attention: Tensor, source: Tensor, cell: Tensor, frames: int) -> Tensor:
    """Sum attention over tokens into bins.

    Args:
        attention: (N, P, S) of P queries over S tokens; tokens to leave out carry 0.
        source: (N, S) frame that each token came from, 0..frames - 1.
        cell: (N, S) int64, its cell.
        frames: number of source frames T.

    Returns:
        (N, P, T, CELLS) float32.
    """
    batch, queries, _ = attention.shape
    index = (source.long() * CELLS + cell).unsqueeze(1).expand(-1, queries, -1)
    out = torch.zeros(batch, queries, frames * CELLS, device=attention.device)
    # Sums of thousands of weights: a half-precision sum would lose the small ones.
    binned: Tensor = out.scatter_add(2, index, attention.float()).unflatten(2, (frames, CELLS))
    return binned


def occupied(held: Tensor, source: Tensor, cell: Tensor, frames: int) -> Tensor:
    """Bins in which at least one token lies, (N, T, CELLS) bool. held: (N, S) bool, the tokens that count."""
    return into_bins(held.float().unsqueeze(1), source, cell, frames).squeeze(1) > 0.5


def resample_queries(rows: Tensor, shape: tuple[int, int], wanted: tuple[int, int]) -> Tensor:
    """Bring what is known per query of one grid to the queries of another, by the nearest centre.

    Nearest, not interpolated: a mixture of two queries' attentions is nobody's attention.

    Args:
        rows: (N, h * w, ...).
        shape: (h, w) of the grid that it has.
        wanted: (h', w').

    Returns:
        (N, h' * w', ...).
    """
    if shape == wanted:
        return rows
    device = rows.device
    y = ((torch.arange(wanted[0], device=device) + 0.5) / wanted[0] * shape[0]).long()
    x = ((torch.arange(wanted[1], device=device) + 0.5) / wanted[1] * shape[1]).long()
    return rows[:, (y.unsqueeze(1) * shape[1] + x).flatten()]
