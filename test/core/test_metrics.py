"""Scores against hand-computed values and a twin that loops over pixels."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from sam2lite_core.errors import SourceError
from sam2lite_core.evaluation.davis_protocol import SequenceScorer, score_sequence, statistic
from sam2lite_core.evaluation.region_boundary import boundary_accuracy, boundary_map, region_similarity


def square(size, top, left, side):
    mask = np.zeros((size, size), np.uint8)
    mask[top : top + side, left : left + side] = 1
    return mask


def slow_boundary(mask):
    """Boundary pixels, one comparison at a time."""
    height, width = mask.shape
    edge = np.zeros(mask.shape, bool)
    for y in range(height):
        for x in range(width):
            neighbours = []
            if x + 1 < width:
                neighbours.append((y, x + 1))
            if y + 1 < height:
                neighbours.append((y + 1, x))
            if x + 1 < width and y + 1 < height:
                neighbours.append((y + 1, x + 1))
            edge[y, x] = any(bool(mask[n]) != bool(mask[y, x]) for n in neighbours)
    return edge


def slow_region(prediction, truth):
    both = either = 0
    for p, g in zip(prediction.flat, truth.flat, strict=True):
        both += bool(p) and bool(g)
        either += bool(p) or bool(g)
    return both / either if either else 1.0


def slow_boundary_accuracy(prediction, truth):
    height, width = truth.shape
    radius = math.ceil(0.008 * math.sqrt(height**2 + width**2))
    found = [list(zip(*np.nonzero(slow_boundary(m)), strict=True)) for m in (prediction, truth)]
    if not found[0] or not found[1]:
        return float(len(found[0]) == len(found[1]))

    def share(edge, other):
        near = sum(any((y - v) ** 2 + (x - u) ** 2 <= radius**2 for v, u in other) for y, x in edge)
        return near / len(edge)

    precision, recall = share(found[0], found[1]), share(found[1], found[0])
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


mask_pairs = npst.array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=24).flatmap(
    lambda shape: st.tuples(npst.arrays(np.bool_, shape), npst.arrays(np.bool_, shape))
)


@settings(max_examples=150, deadline=None)
@given(mask_pairs)
def test_scores_agree_with_the_pixel_loop(pair):
    prediction, truth = pair
    assert region_similarity(prediction, truth) == pytest.approx(slow_region(prediction, truth), abs=1e-9)
    assert boundary_accuracy(prediction, truth) == pytest.approx(slow_boundary_accuracy(prediction, truth), abs=1e-9)
    assert np.array_equal(boundary_map(truth.astype(np.uint8)), slow_boundary(truth))


@pytest.mark.parametrize("seed", range(4))
def test_boundary_agrees_with_the_pixel_loop_where_the_radius_exceeds_one(seed):
    """A 200 x 230 image has radius 3, so the disk's shape shows."""
    rng = np.random.default_rng(seed)
    truth, prediction = np.zeros((200, 230), bool), np.zeros((200, 230), bool)
    for mask in (truth, prediction):
        for _ in range(3):
            y, x, h, w = rng.integers(0, 150), rng.integers(0, 170), *rng.integers(3, 50, 2)
            mask[y : y + h, x : x + w] ^= True
    assert boundary_accuracy(prediction, truth) == pytest.approx(slow_boundary_accuracy(prediction, truth), abs=1e-9)


@settings(max_examples=60, deadline=None)
@given(mask_pairs)
def test_scores_are_symmetric_bounded_and_perfect_on_themselves(pair):
    first, second = pair
    for score in (region_similarity, boundary_accuracy):
        assert 0 <= score(first, second) <= 1
        assert score(first, second) == pytest.approx(score(second, first), abs=1e-12)
        assert score(first, first) == 1


EMPTY, FULL = np.zeros((20, 20), np.uint8), np.ones((20, 20), np.uint8)


