"""The bank as training sees it: forward what the robot does, backward what the gate needs to learn."""

import math

import pytest
import torch
import torch.nn.functional as F

from sam2lite_core.errors import ConfigurationError
from sam2lite_core.graph_io import META, POLICIES
from sam2lite_core.model import bank as memory
from sam2lite_core.model import retention
from sam2lite_core.model.step import Candidates, Memory, UnboundedMemory
from sam2lite_core.model.student import Student
from sam2lite_core.variants import get_variant
from training.config.objective import KeepConfig
from training.objective import losses
from training.objective.gated_bank import GatedMemory
from training.objective.selection import LEARNED, Chance, ChanceMemory

TOKENS, WIDTH, BATCH = 24, 256, 2


def tokens(generator, frame=0, useful=None):
    """A frame's tokens; `useful` (N, S) marks some by their value's first channel."""
    key = F.normalize(torch.randn(BATCH, TOKENS, WIDTH, generator=generator), dim=-1)
    value = torch.randn(BATCH, TOKENS, WIDTH, generator=generator) * 0.1
    if useful is not None:
        value[..., 0] = useful * 4.0 - 2.0
    share = torch.rand(BATCH, TOKENS, 1, generator=generator)
    bank = memory.Bank(key, value, share, torch.ones_like(share), torch.zeros(BATCH, TOKENS, len(META)))
    birth = torch.full((BATCH, TOKENS), float(frame))
    x = ((torch.arange(TOKENS) + 0.5) / TOKENS).expand(BATCH, -1)
    draw = torch.rand(BATCH, TOKENS, generator=generator)
    return bank.with_columns(x=x, y=x, valid=torch.ones(BATCH, TOKENS), birth=birth, draw=draw)


class Bench:
    """Feeds tokens to a memory as `model.step.step` does, without images."""

    def __init__(self, remembered: Memory, student=None, budget=16, policy="learned"):
        self.memory, self.student, self.budget = remembered, student, budget
        capacity = 1 if remembered.grows else budget
        self.bank = memory.empty_bank(BATCH, capacity, WIDTH, 1)
        self.policy = F.one_hot(torch.tensor([POLICIES.index(policy)] * BATCH), len(POLICIES)).float()

    def begin_frame(self):
        self.bank = memory.begin_frame(self.bank, torch.ones(BATCH, 1))
        return self.bank

    def write(self, fresh, affinity, prompted):
        old = self.bank.key.shape[1]
        both = memory.concat(self.bank, fresh)
        budget = torch.full((BATCH,), float(self.budget))
        if prompted.any():
            both = retention.anchor_quota(both, F.pad(affinity, (0, 0, old, 0)), budget, prompted)
        nothing = torch.zeros(both.key.shape[:2])
        frame = fresh.column("birth")[:, 0]
        given = Candidates(both, old, nothing, frame, self.policy, budget)
        self.bank = self.memory.select(self.student, given)


def written(rule="straight_through", budget=16, frames=3, prompted=True, seed=0):
    """A memory after some frames: the gate's, a robot's with a fixed policy, or one that forgets nothing."""
    torch.manual_seed(seed)
    student = Student(get_variant("tiny"))
    generator = torch.Generator().manual_seed(seed)
    remembered, policy = Memory(), rule
    if rule in LEARNED:
        remembered, policy = GatedMemory(budget, 0.5, generator, rule), "learned"
    elif rule == "unbounded":
        remembered, policy = UnboundedMemory(), "fifo"
    elif rule == "chance":
        remembered, policy = ChanceMemory(Chance.drawn(BATCH, generator)), "random"
    bench = Bench(remembered, student, budget, policy)
    for t in range(frames):
        bench.begin_frame()
        fresh = tokens(generator, t)
        bench.write(fresh, fresh.identity, torch.full((BATCH, 1), float(prompted and t == 0)))
    return bench


