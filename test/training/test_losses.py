"""Losses on values that can be worked out by hand."""

import math

import pytest
import torch

from training import losses


def test_mask_cross_entropy_by_hand() -> None:
    relative = torch.tensor([[[[0.0, math.log(3.0)]]]])  # p = 1/2 and 3/4
    target = torch.tensor([[[[1.0, 1.0]]]])
    mean = (-math.log(0.5) - math.log(0.75)) / 2
    assert float(losses.mask_cross_entropy(relative, target, 1.0)) == pytest.approx(1.5 * mean, rel=1e-5)
    hardest = math.log(2.0)
    assert float(losses.mask_cross_entropy(relative, target, 0.5)) == pytest.approx(
        mean + 0.5 * hardest, rel=1e-5
    )


def test_soft_iou_by_hand() -> None:
    probability = torch.zeros(1, 2, 2, 2)
    target = torch.zeros(1, 2, 2, 2)
    probability[0, 0, 0], target[0, 0, :, 0] = 1.0, 1.0  # 1 px common, 3 px in the union
    loss = losses.soft_iou(probability, target, torch.tensor([[1.0, 0.0]]))
    assert float(loss) == pytest.approx(1 - 2 / 4)  # one pixel of smoothing above and below


@pytest.mark.parametrize("shift", [0, 1])
def test_edge_is_zero_only_for_the_true_boundary(shift: int) -> None:
    target = torch.zeros(1, 1, 8, 8)
    target[..., 2:6, 2:6] = 1.0
    loss = losses.edge(torch.roll(target, shift, -1), target, torch.ones(1, 1))
    assert (float(loss) == 0.0) == (shift == 0)


def test_correspondence_prefers_true_matches() -> None:
    key = torch.eye(4).reshape(1, 1, 4, 4).repeat(1, 2, 1, 1)
    places = torch.zeros(1, 2, 4, 3)
    places[0, :, :, 1] = torch.arange(4) * 100.0
    right = losses.correspondence(key, places, [(1, 0)])
    wrong = losses.correspondence(
        key[:, :, [0, 1, 2, 3]] * torch.tensor([1.0, -1.0]).view(1, 2, 1, 1), places, [(1, 0)]
    )
    assert float(right) == pytest.approx(math.log(1 + 3 * math.exp(-1 / 0.07)), abs=1e-5)
    assert float(wrong) > 10.0


def test_correspondence_ignores_patches_without_a_match() -> None:
    key = torch.nn.functional.normalize(
        torch.randn(1, 2, 4, 8, generator=torch.Generator().manual_seed(0)), dim=-1
    )
    places = torch.zeros(1, 2, 4, 3)
    places[0, 0, :, 0], places[0, 1, :, 0] = 0.0, 1.0  # another layer: nothing corresponds
    assert float(losses.correspondence(key, places, [(1, 0)])) == 0.0


def test_share_counts_only_where_memory_had_an_opinion() -> None:
    share = torch.tensor([[[[0.5, 0.5]]]])
    evidence = torch.tensor([[[[1.0, 0.0]]]])
    target = torch.tensor([[[[1.0, 0.0]]]])
    assert float(losses.share_loss(share, evidence, target)) == pytest.approx(math.log(2.0))


def test_presence_is_weighted_cross_entropy() -> None:
    logits = torch.tensor([[0.0, 100.0]])
    loss = losses.presence_loss(logits, torch.tensor([[1.0, 0.0]]), torch.tensor([[1.0, 0.0]]))
    assert float(loss) == pytest.approx(math.log(2.0))
