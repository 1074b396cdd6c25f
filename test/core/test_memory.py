"""The memory bank's promises, as properties over random banks."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sam2lite_core.graph_io import POLICIES
from sam2lite_core.model import bank as memory
from sam2lite_core.model import redundancy, retention
from sam2lite_core.model.bank import META, Bank
from sam2lite_core.model.gate import SCORE_LIMIT

WIDTH, OBJECTS = 8, 4


def random_bank(seed: int, slots: int, fill: float = 0.8, batch: int = 1) -> Bank:
    """A bank with random contents; about `fill` of its slots valid, the others zero."""
    generator = torch.Generator().manual_seed(seed)

    def rand(*shape: int) -> torch.Tensor:
        return torch.rand(shape, generator=generator)

    valid = (rand(batch, slots) < fill).float()
    owner = torch.floor(rand(batch, slots) * (OBJECTS + 1)) * (rand(batch, slots) < 0.4)
    age = torch.floor(rand(batch, slots) * 40)
    columns = {
        "x": rand(batch, slots),
        "y": rand(batch, slots),
        "age": age,
        "motion": rand(batch, slots),
        "uncertainty": rand(batch, slots),
        "valid": torch.ones(batch, slots),
        "owner": owner,
        "birth": 100 - age,
        "affinity": rand(batch, slots) * (owner > 0),
        "draw": torch.full((batch, slots), 0.5),
    }
    meta = torch.stack([columns[name] for name in META], dim=-1)
    flag = valid.unsqueeze(-1)
    shape = (batch, slots)
    known = (rand(*shape, OBJECTS) < 0.7).float()
    return Bank(
        rand(*shape, WIDTH) * flag,
        rand(*shape, WIDTH) * flag,
        rand(*shape, OBJECTS) * known * flag,
        known * flag,
        meta * flag,
    )


def one_hot(policy: str) -> torch.Tensor:
    return torch.eye(len(POLICIES))[[POLICIES.index(policy)]]


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 10_000), slots=st.integers(8, 64), share=st.floats(0.1, 1.0), policy=st.sampled_from(POLICIES)
)
def test_select_never_exceeds_the_budget_and_leaves_free_slots_empty(
    seed: int, slots: int, share: float, policy: str
) -> None:
    bank = random_bank(seed, slots + 32)
    budget = torch.tensor([float(max(1, int(slots * share)))])
    gate = torch.randn(1, slots + 32, generator=torch.Generator().manual_seed(seed)) * 3
    score = retention.policy_scores(bank, gate, torch.tensor([100.0]), one_hot(policy), torch.zeros_like(gate))
    kept = retention.select(bank, score, slots, budget)
    assert kept.key.shape == (1, slots, WIDTH)
    valid = kept.column("valid") > 0.5
    assert valid.sum() <= budget.sum()
    for tensor in kept:
        assert not tensor[~valid].any()


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10_000), policy=st.sampled_from(POLICIES))
def test_anchors_survive_whatever_the_policy_thinks(seed: int, policy: str) -> None:
    bank = random_bank(seed, 120)
    anchors = int((bank.column("owner") > 0.5).sum())
    room = max(anchors, 1)  # no more room than the anchors need: every other token has to go
    bank = bank.with_columns(draw=torch.ones(1, 120))
    gate = torch.full((1, 120), SCORE_LIMIT)
    score = retention.policy_scores(bank, gate, torch.tensor([100.0]), one_hot(policy), torch.zeros_like(gate))
    kept = retention.select(bank, score, room, torch.tensor([float(room)]))
    assert int((kept.column("owner") > 0.5).sum()) == anchors


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 10_000), prompted=st.sets(st.integers(0, OBJECTS - 1), min_size=1), budget=st.integers(8, 60)
)
def test_anchors_take_a_quarter_of_the_budget_each_and_half_together_at_most(
    seed: int, prompted: set[int], budget: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    old = random_bank(seed, 20)
    old = old.with_columns(owner=torch.zeros(1, 20))
    fresh = random_bank(seed + 1, 80, fill=1.1)
    fresh = fresh.with_columns(age=torch.zeros(1, 80), owner=torch.zeros(1, 80))
    flags = torch.zeros(1, OBJECTS)
    flags[0, list(prompted)] = 1.0
    affinity = torch.cat([torch.zeros(1, 20, OBJECTS), torch.rand(1, 80, OBJECTS, generator=generator) + 0.01], dim=1)
    both = retention.anchor_quota(memory.concat(old, fresh), affinity, torch.tensor([float(budget)]), flags)
    owners = both.column("owner")[0]
    assert not owners[:20].any()
    counts = {slot: int((owners == slot + 1).sum()) for slot in range(OBJECTS)}
    assert sum(counts.values()) <= budget / 2
    quota = min(budget // 4, budget // 2 // len(prompted))
    for slot in range(OBJECTS):
        wanted = int((affinity[0, 20:].mul(flags).argmax(-1) == slot).sum()) if slot in prompted else 0
        assert counts[slot] == min(quota, wanted)


def test_best_anchors_are_those_of_highest_affinity() -> None:
    fresh = random_bank(3, 30, fill=1.1).with_columns(age=torch.zeros(1, 30), owner=torch.zeros(1, 30))
    affinity = torch.zeros(1, 30, OBJECTS)
    affinity[0, :, 2] = torch.linspace(0.1, 1.0, 30)
    flags = torch.tensor([[0.0, 0.0, 1.0, 0.0]])
    owners = retention.anchor_quota(fresh, affinity, torch.tensor([40.0]), flags).column("owner")[0]
    assert owners.tolist() == [0.0] * 20 + [3.0] * 10


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10_000), window=st.integers(2, 8))
def test_window_hides_recent_tokens_only(seed: int, window: int) -> None:
    bank = random_bank(seed, 50)
    allowed = memory.readable(bank, torch.tensor([float(window)]))[0]
    for index in range(50):
        valid = bank.column("valid")[0, index] > 0.5
        age, owner = float(bank.column("age")[0, index]), float(bank.column("owner")[0, index])
        assert bool(allowed[index]) == bool(valid and (age <= window or age > 8 or owner > 0))


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10_000), removed=st.sets(st.integers(0, OBJECTS - 1)))
def test_removed_objects_leave_no_identity_and_no_anchors(seed: int, removed: set[int]) -> None:
    active = torch.ones(1, OBJECTS)
    active[0, list(removed)] = 0.0
    before = random_bank(seed, 40)
    after = memory.begin_frame(before, active)
    for slot in range(OBJECTS):
        gone = slot in removed
        assert bool(after.identity[0, :, slot].any()) == (bool(before.identity[0, :, slot].any()) and not gone)
        assert bool(after.known[0, :, slot].any()) == (bool(before.known[0, :, slot].any()) and not gone)
        owners = before.column("owner")[0] == slot + 1
        assert torch.equal(after.column("owner")[0][owners], before.column("owner")[0][owners] * (not gone))


def test_begin_frame_ages_valid_tokens_only() -> None:
    bank = random_bank(5, 40, fill=0.5)
    after = memory.begin_frame(bank, torch.ones(1, OBJECTS))
    assert torch.equal(after.column("age"), bank.column("age") + bank.column("valid"))


def births_after(policy: str, frames: int, per_frame: int, slots: int) -> torch.Tensor:
    """Run the bank over frames that write `per_frame` tokens each; birth frames of the tokens that are left."""
    generator = torch.Generator().manual_seed(0)
    bank = memory.empty_bank(1, slots, WIDTH, OBJECTS)
    for frame in range(frames):
        bank = memory.begin_frame(bank, torch.ones(1, OBJECTS))
        fresh = memory.empty_bank(1, per_frame, WIDTH, OBJECTS).with_columns(
            valid=torch.ones(1, per_frame),
            birth=torch.full((1, per_frame), float(frame)),
            x=torch.rand(1, per_frame, generator=generator),
            y=torch.rand(1, per_frame, generator=generator),
        )
        both = memory.concat(bank, fresh)
        gate = torch.zeros(1, slots + per_frame)
        score = retention.policy_scores(
            both, gate, torch.tensor([float(frame)]), one_hot(policy), torch.zeros_like(gate)
        )
        bank = retention.select(both, score, slots, torch.tensor([float(slots)]))
    return bank.column("birth")[0]


def test_fifo_keeps_the_newest_frames() -> None:
    assert sorted(births_after("fifo", 50, 4, 12).tolist()) == [47.0] * 4 + [48.0] * 4 + [49.0] * 4


def test_uniform_keeps_all_of_the_past_alike() -> None:
    births = births_after("uniform", 200, 8, 100)
    quarters = torch.histc(births, 4, 0, 200)
    assert quarters.min() >= 12 and quarters.max() <= 38  # 25 expected, standard deviation 4.3


def test_random_forgets_at_random() -> None:
    births = births_after("random", 200, 8, 100)
    # Each frame replaces 8 of 108 tokens at random, so ages are geometric with a mean of 12.5 frames.
    assert 182 < float(births.mean()) < 192
    assert births.min() < 180


def test_learned_policy_keeps_what_the_gate_wants_and_nothing_else() -> None:
    bank = random_bank(1, 10, fill=1.1).with_columns(owner=torch.zeros(1, 10))
    gate = torch.tensor([[3.0, -1.0, 2.0, 0.5, -4.0, 1.0, -0.1, 0.1, 9.0, -9.0]])
    repeated = torch.zeros(1, 10)
    score = retention.policy_scores(bank, gate, torch.zeros(1), one_hot("learned"), repeated)
    kept = retention.select(bank, score, 4, torch.tensor([4.0]))
    assert torch.equal(kept.key[0], bank.key[0, [8, 0, 2, 5]])
    repeated[0, 8] = 1.0
    score = retention.policy_scores(bank, gate, torch.zeros(1), one_hot("learned"), repeated)
    kept = retention.select(bank, score, 4, torch.tensor([4.0]))
    assert torch.equal(kept.key[0], bank.key[0, [0, 2, 5, 3]])


def drawn(rows: int, columns: int, frame: float) -> torch.Tensor:
    """Draws of a frame's cells, (rows, columns)."""
    cells = torch.arange(float(rows)).unsqueeze(1), torch.arange(float(columns)).unsqueeze(0)
    return retention.draw(*cells, torch.tensor([frame]))[0]