@pytest.mark.parametrize("rule", ["chance", *LEARNED, "fifo", "random"])
def test_never_more_than_the_budget_is_kept(rule):
    bench = written(rule)
    kept = bench.memory.held(bench.bank).column("valid") > 0.5
    assert kept.sum(1).max() <= 16
    # What the gate dropped stays in sight of the gradient; what a rule dropped is gone, as on a robot.
    assert kept.shape == (BATCH, 1 + 3 * TOKENS if rule in LEARNED else 16)


def test_what_was_dropped_stays_dropped():
    torch.manual_seed(0)
    generator = torch.Generator().manual_seed(0)
    remembered = GatedMemory(16, 0.5, generator)
    bench = Bench(remembered, Student(get_variant("tiny")))
    dropped = torch.zeros(BATCH, 0, dtype=torch.bool)
    for t in range(4):
        bench.begin_frame()
        bench.write(tokens(generator, t), torch.rand(BATCH, TOKENS, 1), torch.zeros(BATCH, 1))
        now = remembered.log_kept().exp() < 0.5
        assert not (dropped & ~now[:, : dropped.shape[1]]).any()
        dropped = now


def test_anchors_of_one_object_are_kept_and_take_a_quarter_of_the_budget():
    bench = written()
    bank, remembered = bench.begin_frame(), bench.memory
    anchors = bank.column("owner") > 0.5
    assert (anchors.sum(1) == 4).all()
    assert (remembered.log_kept().exp()[anchors] > 0.5).all()


@pytest.mark.parametrize("rule", LEARNED)
def test_a_dropped_token_weighs_nothing_forward_but_teaches_backward(rule):
    bench = written(rule)
    student, remembered = bench.student, bench.memory
    logits = remembered.log_kept()
    weights = torch.softmax(logits, dim=1)
    dropped = ~remembered.kept()
    assert weights[dropped].max() < 1e-4
    value = torch.where(dropped, torch.ones_like(weights), torch.zeros_like(weights))
    (weights * value).sum().backward()
    gradient = student.gate.layers[0].weight.grad
    assert gradient is not None and gradient.abs().sum() > 0


def test_an_empty_memory_is_read_like_any_other():
    remembered = GatedMemory(8, 1.0, torch.Generator().manual_seed(0))
    bank = Bench(remembered, None, 8).begin_frame()
    assert bank.key.shape == (BATCH, 1, WIDTH)
    assert not memory.readable(bank, torch.full((BATCH,), 8.0)).any()
    assert float(remembered.budget_loss()) == 0.0


def test_what_each_fixed_rule_keeps():
    births = {}
    for rule in ("fifo", "random", "unbounded"):
        bank = written(rule, prompted=False).begin_frame()
        kept = bank.column("valid") > 0.5
        births[rule] = [row[mask] for row, mask in zip(bank.column("birth"), kept, strict=True)]
    assert all(torch.equal(row, torch.full((16,), 2.0)) for row in births["fifo"])
    assert all(len(row) == 16 and len(row.unique()) > 1 for row in births["random"])
    every = torch.arange(3.0).repeat_interleave(TOKENS)
    assert all(torch.equal(row.sort().values, every) for row in births["unbounded"])


def test_a_rules_bank_is_the_robots_bank():
    """Frame by frame the same tokens, gathered, as `retention.select` keeps of the same scores."""
    generator = torch.Generator().manual_seed(5)
    bench = Bench(Memory(), Student(get_variant("tiny")), 16, "fifo")
    bank = memory.empty_bank(BATCH, 16, WIDTH, 1)
    for t in range(4):
        active, shown = torch.ones(BATCH, 1), torch.full((BATCH, 1), float(t == 1))
        bench.begin_frame()
        fresh = tokens(generator, t)
        bench.write(fresh, fresh.identity, shown)
        both = memory.concat(memory.begin_frame(bank, active), fresh)
        budget = torch.full((BATCH,), 16.0)
        if t == 1:
            both = retention.anchor_quota(both, F.pad(fresh.identity, (0, 0, 16, 0)), budget, shown)
        nothing = torch.zeros(both.key.shape[:2])
        frame = fresh.column("birth")[:, 0]
        score = retention.policy_scores(both, nothing, frame, bench.policy, nothing)
        bank = retention.select(both, score, 16, budget)
    theirs = memory.begin_frame(bank, torch.ones(BATCH, 1))
    for mine, robots in zip(bench.begin_frame().meta, theirs.meta, strict=True):
        assert {tuple(row) for row in mine.tolist()} == {tuple(row) for row in robots.tolist()}