@pytest.mark.parametrize(
    ("prediction", "truth", "j", "f"),
    [
        pytest.param(EMPTY, EMPTY, 1, 1, id="both empty"),
        pytest.param(square(20, 5, 5, 4), EMPTY, 0, 0, id="truth empty"),
        pytest.param(EMPTY, square(20, 5, 5, 4), 0, 0, id="prediction empty"),
        pytest.param(FULL, FULL, 1, 1, id="both full"),
        pytest.param(FULL, EMPTY, 0, 1, id="neither has a boundary"),
        # 16 px each, 12 shared, 20 in either; radius 1 reaches every pixel of a boundary shifted by 1.
        pytest.param(square(20, 5, 6, 4), square(20, 5, 5, 4), 12 / 20, 1, id="shifted by the radius"),
        pytest.param(square(20, 1, 1, 4), square(20, 12, 12, 4), 0, 0, id="far apart"),
        # Boundary of a k px square: the ring of (k+1)^2 - (k-1)^2 px that ends on its last row and column.
        # The inner ring (16 px) lies 2 px inside the outer (32 px); radius 1 matches none of them.
        pytest.param(square(20, 6, 6, 4), square(20, 4, 4, 8), 16 / 64, 0, id="nested"),
    ],
)
def test_frame_scores_by_hand(prediction, truth, j, f):
    assert region_similarity(prediction, truth) == pytest.approx(j, abs=1e-12)
    assert boundary_accuracy(prediction, truth) == pytest.approx(f, abs=1e-12)


def test_boundary_of_one_pixel_is_the_2x2_block_that_ends_on_it():
    mask = square(5, 2, 2, 1)
    assert np.argwhere(boundary_map(mask)).tolist() == [[1, 1], [1, 2], [2, 1], [2, 2]]


def test_the_images_border_is_no_boundary():
    mask = np.zeros((4, 4), np.uint8)
    mask[:, 2:] = 1
    assert np.argwhere(boundary_map(mask)).tolist() == [[0, 1], [1, 1], [2, 1], [3, 1]]


@pytest.mark.parametrize(
    ("values", "mean", "recall", "decay"),
    [
        pytest.param([0.4], 0.4, 0, 0, id="one frame"),
        pytest.param([0.5, 0.6], 0.55, 0.5, -0.1, id="exactly 0.5 is not found"),
        # Borders 1, 3, 5, 7, 9: the first part is frames 1-3, the last 7-9.
        pytest.param([0.9, 0.9, 0.6, 0.5, 0.5, 0.5, 0.3, 0.2, 0.1], 0.5, 3 / 9, 0.8 - 0.2, id="nine frames"),
        # Borders round(1, 2.75, 4.5, 6.25, 8) = 1, 3, 5, 6, 8: the first part is frames 1-3, the last 6-8.
        pytest.param([1, 1, 0.4, 0, 0, 0.3, 0.3, 0], 0.375, 0.25, 0.8 - 0.2, id="eight frames"),
    ],
)
def test_statistic_by_hand(values, mean, recall, decay):
    result = statistic(values)
    assert (result.mean, result.recall, result.decay) == pytest.approx((mean, recall, decay), abs=1e-9)


def test_sequence_leaves_out_first_and_last_and_averages_objects():
    truth = square(20, 2, 2, 4) + 2 * square(20, 12, 12, 4)
    only_first = np.where(truth == 1, truth, 0)
    predictions = [np.zeros_like(truth), only_first, truth, only_first, np.zeros_like(truth)]
    scores = score_sequence(predictions, [truth] * 5)
    assert [entry.object_id for entry in scores.objects] == [1, 2]
    assert scores.objects[0].frames_j == (1, 1, 1)
    assert scores.objects[1].frames_j == (0, 1, 0)
    assert scores.objects[1].frames_f == (0, 1, 0)
    assert scores.j.mean == pytest.approx((1 + 1 / 3) / 2)
    assert scores.jf == pytest.approx((1 + 1 / 3) / 2)


def test_ids_come_from_the_first_true_frame_unless_given():
    first, later = square(20, 2, 2, 4), 7 * square(20, 2, 2, 4)
    assert [o.object_id for o in score_sequence([first] * 3, [first, later, later]).objects] == [1]
    assert [o.object_id for o in score_sequence([first] * 3, [first, later, later], [7]).objects] == [7]