@pytest.mark.parametrize("share", [0.2, 0.5, 0.8])
@pytest.mark.parametrize("frame", [0.0, 7.0, 1e5])
def test_equal_tokens_are_kept_evenly_over_the_frame(share: float, frame: float) -> None:
    kept = (drawn(15, 27, frame) > 1.0 - share).float()
    assert abs(float(kept.mean()) - share) < 0.04
    # By chance alone, 5x5 cells would hold 25 * share with a standard deviation of up to 2.5.
    counts = torch.nn.functional.avg_pool2d(kept[None, None], 5, 1) * 25.0
    assert float((counts - 25.0 * share).abs().max()) < 3.5


def test_successive_frames_keep_different_cells() -> None:
    first, second = drawn(15, 27, 3.0) > 0.5, drawn(15, 27, 4.0) > 0.5
    assert float((first & second).float().mean()) < 0.3


@pytest.mark.parametrize("probability", [0.1, 0.5, 0.9])
def test_the_gate_is_the_share_of_tokens_that_are_kept(probability: float) -> None:
    draws = drawn(20, 25, 11.0).reshape(1, -1)
    bank = random_bank(1, 500, fill=1.1).with_columns(owner=torch.zeros(1, 500), draw=draws)
    gate = torch.full((1, 500), math.log(probability / (1.0 - probability)))
    score = retention.policy_scores(bank, gate, torch.zeros(1), one_hot("learned"), torch.zeros(1, 500))
    kept = retention.select(bank, score, 500, torch.tensor([500.0]))
    assert abs(float(kept.column("valid").mean()) - probability) < 0.03


