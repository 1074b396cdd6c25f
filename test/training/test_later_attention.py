"""Which tokens are worth keeping, judged by what is read later."""

import pytest
import torch

from sam2lite_core.model import bank as memory
from training.objective.gate_targets import credit, keep_targets, oldest_duplicate


def bank(keys, places, births, shares):
    count = len(keys)
    out = memory.empty_bank(1, count, 2, 1)._replace(
        key=torch.tensor([keys], dtype=torch.float32),
        identity=torch.tensor(shares, dtype=torch.float32).reshape(1, count, 1),
    )
    x = torch.tensor([places], dtype=torch.float32)
    return out.with_columns(x=x, birth=torch.tensor([births], dtype=torch.float32))


@pytest.mark.parametrize(
    ("keys", "places", "births", "shares", "expected"),
    [
        ([[1, 0], [1, 0]], [0.1, 0.1], [0, 1], [1, 1], [0, 0]),
        ([[1, 0], [0, 1]], [0.1, 0.1], [0, 1], [1, 1], [0, 1]),  # another picture
        ([[1, 0], [1, 0]], [0.1, 0.9], [0, 1], [1, 1], [0, 1]),  # another place
        ([[1, 0], [1, 0]], [0.1, 0.1], [0, 1], [1, 0], [0, 1]),  # another object
        ([[1, 0], [1, 0]], [0.1, 0.1], [1, 0], [1, 1], [0, 1]),  # an older one that was written later is no original
    ],
)
def test_oldest_duplicate(keys, places, births, shares, expected):
    found = oldest_duplicate(bank(keys, places, births, shares), similarity=0.9, reach=0.2)
    assert found.tolist() == [expected]


def test_attention_to_duplicates_is_credited_to_the_oldest():
    attention = torch.tensor([[0.1, 0.2, 0.3, 0.4]])
    oldest = torch.tensor([[0, 0, 2, 0]])
    assert torch.allclose(credit(attention, oldest), torch.tensor([[0.7, 0.0, 0.3, 0.0]]))


@pytest.mark.parametrize(
    ("later", "valid", "budget", "expected"),
    [
        ([0.4, 0.3, 0.2, 0.1], [1, 1, 1, 1], 2, [1, 1, 0, 0]),
        ([0.4, 0.3, 0.2, 0.1], [1, 0, 1, 1], 2, [1, 0, 1, 0]),
        # Room for all, but a token that is hardly read is not worth its place.
        ([0.9, 0.09, 0.005, 0.005], [1, 1, 1, 1], 4, [1, 1, 0, 0]),
        ([0.0, 0.0, 0.0, 0.0], [1, 1, 1, 1], 2, [0, 0, 0, 0]),
    ],
)
def test_keep_targets(later, valid, budget, expected):
    kept = keep_targets(torch.tensor([later]), torch.tensor([valid]) > 0, budget, floor=0.1)
    assert kept.tolist() == [[float(v) for v in expected]]