def test_an_unknown_rule_is_refused():
    with pytest.raises(ConfigurationError, match="straight_through, log_probability, softmax"):
        GatedMemory(8, 1.0, torch.Generator(), "gumbel")


def test_log_probability_weighs_kept_tokens_by_their_probability():
    """The noise can be drawn again: p = sigmoid((s + noise) / tau), and log p is what the logits get."""
    torch.manual_seed(0)
    student = Student(get_variant("tiny"))
    remembered = GatedMemory(64, 0.5, torch.Generator().manual_seed(3), "log_probability")
    bench = Bench(remembered, student, 64)
    bench.begin_frame()
    fresh = tokens(torch.Generator().manual_seed(1))
    bench.write(fresh, fresh.identity, torch.zeros(BATCH, 1))
    generator = torch.Generator().manual_seed(3)
    torch.rand(2, generator=generator)  # the rule of chance
    shifted = fresh.column("draw") + torch.rand(BATCH, 1, generator=generator)
    noise = torch.logit(torch.remainder(shifted, 1.0).clamp(1e-6, 1.0 - 1e-6))
    probability = torch.sigmoid((student.gate_scores(fresh) + noise) / 0.5)
    expected = torch.where(probability > 0.5, probability, torch.zeros(()))
    assert torch.allclose(remembered.log_kept()[:, 1:].exp(), expected + 1e-4, atol=1e-5)
    assert torch.equal(remembered.kept()[:, 1:], probability > 0.5)


def test_the_papers_softmax_fills_its_budget_and_is_never_told_of_it():
    bench = written("softmax", prompted=False)
    student, remembered = bench.student, bench.memory
    assert remembered.kept().sum(1).tolist() == [16, 16]
    loss = remembered.budget_loss()
    # No frame exceeds B: what is left of equation 10 is .01 times the sum of the scores.
    assert abs(float(loss.detach())) < 0.01 * 10 * 3 * TOKENS
    loss.backward()
    assert student.gate.layers[0].weight.grad.abs().sum() > 0


TOY = [*LEARNED, "supervised"]


@pytest.mark.parametrize("rule", TOY)
def test_the_gate_learns_to_keep_what_matters(rule):
    """A toy rule: later frames ask for the tokens whose value is marked. The newest are no better than others."""
    torch.manual_seed(1)
    student = Student(get_variant("tiny"))
    optimizer = torch.optim.Adam(student.gate.parameters(), lr=3e-3)
    generator = torch.Generator().manual_seed(1)

    def share_kept(name):
        useful = (torch.rand(BATCH, 2 * TOKENS, generator=generator) < 0.125).float()
        supervised = name == "supervised"
        keep = KeepConfig() if supervised else None
        remembered, policy = Memory(), name
        if name != "fifo":
            learned = "straight_through" if supervised else name
            remembered, policy = GatedMemory(6, 0.5, generator, learned, keep), "learned"
        bench = Bench(remembered, student, 6, policy)
        for t in range(2):
            bench.begin_frame()
            marks = useful[:, t * TOKENS : (t + 1) * TOKENS]
            fresh = tokens(generator, t, marks)
            bench.write(fresh, fresh.identity * 0.0, torch.zeros(BATCH, 1))
            if supervised:
                wanted = F.pad(useful[:, : (t + 1) * TOKENS], (1, 0))
                remembered.watch((wanted * 20.0 - 10.0).unsqueeze(1))
        bank = bench.begin_frame()
        weights = bank.column("valid") / bank.column("valid").sum(1, keepdim=True)
        if name != "fifo":
            weights = torch.softmax(remembered.log_kept(), dim=1)
        found = (weights * (bank.value[..., 0] > 0.0)).sum(1).mean()
        if supervised:
            return found.detach(), remembered.supervision_loss()
        return found, 0.0 if name == "fifo" else remembered.budget_loss() * 0.1 - found

    newest = torch.stack([share_kept("fifo")[0] for _ in range(40)]).mean()
    for _ in range(150):
        _, loss = share_kept(rule)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    learned = torch.stack([share_kept(rule)[0].detach() for _ in range(40)]).mean()
    assert newest < 0.25
    assert learned > 2.0 * newest + 0.1


