"""Attention over tokens in bins that two models have in common."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from training.teachers import attention_bins as bins


@pytest.mark.parametrize(
    ("x", "y", "cell"), [(0.0, 0.0, 0), (0.13, 0.0, 1), (0.99, 0.0, 7), (0.0, 0.13, 8), (1.0, 1.0, 63), (0.5, 0.5, 36)]
)
def test_cell_of_a_place(x, y, cell):
    assert int(bins.cell_of(torch.tensor(x), torch.tensor(y))) == cell


def test_cells_of_a_patch_grid():
    assert bins.grid_cells(8, 8).tolist() == list(range(64))
    assert bins.grid_cells(16, 16).bincount().tolist() == [4] * 64
    assert bins.grid_cells(2, 3).tolist() == [17, 20, 22, 49, 52, 54]


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**31), st.integers(1, 4), st.integers(1, 9))
def test_binning_is_a_loop_of_sums(seed, frames, tokens):
    generator = torch.Generator().manual_seed(seed)
    attention = torch.rand(2, 3, tokens, generator=generator)
    source = torch.randint(frames, (2, tokens), generator=generator)
    cell = torch.randint(bins.CELLS, (2, tokens), generator=generator)
    expected = torch.zeros(2, 3, frames, bins.CELLS)
    for n in range(2):
        for s in range(tokens):
            expected[n, :, source[n, s], cell[n, s]] += attention[n, :, s]
    assert torch.allclose(bins.into_bins(attention, source, cell, frames), expected)
    held = torch.rand(2, tokens, generator=generator) > 0.5
    occupied = torch.zeros(2, frames, bins.CELLS, dtype=torch.bool)
    for n, s in held.nonzero().tolist():
        occupied[n, source[n, s], cell[n, s]] = True
    assert torch.equal(bins.occupied(held, source, cell, frames), occupied)


def test_queries_are_resampled_by_the_nearest_centre():
    fine = torch.arange(16.0).reshape(1, 16, 1)
    assert bins.resample_queries(fine, (4, 4), (2, 2)).flatten().tolist() == [5, 7, 13, 15]
    coarse = torch.arange(4.0).reshape(1, 4, 1)
    assert bins.resample_queries(coarse, (2, 2), (2, 4)).flatten().tolist() == [0, 0, 1, 1, 2, 2, 3, 3]
    assert bins.resample_queries(fine, (4, 4), (4, 4)) is fine
