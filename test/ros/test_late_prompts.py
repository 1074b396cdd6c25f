"""Prompts on old frames: which frames are stepped, and where a prompt lies on a reduced frame."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from sam2lite_core.types import Prompt
from sam2lite_ros.tracker.late_prompts import scale_prompt, spread


@given(st.integers(0, 100), st.integers(1, 10))
def test_spread_is_even_and_ends_with_the_last(count, at_most):
    chosen = spread(list(range(count)), at_most)
    assert len(chosen) == min(count, at_most)
    assert chosen == sorted(set(chosen))
    if count:
        assert chosen[-1] == count - 1
        steps = np.diff([-1, *chosen])
        assert steps.max() - steps.min() <= 1


def test_prompts_move_with_the_image():
    mask = np.zeros((100, 200), bool)
    mask[40:60, 100:140] = True
    prompt = Prompt(
        object_id=3,
        points=np.array([[100, 50], [20, 10]]),
        point_labels=np.array([1, 0]),
        box=np.array([10, 20, 50, 80]),
        mask=mask,
    )
    moved = scale_prompt(prompt, (100, 200), (50, 100))
    assert moved.object_id == 3
    assert moved.points.tolist() == [[50, 25], [10, 5]]
    assert moved.point_labels.tolist() == [1, 0]
    assert moved.box.tolist() == [5, 10, 25, 40]
    expected = np.zeros((50, 100), bool)
    expected[20:30, 50:70] = True
    assert np.array_equal(moved.mask, expected)


def test_a_mask_of_one_pixel_survives_reduction():
    mask = np.zeros((100, 100), bool)
    mask[33, 67] = True
    moved = scale_prompt(Prompt(object_id=1, mask=mask), (100, 100), (20, 20))
    assert np.argwhere(moved.mask).tolist() == [[6, 13]]