def test_scorer_equals_the_function():
    rng = np.random.default_rng(0)
    truths = [rng.integers(0, 3, (16, 16)).astype(np.uint8) for _ in range(6)]
    predictions = [rng.integers(0, 3, (16, 16)).astype(np.uint8) for _ in range(6)]
    scorer = SequenceScorer()
    for prediction, truth in zip(predictions, truths, strict=True):
        scorer.add(prediction, truth)
    assert scorer.result() == score_sequence(predictions, truths)


@pytest.mark.parametrize(
    ("predictions", "truths", "message"),
    [
        pytest.param([FULL] * 2, [FULL] * 2, "at least 3", id="too short"),
        pytest.param([FULL] * 4, [FULL] * 3, "number of frames", id="one prediction too many"),
        pytest.param([FULL] * 3, [EMPTY] * 3, "first frame is empty", id="no object"),
        pytest.param([FULL[:5]] * 3, [FULL] * 3, r"\(5, 20\).*\(20, 20\)", id="other size"),
    ],
)
def test_what_cannot_be_scored_is_refused(predictions, truths, message):
    with pytest.raises(SourceError, match=message):
        score_sequence(predictions, truths)


def slow_statistic(values):
    """Mean, recall and decay with loops over numbers; borders are halves rounded up."""
    total = len(values)
    borders = [math.floor(1 + (total - 1) * part / 4 + 0.5) - 1 for part in range(5)]

    def mean(numbers):
        return sum(numbers) / len(numbers)

    first = [values[i] for i in range(borders[0], borders[1] + 1)]
    last = [values[i] for i in range(borders[3], borders[4] + 1)]
    return mean(values), mean([float(value > 0.5) for value in values]), mean(first) - mean(last)


def slow_sequence(predictions, truths):
    """J&F, and (mean, recall, decay) of J and F, of all objects, the slow way."""
    ids = sorted(set(truths[0].flat) - {0})
    tables = {"j": [], "f": []}
    for object_id in ids:
        pairs = [(p == object_id, t == object_id) for p, t in zip(predictions[1:-1], truths[1:-1], strict=True)]
        tables["j"].append(slow_statistic([slow_region(*pair) for pair in pairs]))
        tables["f"].append(slow_statistic([slow_boundary_accuracy(*pair) for pair in pairs]))
    j, f = ([sum(column) / len(ids) for column in zip(*tables[name], strict=True)] for name in ("j", "f"))
    return (j[0] + f[0]) / 2, j, f


@settings(max_examples=25, deadline=None)
@given(frames=st.integers(3, 14), seed=st.integers(0, 2**32 - 1))
def test_sequences_agree_with_the_slow_twin_to_1e_6(frames, seed):
    rng = np.random.default_rng(seed)
    truths = [np.zeros((14, 18), np.uint8) for _ in range(frames)]
    predictions = [np.zeros((14, 18), np.uint8) for _ in range(frames)]
    for label_map in truths + predictions:
        for object_id in (1, 2):
            y, x, h, w = rng.integers(0, 8), rng.integers(0, 10), *rng.integers(0, 8, 2)
            label_map[y : y + h, x : x + w] = object_id
    truths[0][:3, :3], truths[0][-3:, -3:] = 1, 2
    scores = score_sequence(predictions, truths)
    jf, j, f = slow_sequence(predictions, truths)
    assert scores.jf == pytest.approx(jf, abs=1e-6)
    for found, expected in ((scores.j, j), (scores.f, f)):
        assert (found.mean, found.recall, found.decay) == pytest.approx(expected, abs=1e-6)


def test_objects_that_appear_later_count_from_the_frame_after_they_are_shown():
    truth = square(20, 2, 2, 4)
    both = truth + 2 * square(20, 12, 12, 4)
    scorer = SequenceScorer(())
    for index, (prediction, true) in enumerate(zip([truth] * 6, [truth, truth, both, both, None, both], strict=True)):
        if index == 0:
            scorer.show([1])
        if index == 2:
            scorer.show([2])
        scorer.add(prediction, true)
    one, two = scorer.result().objects
    assert (one.frames, one.frames_j) == ((1, 2, 3), (1, 1, 1))  # frame 4 has no truth, frame 5 is the last
    assert (two.frames, two.frames_j) == ((3,), (0,))