@pytest.mark.parametrize("first", [0.0, 333.0, 2.0**21 + 333.0])
def test_rare_draws_can_be_told_apart_for_a_day_of_frames(first: float) -> None:
    """The tokens that stay for minutes are one in ten thousand, late as early."""
    rare = sum(int((drawn(15, 27, first + frame) > 1.0 - 1e-4).sum()) for frame in range(1024))
    assert 25 <= rare <= 60  # of 414,720 tokens


def test_odds_that_halve_with_each_doubling_of_the_age_keep_every_stretch_of_the_past() -> None:
    """As many tokens of 2 to 16 frames as of 16 to 128 and to 1,024; draws come again, so that none lasts for ever."""
    bank = memory.empty_bank(1, 192, 2, OBJECTS)
    cells = torch.arange(15.0).unsqueeze(1), torch.arange(27.0).unsqueeze(0)
    for frame in range(5000):
        bank = memory.begin_frame(bank, torch.ones(1, OBJECTS))
        fresh = memory.empty_bank(1, 405, 2, OBJECTS).with_columns(
            valid=torch.ones(1, 405),
            birth=torch.full((1, 405), float(frame)),
            draw=retention.draw(*cells, torch.tensor([float(frame)])).reshape(1, -1),
        )
        both = memory.concat(bank, fresh)
        age = both.column("age")
        gate = torch.where(age > 0.5, -1.0 - torch.log(age.clamp(min=1.0)), torch.full_like(age, 2.0))
        score = retention.policy_scores(
            both, gate, torch.tensor([float(frame)]), one_hot("learned"), torch.zeros_like(gate)
        )
        bank = retention.select(both, score, 192, torch.tensor([192.0]))
    age = bank.column("age")[0]
    counts = [int(((age >= low) & (age < 8 * low)).sum()) for low in (2, 16, 128)]
    assert int((age < 0.5).sum()) > 96 and int((bank.column("valid")[0] > 0.5).sum()) == 192
    assert min(counts) >= 5 and max(counts) <= 3 * min(counts)
    assert 1024.0 < float(age.max()) < 4096.0


