"""Optical flow: known shifts must come back, masks must land where the picture went."""

import cv2
import numpy as np
import pytest

from sam2lite_core.frame.motion import Motion, MotionEstimator, grey


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


def test_each_pixel_looks_up_where_it_came_from() -> None:
    flow = np.random.default_rng(0).normal(0.0, 0.05, (3, 5, 2)).astype(np.float32)
    y, x = np.mgrid[:3, :5]
    expected = np.stack([x + flow[..., 0] * 5, y + flow[..., 1] * 3], axis=-1)
    assert np.allclose(Motion(flow).sample_grid(3, 5), expected, atol=1e-6)


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
