"""The bank as training sees it: forward what the robot does, backward what the gate needs to learn."""

import pytest
import torch
import torch.nn.functional as F

from sam2lite_core.model import memory
from sam2lite_core.model.student import Student
from sam2lite_core.variants import get_variant
from training import losses
from training.gated_memory import GatedMemory

TOKENS, WIDTH, BATCH = 24, 256, 2


def tokens(generator, frame=0, useful=None):
    """A frame's tokens; `useful` (N, S) marks some by their value's first channel."""
    key = F.normalize(torch.randn(BATCH, TOKENS, WIDTH, generator=generator), dim=-1)
    value = torch.randn(BATCH, TOKENS, WIDTH, generator=generator) * 0.1
    if useful is not None:
        value[..., 0] = useful * 4.0 - 2.0
    share = torch.rand(BATCH, TOKENS, 1, generator=generator)
    bank = memory.Bank(key, value, share, torch.ones_like(share), torch.zeros(BATCH, TOKENS, 9))
    birth = torch.full((BATCH, TOKENS), float(frame))
    return bank.with_columns(valid=torch.ones(BATCH, TOKENS), birth=birth)


def written(learned, budget=16, frames=3, prompted=True, seed=0):
    torch.manual_seed(seed)
    student = Student(get_variant("tiny")) if learned else None
    generator = torch.Generator().manual_seed(seed)
    remembered = GatedMemory(student, budget, 0.5, generator)
    for t in range(frames):
        remembered.begin_frame(torch.ones(BATCH, 1), WIDTH)
        fresh = tokens(generator, t)
        shown = torch.full((BATCH, 1), float(prompted and t == 0))
        remembered.write(fresh, fresh.identity, shown)
    return student, remembered


@pytest.mark.parametrize("learned", [False, True], ids=["chance", "gate"])
def test_never_more_than_the_budget_is_kept(learned):
    _, remembered = written(learned)
    kept = remembered.log_kept().exp() > 0.5
    assert kept.sum(1).max() <= 16
    assert kept.shape == (BATCH, 1 + 3 * TOKENS)


def test_what_was_dropped_stays_dropped():
    torch.manual_seed(0)
    generator = torch.Generator().manual_seed(0)
    remembered = GatedMemory(Student(get_variant("tiny")), 16, 0.5, generator)
    dropped = torch.zeros(BATCH, 0, dtype=torch.bool)
    for t in range(4):
        remembered.begin_frame(torch.ones(BATCH, 1), WIDTH)
        remembered.write(tokens(generator, t), torch.rand(BATCH, TOKENS, 1), torch.zeros(BATCH, 1))
        now = remembered.log_kept().exp() < 0.5
        assert not (dropped & ~now[:, : dropped.shape[1]]).any()
        dropped = now


def test_anchors_are_kept_and_take_half_of_the_budget():
    _, remembered = written(learned=True)
    bank = remembered.begin_frame(torch.ones(BATCH, 1), WIDTH)
    anchors = bank.column("owner") > 0.5
    assert (anchors.sum(1) == 8).all()
    assert (remembered.log_kept().exp()[anchors] > 0.5).all()


def test_a_dropped_token_weighs_nothing_forward_but_teaches_backward():
    student, remembered = written(learned=True)
    logits = remembered.log_kept()
    weights = torch.softmax(logits, dim=1)
    dropped = logits.exp() < 0.5
    assert weights[dropped].max() < 1e-4
    value = torch.where(dropped, torch.ones_like(weights), torch.zeros_like(weights))
    (weights * value).sum().backward()
    gradient = student.gate.layers[0].weight.grad
    assert gradient is not None and gradient.abs().sum() > 0


def test_an_empty_memory_is_read_like_any_other():
    remembered = GatedMemory(None, 8, 1.0, torch.Generator().manual_seed(0))
    bank = remembered.begin_frame(torch.ones(BATCH, 1), WIDTH)
    assert bank.key.shape == (BATCH, 1, WIDTH)
    assert not memory.readable(bank, torch.full((BATCH,), 8.0)).any()
    assert float(remembered.budget_loss()) == 0.0


def test_the_gate_learns_to_keep_what_matters():
    """A toy rule: later frames ask for the tokens whose value is marked. FIFO keeps others as gladly."""
    torch.manual_seed(1)
    student = Student(get_variant("tiny"))
    optimizer = torch.optim.Adam(student.gate.parameters(), lr=3e-3)
    generator = torch.Generator().manual_seed(1)

    def share_kept(learned):
        useful = (torch.rand(BATCH, TOKENS, generator=generator) < 0.25).float()
        remembered = GatedMemory(student if learned else None, 6, 0.5, generator)
        remembered.begin_frame(torch.ones(BATCH, 1), WIDTH)
        remembered.write(tokens(generator, 0, useful), torch.zeros(BATCH, TOKENS, 1), torch.zeros(BATCH, 1))
        weights = torch.softmax(remembered.log_kept(), dim=1)[:, 1:]
        return (weights * useful).sum(1).mean(), remembered.budget_loss()

    before = torch.stack([share_kept(False)[0] for _ in range(40)]).mean()
    for _ in range(150):
        found, spent = share_kept(True)
        optimizer.zero_grad()
        (spent * 0.1 - found).backward()
        optimizer.step()
    after = torch.stack([share_kept(True)[0].detach() for _ in range(40)]).mean()
    assert before < 0.45
    assert after > 0.75


def test_budget_loss_by_hand():
    expected = torch.tensor([15.0, 5.0])
    mean = torch.tensor([0.3, 0.1])
    # (15/10 - 1)^2 + .003 and 0 + .001, halved
    assert float(losses.budget_loss(expected, mean, 10)) == pytest.approx((0.253 + 0.001) / 2)