def apart(bank: Bank, fresh: Bank) -> torch.Tensor:
    """Distances of a frame's tokens to a bank's; batches of one."""
    return redundancy.distances(bank, fresh.key, fresh.column("x")[0], fresh.column("y")[0])


def one_token(x: float = 0.5, share: float = 1.0, known: float = 1.0, angle: float = 0.0) -> memory.Bank:
    """A bank of one slot; the key turns by the angle, radians."""
    bank = memory.empty_bank(1, 1, WIDTH, OBJECTS)
    bank.key[0, 0, 0], bank.key[0, 0, 1] = math.cos(angle), math.sin(angle)
    bank.identity[0, 0, 0], bank.known[0, 0, 0] = share, known
    return bank.with_columns(x=torch.full((1, 1), x), y=torch.full((1, 1), 0.5), valid=torch.ones(1, 1))


@pytest.mark.parametrize(
    ("fresh", "expected"),
    [
        (one_token(), 1.0),
        (one_token(angle=0.3), 1.0),  # cosine .955
        (one_token(angle=0.5), 0.0),  # cosine .878
        (one_token(x=0.55), 1.0),
        (one_token(x=0.6), 0.0),
        (one_token(share=0.9), 1.0),
        (one_token(share=0.5), 0.0),
        (one_token(known=0.0), 0.0),
    ],
)
def test_a_token_repeats_another_when_key_place_and_shares_are_alike(fresh, expected) -> None:
    assert redundancy.repeats(one_token(), fresh, apart(one_token(), fresh)).item() == expected
    free = one_token().with_columns(valid=torch.zeros(1, 1))
    assert redundancy.repeats(free, fresh, apart(free, fresh)).item() == 0.0


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10_000), slots=st.integers(1, 24), fresh=st.integers(1, 24))
def test_distances_are_those_of_each_pair(seed: int, slots: int, fresh: int) -> None:
    bank, new = random_bank(seed, slots), random_bank(seed + 1, fresh, fill=1.1)
    # Scores of a thousand between free slots and others would hide what is wrong with the others.
    found, used = apart(bank, new)[0], bank.column("valid")[0] > 0.5
    for old in torch.nonzero(used).flatten().tolist():
        for one in range(fresh):
            key = float((bank.key[0, old] - new.key[0, one]).square().sum()) / 0.4**2
            place = float((bank.meta[0, old, :2] - new.meta[0, one, :2]).square().sum()) / 0.08**2
            assert float(found[one, old]) == pytest.approx(0.5 * (key + place), abs=2e-3)
    assert (found[:, ~used] > 1000.0).all()


