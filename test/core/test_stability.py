"""Drift, consistency and flicker on series and masks whose answer is known."""

import cv2
import numpy as np
import pytest

from sam2lite_core.evaluation.davis_protocol import object_scores
from sam2lite_core.evaluation.region_boundary import frame_scores
from sam2lite_core.evaluation.stability import (
    DRIFT_LEAST_FRAMES,
    FlickerMeter,
    consistency,
    drift,
    mean_drift,
    summarise_stability,
)


@pytest.mark.parametrize(
    ("frames", "scores", "slope", "spread"),
    [
        pytest.param([1, 2, 3, 4], [0.5] * 4, 0, 0, id="constant"),
        pytest.param([1], [0.5], 0, 0, id="one frame"),
        pytest.param([0, 10, 20], [0.9, 0.8, 0.7], -10, np.sqrt(2 / 3) / 10, id="a point in ten frames"),
        # From the mean: -2, -1, 3 frames and -.4, .2, .2; their products sum to 1.2, the squares of the frames to 14.
        pytest.param([0, 1, 5], [0.0, 0.6, 0.6], 1000 * 1.2 / 14, np.sqrt(0.08), id="uneven frames"),
    ],
)
def test_drift_and_consistency_by_hand(frames, scores, slope, spread):
    assert drift(frames, scores) == pytest.approx(slope)
    assert drift(frames, scores) == pytest.approx(1000 * np.polyfit(frames, scores, 1)[0] if slope else 0)
    assert consistency(scores) == pytest.approx(spread)


def line(object_id, frames, start, end):
    """An object whose J&F goes evenly from one value to another over its scored frames."""
    values = tuple(np.interp(frames, (frames[0], frames[-1]), (start, end)))
    return object_scores(object_id, values, values, tuple(frames))


def test_objects_count_the_same():
    frames = range(1, DRIFT_LEAST_FRAMES + 2)
    steady, falling = line(1, frames, 1.0, 1.0), line(2, frames, 1.0, 0.0)
    summary = summarise_stability([steady, falling], 0.1, None)
    # Of values that lie evenly on a line of length 1, n of them: the square root of (n + 1) / 12 (n - 1).
    spread = np.sqrt((len(frames) + 1) / (12 * (len(frames) - 1)))
    assert (summary.drift, summary.consistency) == pytest.approx((-500 / DRIFT_LEAST_FRAMES, spread / 2))
    assert (summary.flicker, summary.flicker_of_truth) == (0.1, None)


LEAST = DRIFT_LEAST_FRAMES


@pytest.mark.parametrize(
    ("scored", "expected"),
    [
        pytest.param([range(5, 4 + LEAST)], None, id="too short"),
        pytest.param([range(5, 5 + LEAST)], -1000 / (LEAST - 1), id="long enough"),
        pytest.param([range(5, 7), range(5, 5 + LEAST)], -1000 / (LEAST - 1), id="the long ones count"),
        pytest.param([range(0, 5 * LEAST - 5, 5)], None, id="every fifth, too few of them"),
        pytest.param([range(0, 5 * LEAST, 5)], -1000 / (5 * LEAST - 5), id="every fifth, enough of them"),
        pytest.param([[*range(5, 15), LEAST + 5]], None, id="a few, far apart"),
    ],
)
def test_few_scores_make_no_drift(scored, expected):
    """Objects that lose everything from the first scored frame to the last."""
    objects = [line(number, frames, 1.0, 0.0) for number, frames in enumerate(scored)]
    found = mean_drift(objects)
    assert found is None if expected is None else found == pytest.approx(expected)


def test_the_least_length_is_where_scatter_no_longer_makes_a_slope():
    rng = np.random.default_rng(5)
    slopes = {
        length: np.std([drift(range(length), rng.normal(0.7, 0.05, length)) for _ in range(400)])
        for length in (100, DRIFT_LEAST_FRAMES)
    }
    assert slopes[DRIFT_LEAST_FRAMES] == pytest.approx(0.033, rel=0.15)
    assert slopes[100] == pytest.approx(0.17, rel=0.15)
    sparse = [drift(range(0, 300, 5), rng.normal(0.7, 0.05, 60)) for _ in range(400)]
    assert np.std(sparse) == pytest.approx(0.0745, rel=0.15)


@pytest.fixture(scope="module")
def panning():
    """Twelve windows of 240x320 that pan over a picture by 10 px a frame, and a mask that sticks to it."""
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 256, (60, 100, 3)).astype(np.uint8)
    picture = cv2.resize(noise, (480, 280), interpolation=cv2.INTER_CUBIC)
    mask = np.zeros(picture.shape[:2], np.uint8)
    cv2.circle(mask, (220, 140), 60, 1, -1)
    at = [10 * index for index in range(12)]
    return [picture[:240, x : x + 320].copy() for x in at], [mask[:240, x : x + 320].copy() for x in at]


def flicker(images, masks):
    meter = FlickerMeter()
    for image, mask in zip(images, masks, strict=True):
        meter.look(image)
        meter.add("prediction", mask, [1])
    return meter.result("prediction")


def test_a_mask_that_moves_with_the_picture_does_not_flicker(panning):
    images, masks = panning
    assert flicker(images, masks) < 0.02


def test_a_mask_that_breathes_flickers(panning):
    images, masks = panning
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (21, 21))
    breathing = [cv2.dilate(m, kernel) if i % 2 else m for i, m in enumerate(masks)]
    assert flicker(images, breathing) > 0.6


def test_a_mask_that_stays_while_the_picture_moves_flickers(panning):
    images, masks = panning
    assert flicker(images, [masks[0]] * len(masks)) > flicker(images, masks) + 0.1


def test_series_are_apart_and_empty_masks_say_nothing(panning):
    images, masks = panning
    meter = FlickerMeter()
    for image, mask in zip(images, masks, strict=True):
        meter.look(image)
        meter.add("truth", mask, [1])
        meter.add("prediction", np.zeros_like(mask), [1])
    assert meter.result("truth") == flicker(images, masks)
    assert meter.result("prediction") is None
    assert meter.result("nobody") is None


def test_a_frame_of_another_size_starts_anew(panning):
    images, masks = panning
    small = [cv2.resize(images[0], (200, 150)), cv2.resize(masks[0], (200, 150))]
    assert flicker([images[0], small[0]], [masks[0], small[1]]) is None


def test_one_pass_gives_both_scores(rng):
    from sam2lite_core.evaluation.region_boundary import boundary_accuracy, region_similarity

    for _ in range(20):
        prediction, truth = (cv2.GaussianBlur(rng.random((90, 70)), (0, 0), 6) > 0.5 for _ in range(2))
        expected = region_similarity(prediction, truth), boundary_accuracy(prediction, truth)
        assert frame_scores(prediction, truth) == expected