def test_a_static_clip_is_worth_few_tokens():
    """What repeats itself is credited to the oldest token: the gate learns to spend nothing on later copies of it."""
    torch.manual_seed(2)
    student = Student(get_variant("tiny"))
    optimizer = torch.optim.Adam(student.gate.parameters(), lr=3e-3)
    generator = torch.Generator().manual_seed(2)

    def run(static):
        """Four frames; each is read by its successor, which in a static clip asks for the same again."""
        remembered = GatedMemory(4 * TOKENS, 0.2, generator, supervision=KeepConfig())
        bench = Bench(remembered, student, 4 * TOKENS)
        first = tokens(generator)
        for t in range(4):
            fresh = first if static else tokens(generator, t)
            birth = torch.full((BATCH, TOKENS), float(t))
            fresh = fresh.with_columns(birth=birth, motion=torch.full((BATCH, TOKENS), 0.0 if static else 1.0))
            bank = bench.begin_frame()
            if t > 0:
                previous = bank.key[:, -TOKENS:]
                remembered.watch(14.0 * previous @ bank.key.transpose(1, 2))
            bench.write(fresh, fresh.identity, torch.full((BATCH, 1), float(t == 0)))
        return remembered

    for _ in range(80):
        loss = sum(run(static).supervision_loss() for static in (True, False))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    used = {
        static: torch.stack([run(static).kept().float().sum(1).mean() for _ in range(5)]).mean()
        for static in (True, False)
    }
    # The prompt frame's anchors, a quarter of the budget, stay in both; they are all that a static clip needs.
    assert used[True] < TOKENS + 4
    assert used[False] > 2 * TOKENS - 4


def test_supervision_by_hand():
    """A gate whose scores are all 1; two frames of two tokens, each read by its successor: only the first token is."""
    student = Student(get_variant("tiny"))
    torch.nn.init.zeros_(student.gate.layers[-1].weight)
    torch.nn.init.ones_(student.gate.layers[-1].bias)
    generator = torch.Generator().manual_seed(0)
    remembered = GatedMemory(1, 0.5, generator, supervision=KeepConfig())
    bench = Bench(remembered, student, 1)
    for t in range(3):
        bank = bench.begin_frame()
        logits = torch.full((BATCH, 1, bank.key.shape[1]), -1e4)
        logits[..., min(1, t)] = 0.0
        remembered.watch(logits)
        fresh = memory.Bank(*(tensor[:, :2] for tensor in tokens(generator, t)))
        bench.write(fresh, fresh.identity, torch.zeros(BATCH, 1))
    wanted, useless = (-math.log(torch.sigmoid(torch.tensor(1.0))), -math.log(torch.sigmoid(torch.tensor(-1.0))))
    # Wanted and useless tokens weigh one half each, at both decisions that a reading followed.
    assert float(remembered.supervision_loss().detach()) == pytest.approx((wanted + useless) / 2, rel=1e-5)


def test_budget_loss_by_hand():
    expected = torch.tensor([15.0, 5.0])
    mean = torch.tensor([0.3, 0.1])
    # (15/10 - 1)^2 + .003 and 0 + .001, halved
    assert float(losses.budget_loss(expected, mean, 10)) == pytest.approx((0.253 + 0.001) / 2)