def scene(unchanged: list[int], owner: list[int], valid: list[int]) -> tuple[memory.Bank, torch.Tensor]:
    """A bank, and distances at which the flagged tokens are where they were."""
    bank = memory.empty_bank(1, len(valid), WIDTH, OBJECTS)
    bank = bank.with_columns(owner=torch.tensor([owner]).float(), valid=torch.tensor([valid]).float())
    distance = torch.full((1, 6, len(valid)), 9.0)
    distance[0, 2] -= 8.9 * torch.tensor(unchanged)
    return bank, distance


@pytest.mark.parametrize(
    ("unchanged", "owner", "valid", "still", "expected"),
    [
        ([1, 1, 1, 1, 1], [1, 0, 0, 0, 0], [1, 1, 1, 1, 1], 1, 3),
        ([1, 1, 1, 1, 0], [1, 0, 0, 0, 0], [1, 1, 1, 1, 1], 1, 3),
        ([1, 1, 1, 0, 0], [1, 0, 0, 0, 0], [1, 1, 1, 1, 1], 0, 10),
        ([1, 1, 1, 0, 0], [1, 0, 0, 0, 0], [1, 1, 1, 0, 0], 1, 3),  # free slots do not count
        ([0, 1, 1, 1, 1], [1, 0, 0, 0, 0], [1, 1, 1, 1, 1], 0, 10),  # what is followed moves
        ([1, 1, 1, 1, 1], [1, 2, 1, 2, 0], [1, 1, 1, 1, 1], 1, 4),  # anchors stay
        ([0, 1, 1, 1, 1], [1, 2, 3, 4, 4], [1, 1, 1, 1, 1], 0, 10),  # one of four moves
        ([1, 1, 1, 1, 1], [0, 0, 0, 0, 0], [1, 1, 1, 1, 1], 1, 3),
        ([0, 0, 0, 0, 0], [0, 0, 0, 0, 0], [0, 0, 0, 0, 0], 0, 10),  # nothing is known yet
    ],
)
def test_a_still_scene_has_less_room(unchanged, owner, valid, still, expected) -> None:
    bank, distance = scene(unchanged, owner, valid)
    found, budget = redundancy.is_static(bank, distance), torch.tensor([10.0])
    assert found.item() == still
    assert retention.token_limit(bank, found, budget, torch.tensor([1.0])).item() == expected
    assert retention.token_limit(bank, found, budget, torch.tensor([0.0])).item() == 10


