"""Losses on values that can be worked out by hand."""

import math

import pytest
import torch

from training.objective import losses


def test_mask_cross_entropy_by_hand() -> None:
    relative = torch.tensor([[[[0.0, math.log(3.0)]]]])  # p = 1/2 and 3/4
    target = torch.tensor([[[[1.0, 1.0]]]])
    mean = (-math.log(0.5) - math.log(0.75)) / 2
    assert float(losses.mask_cross_entropy(relative, target, 1.0)) == pytest.approx(1.5 * mean, rel=1e-5)
    hardest = math.log(2.0)
    assert float(losses.mask_cross_entropy(relative, target, 0.5)) == pytest.approx(mean + 0.5 * hardest, rel=1e-5)


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
    key = torch.nn.functional.normalize(torch.randn(1, 2, 4, 8, generator=torch.Generator().manual_seed(0)), dim=-1)
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


def test_correspondence_says_nothing_where_places_are_unknown() -> None:
    key = torch.eye(4).reshape(1, 1, 4, 4).repeat(1, 2, 1, 1).requires_grad_()
    places = torch.zeros(1, 2, 4, 3)
    places[..., 0] = -1.0
    loss = losses.correspondence(key, places, [(1, 0)])
    loss.backward()
    assert float(loss.detach()) == 0.0 and key.grad is not None and not key.grad.any()


def divergence(ours: list[float], theirs: list[float]) -> float:
    """KL of two distributions after both got epsilon in every bin."""
    small = losses.ATTENTION_EPSILON
    total = 1.0 + small * len(ours)
    pairs = [((s + small) / total, (t + small) / total) for s, t in zip(ours, theirs, strict=True)]
    return sum(s * math.log(s / t) for s, t in pairs)


@pytest.mark.parametrize(
    ("student", "teacher", "common", "expected", "lost"),
    [
        ([0.5, 0.5, 0.0], [0.5, 0.5, 0.0], [1, 1, 1], 0.0, 0.0),
        # The bin that only the teacher holds is left out of both, and what it held is lost.
        ([0.5, 0.5, 0.0], [0.3, 0.3, 0.4], [1, 1, 0], 0.0, 0.4),
        ([0.8, 0.2, 0.0], [0.5, 0.5, 0.0], [1, 1, 0], divergence([0.8, 0.2], [0.5, 0.5]), 0.0),
        # The student looks where the teacher never does.
        ([0.0, 1.0, 0.0], [1.0, 0.0, 0.0], [1, 1, 0], divergence([0.0, 1.0], [1.0, 0.0]), 0.0),
        # Renormalised on both sides: 1/4 and 3/4 against 1/2 and 1/2.
        ([0.2, 0.6, 0.2], [0.4, 0.4, 0.2], [1, 1, 0], divergence([0.25, 0.75], [0.5, 0.5]), 0.2),
        # Less of the teacher in common than counts.
        ([0.5, 0.5, 0.0], [0.02, 0.0, 0.98], [1, 1, 0], 0.0, 0.98),
    ],
)
def test_attention_by_hand(
    student: list[float], teacher: list[float], common: list[int], expected: float, lost: float
) -> None:
    loss, gone = losses.attention(
        torch.tensor([[student]]),
        torch.tensor([[teacher]]),
        torch.tensor([common]) > 0,
        torch.ones(1, 1, dtype=torch.bool),
    )
    assert float(loss) == pytest.approx(expected, abs=1e-6)
    assert float(gone) == pytest.approx(lost, abs=1e-6)


def test_attention_counts_only_queries_that_the_teacher_speaks_of() -> None:
    student = torch.tensor([[[0.8, 0.2], [0.1, 0.9]]])
    teacher = torch.tensor([[[0.5, 0.5], [0.0, 0.0]]])
    common = torch.ones(1, 2, dtype=torch.bool)
    loss, lost = losses.attention(student, teacher, common, torch.tensor([[True, False]]))
    assert float(loss) == pytest.approx(divergence([0.8, 0.2], [0.5, 0.5]), abs=1e-6)
    assert float(lost) == pytest.approx(0.0, abs=1e-6)
    nothing, _ = losses.attention(student, teacher, common, torch.tensor([[False, False]]))
    assert float(nothing) == 0.0


def test_attention_pulls_the_student_towards_the_teacher() -> None:
    logits = torch.zeros(1, 1, 3, requires_grad=True)
    teacher = torch.tensor([[[0.7, 0.2, 0.1]]])
    common = torch.ones(1, 3, dtype=torch.bool)
    known = torch.ones(1, 1, dtype=torch.bool)
    for _ in range(400):
        loss, _ = losses.attention(torch.softmax(logits, -1), teacher, common, known)
        (gradient,) = torch.autograd.grad(loss, logits)
        logits = (logits - gradient).detach().requires_grad_()
    assert torch.allclose(torch.softmax(logits, -1), teacher, atol=2e-3)


def test_readout_by_hand() -> None:
    ours = torch.tensor([[[1.0, 0.0], [5.0, 5.0]]])
    theirs = torch.tensor([[[3.0, 4.0], [0.0, 0.0]]])
    loss = losses.readout(ours, theirs, torch.tensor([[True, False]]))
    assert float(loss) == pytest.approx((4 + 16) / 25)
    assert float(losses.readout(ours * 0, theirs, torch.tensor([[True, False]]))) == pytest.approx(1.0)


def test_output_by_hand() -> None:
    ours = torch.tensor([[[[0.5, 1.0]], [[1.0, 1.0]]]])
    theirs = torch.tensor([[[[0.0, 1.0]], [[0.0, 0.0]]]])
    assert float(losses.output(ours, theirs, torch.tensor([[1.0, 0.0]]))) == pytest.approx(0.125)


def test_the_papers_budget_loss_by_hand() -> None:
    kept = torch.tensor([[1.0, 1.0, 1.0, 0.0], [1.0, 0.0, 0.0, 0.0]])
    score = torch.tensor([[2.0, 1.0, 1.0, -4.0], [3.0, -1.0, 0.0, 0.0]], requires_grad=True)
    loss = losses.budget_loss_on_masks(kept, score, 1)
    # (3 - 1)^2 + 0 and 0 + .01 * 2, halved
    assert float(loss.detach()) == pytest.approx((4.0 + 0.02) / 2)
    loss.backward()
    assert score.grad is not None and torch.allclose(score.grad, torch.full_like(score, 0.005))


def test_gate_supervision_by_hand() -> None:
    score = torch.tensor([[0.0, 0.0, 0.0, 100.0]])
    target = torch.tensor([[1.0, 0.0, 0.0, 0.0]])
    counted = torch.tensor([[1.0, 1.0, 1.0, 0.0]])
    # One wanted and two useless tokens weigh the same, each log 2.
    assert float(losses.gate_supervision(score, target, counted)) == pytest.approx(math.log(2.0))
