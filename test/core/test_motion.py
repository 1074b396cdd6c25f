"""Optical flow: known shifts must come back, masks must land where the picture went."""

import cv2
import numpy as np
import pytest

from sam2lite_core.motion import Motion, MotionEstimator, Stillness, grey


def texture(seed: int = 0, height: int = 240, width: int = 320) -> np.ndarray:
    noise = np.random.default_rng(seed).integers(0, 256, (height // 4, width // 4, 3), np.uint8)
    return cv2.GaussianBlur(cv2.resize(noise, (width, height), interpolation=cv2.INTER_CUBIC), (0, 0), 3)


@pytest.mark.parametrize(("dx", "dy"), [(8, 0), (0, -6), (10, 4)])
def test_flow_of_a_shifted_picture_is_the_shift(dx: int, dy: int) -> None:
    image = texture()
    moved = np.roll(image, (dy, dx), (0, 1))
    estimator = MotionEstimator()
    assert estimator.update(image) is None
    motion = estimator.update(moved)
    assert motion is not None
    inner = motion.flow[20:-20, 20:-20] * (320, 240)
    # Backward flow: the new picture at x shows what the old one had at x - shift.
    assert np.median(inner[..., 0]) == pytest.approx(-dx, abs=0.7)
    assert np.median(inner[..., 1]) == pytest.approx(-dy, abs=0.7)


def test_magnitude_is_relative_to_the_camera_in_patch_widths() -> None:
    flow = np.full((30, 40, 2), 0.1, np.float32)
    flow[:15, :10] += (0.05, 0.0)  # a quarter of the rows and columns moves by 5 % of the width more
    magnitude = Motion(flow).magnitude(6, 8)
    assert magnitude[0, 0] == pytest.approx(0.05 * 8, abs=1e-4)
    assert magnitude[-1, -1] == pytest.approx(0.0, abs=1e-4)


def test_warp_carries_a_mask_along() -> None:
    flow = np.zeros((12, 16, 2), np.float32)
    flow[..., 0] = -0.25  # everything moved right by a quarter of the width
    mask = np.zeros((1, 12, 16), np.float32)
    mask[0, 4:8, 2:6] = 1.0
    expected = np.zeros_like(mask)
    expected[0, 4:8, 6:10] = 1.0
    assert np.allclose(Motion(flow).warp(mask, 12, 16), expected, atol=1e-5)


def test_warp_resizes_across_a_rung_change() -> None:
    mask = np.zeros((1, 10, 10), np.float32)
    mask[0, :, 5:] = 1.0
    warped = Motion(np.zeros((10, 10, 2), np.float32)).warp(mask, 20, 20)
    assert warped.shape == (1, 20, 20)
    assert np.allclose(warped[0, :, :8], 0.0) and np.allclose(warped[0, :, 12:], 1.0)


def test_grey_is_small_and_never_upsampled() -> None:
    assert grey(texture(0, 480, 640)).shape == (120, 160)
    assert grey(texture(0, 64, 96)).shape == (64, 96)


def test_a_new_aspect_or_a_reset_starts_over() -> None:
    estimator = MotionEstimator()
    estimator.update(texture())
    assert estimator.update(texture(0, 240, 240)) is None
    estimator.update(texture(0, 240, 240))
    estimator.reset()
    assert estimator.update(texture(0, 240, 240)) is None


def shift(x: float, y: float = 0.0, noise: float = 0.0, seed: int = 0) -> Motion:
    """Flow of a picture that moves by (x, y) cells of stillness as a whole, with noise on every cell."""
    flow = np.random.default_rng(seed).normal(0, noise, (15, 27, 2)) + np.array([x, y])
    return Motion((flow / (27, 15)).astype(np.float32))


@pytest.mark.parametrize(
    ("steps", "expected"),
    [
        ([None], [False]),
        ([None, (0, 0), (0, 0)], [False, True, True]),
        (
            [None, (0.05, 0), (0.04, 0), (0.04, 0), (0, 0)],
            [False, True, True, False, True],
        ),  # a slow pan adds up
        ([None, (0.09, 0), (-0.09, 0), (0.09, 0)], [False, True, True, True]),  # a shake does not
        ([None, (0, 2.0), (0, 0)], [False, False, True]),
        ([None, (0, 0), None, (0, 0)], [False, True, False, True]),
    ],
)
def test_stillness_by_hand(steps: list, expected: list[bool]) -> None:
    stillness = Stillness()
    assert [stillness.update(None if step is None else shift(*step)) for step in steps] == expected


def test_one_moving_part_is_enough_and_a_reset_forgets() -> None:
    stillness, part = Stillness(), shift(0.0)
    part.flow[4, 7] += 0.5 / 27
    stillness.update(None)
    assert not stillness.update(part)
    assert stillness.update(shift(0.0))
    stillness.reset()
    stillness.update(shift(0.09))
    stillness.reset()
    assert stillness.update(shift(0.09))


def test_noise_of_the_flow_is_not_motion() -> None:
    stillness = Stillness()
    stillness.update(None)
    assert all(stillness.update(shift(0.0, noise=0.005, seed=n)) for n in range(20))