@pytest.mark.parametrize(
    ("held", "still", "budget", "known"),
    [
        (10, 0, 10, [1, 1, 1]),  # a full bank of a scene in motion has a say on everything
        (10, 1, 10, [1, 0, 1]),
        (5, 0, 10, [1, 0, 1]),  # 5 of 10
        (6, 0, 10, [1, 1, 1]),
        (2, 0, 10, [1, 1, 1]),  # of three cells it could hold no more than three
        (1, 0, 10, [1, 0, 1]),
    ],
)
def test_a_sparse_bank_has_a_say_on_what_is_like_it(held, still, budget, known) -> None:
    bank = memory.empty_bank(1, 10, WIDTH, OBJECTS)
    bank.key[:, :, 0], bank.key[:, 9] = 1.0, 0.0
    bank.key[0, 9, 1] = 1.0  # only a full bank holds it
    bank = bank.with_columns(valid=(torch.arange(10) < held).float().unsqueeze(0))
    cells = 3 if held < 3 else 12
    key = torch.zeros(1, cells, WIDTH)
    # Cosines of .92, .88 and 1 with what the bank holds.
    for cell, angle in enumerate((math.acos(0.92), -math.acos(0.88), 0.0)):
        key[0, cell, :2] = torch.tensor([math.cos(angle), math.sin(angle)])
    found = redundancy.knows(bank, key, torch.tensor([float(still)]), torch.tensor([float(budget)]))
    assert found[0, :3].tolist() == known


def test_a_still_scene_writes_each_token_once() -> None:
    fresh = random_bank(4, 40, fill=1.1).with_columns(age=torch.zeros(1, 40), owner=torch.zeros(1, 40))
    fresh = fresh._replace(key=torch.nn.functional.normalize(fresh.key, dim=-1))
    bank, gate = memory.empty_bank(1, 96, WIDTH, OBJECTS), torch.full((1, 136), 5.0)
    for frame in range(10):
        bank = memory.begin_frame(bank, torch.ones(1, OBJECTS))
        both = memory.concat(bank, fresh)
        repeated = torch.nn.functional.pad(redundancy.repeats(bank, fresh, apart(bank, fresh)), (96, 0))
        score = retention.policy_scores(both, gate, torch.tensor([float(frame)]), one_hot("learned"), repeated)
        bank = retention.select(both, score, 96, torch.tensor([96.0]))
        assert int((bank.column("valid") > 0.5).sum()) == 40


def test_select_breaks_ties_by_age_in_the_bank() -> None:
    bank = random_bank(2, 12, fill=1.1).with_columns(owner=torch.zeros(1, 12))
    kept = retention.select(bank, torch.ones(1, 12), 5, torch.tensor([5.0]))
    assert torch.equal(kept.key[0], bank.key[0, :5])


@pytest.mark.parametrize("age", [1.0, 3.0, 100.0, 5000.0, 1e6])
def test_anchors_of_one_old_frame_give_way_however_old_they_are(age: float) -> None:
    # All anchors of a prompt frame have one age: only their worth tells them apart, and beside a large age fp32 would
    # lose it as a small bonus.
    old = random_bank(1, 40, fill=1.1).with_columns(age=torch.full((1, 40), age), owner=torch.zeros(1, 40))
    worth = torch.linspace(0.0, 1.0, 40).unsqueeze(0)
    old = old.with_columns(owner=(torch.arange(40) < 32).float().unsqueeze(0), affinity=worth)
    fresh = random_bank(2, 80, fill=1.1).with_columns(age=torch.zeros(1, 80), owner=torch.zeros(1, 80))
    affinity = torch.zeros(1, 120, OBJECTS)
    affinity[0, 40:, 1] = torch.linspace(0.1, 1.0, 80)
    flags = torch.tensor([[0.0, 1.0, 0.0, 0.0]])
    both = retention.anchor_quota(memory.concat(old, fresh), affinity, torch.tensor([64.0]), flags)
    owners = both.column("owner")[0]
    assert torch.nonzero(owners == 1.0).flatten().tolist() == list(range(16, 32))  # the best half of them
    assert torch.nonzero(owners == 2.0).flatten().tolist() == list(range(104, 120))


def test_anchors_keep_their_order_when_selected() -> None:
    # Torch and ONNX Runtime order equal scores differently, and the next prompt's quota goes by the order.
    bank = random_bank(4, 300, fill=1.1)
    bank = bank.with_columns(owner=torch.ones(1, 300), x=torch.arange(300.0).unsqueeze(0))
    kept = retention.select(bank, torch.randn(1, 300), 300, torch.tensor([300.0]))
    assert kept.column("x")[0].tolist() == list(range(300))
