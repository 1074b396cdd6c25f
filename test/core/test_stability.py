"""Drift, consistency and flicker on series and masks whose answer is known."""

import cv2
import numpy as np
import pytest

from sam2lite_core.evaluation.metrics import frame_scores, object_scores
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


def test_objects_count_the_same():
    frames = (1, DRIFT_LEAST_FRAMES + 1)
    steady, falling = (object_scores(k, s, s, frames) for k, s in ((1, (1.0, 1.0)), (2, (1.0, 0.0))))
    summary = summarise_stability([steady, falling], 0.1, None)
    assert (summary.drift, summary.consistency) == pytest.approx((-500 / DRIFT_LEAST_FRAMES, 0.25))
    assert (summary.flicker, summary.flicker_of_truth) == (0.1, None)


@pytest.mark.parametrize(
    ("spans", "expected"),
    [
        pytest.param([DRIFT_LEAST_FRAMES - 1], None, id="too short"),
        pytest.param([DRIFT_LEAST_FRAMES], -1000 / (DRIFT_LEAST_FRAMES - 1), id="long enough"),
        pytest.param([2, DRIFT_LEAST_FRAMES], -1000 / (DRIFT_LEAST_FRAMES - 1), id="the long ones count"),
    ],
)
def test_short_clips_have_no_drift(spans, expected):
    """Objects that lose everything from the first frame of their span to its last."""
    objects = [object_scores(k, (1.0, 0.0), (1.0, 0.0), (5, 4 + span)) for k, span in enumerate(spans)]
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
    from sam2lite_core.evaluation.metrics import boundary_accuracy, region_similarity

    for _ in range(20):
        prediction, truth = (cv2.GaussianBlur(rng.random((90, 70)), (0, 0), 6) > 0.5 for _ in range(2))
        expected = region_similarity(prediction, truth), boundary_accuracy(prediction, truth)
        assert frame_scores(prediction, truth) == expected
