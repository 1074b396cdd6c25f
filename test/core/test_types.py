"""Prompts and images: what is accepted, what it becomes, and what is refused with which words."""

import math

import numpy as np
import pytest

from sam2lite_core.errors import InvalidFrameError, InvalidPromptError
from sam2lite_core.types import Prompt, StepTimings, check_image

MASK = np.eye(20, dtype=bool)


def test_points_become_float_and_labels_default_to_one():
    prompt = Prompt(object_id=5, points=[[1, 2], [3, 4]])
    assert prompt.points.dtype == np.float32
    assert prompt.points.tolist() == [[1, 2], [3, 4]]
    assert prompt.point_labels.dtype == np.uint8
    assert prompt.point_labels.tolist() == [1, 1]


def test_masks_of_any_dtype_become_boolean():
    prompt = Prompt(object_id=1, mask=MASK.astype(np.uint8) * 255)
    assert prompt.mask.dtype == bool
    assert np.array_equal(prompt.mask, MASK)


@pytest.mark.parametrize("object_id", [1, 65535, np.uint16(7)])
def test_ids_inside_the_range(object_id):
    assert Prompt(object_id=object_id, mask=MASK).object_id == int(object_id)


def test_negative_points_may_refine_a_box_or_mask():
    for shown in ({"box": [0, 0, 5, 5]}, {"mask": MASK}):
        assert Prompt(object_id=1, points=[[1, 1]], point_labels=[0], **shown).point_labels.tolist() == [0]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"object_id": 0, "mask": MASK}, r"object id 0 is not in 1\.\.65535"),
        ({"object_id": 65536, "mask": MASK}, "object id 65536"),
        ({"object_id": True, "mask": MASK}, "object id True"),
        ({"object_id": 2}, "object 2: give points, a box or a mask"),
        ({"object_id": 2, "points": [[1, 2, 3]]}, r"shape \(1, 3\)"),
        ({"object_id": 2, "points": np.zeros((0, 2))}, r"shape \(0, 2\)"),
        ({"object_id": 2, "points": [[math.nan, 1]]}, "not finite"),
        ({"object_id": 2, "points": [[1, 1]], "point_labels": [1, 0]}, "2 point labels for 1 points"),
        ({"object_id": 2, "points": [[1, 1]], "point_labels": [2]}, "not all 0 or 1"),
        ({"object_id": 2, "points": [[1, 1]], "point_labels": [0]}, "no positive point"),
        ({"object_id": 2, "point_labels": [1], "mask": MASK}, "point_labels given without points"),
        ({"object_id": 2, "box": [5, 0, 5, 9]}, "x0 < x1"),
        ({"object_id": 2, "box": [0, 9, 5, 1]}, "y0 < y1"),
        ({"object_id": 2, "box": [0, 0, 5]}, "x0, y0, x1, y1"),
        ({"object_id": 2, "box": [0, 0, math.inf, 5]}, "x0, y0, x1, y1"),
        ({"object_id": 2, "mask": np.zeros((4, 4))}, "mask is empty"),
        ({"object_id": 2, "mask": np.ones((4, 4, 1))}, r"shape \(4, 4, 1\)"),
    ],
)
def test_bad_prompts_are_refused(fields, message):
    with pytest.raises(InvalidPromptError, match=message):
        Prompt(**fields)


@pytest.mark.parametrize(
    "fields",
    [
        {"points": [[0, 0]]},
        {"points": [[29.9, 19.9]]},
        {"box": [-5, -5, 1, 1]},
        {"box": [29, 19, 99, 99]},
        {"mask": np.ones((20, 30))},
    ],
)
def test_prompts_that_fit_an_image(fields):
    Prompt(object_id=1, **fields).check_inside(20, 30)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"points": [[1, 1], [30, 5]]}, r"point \[30\.0, 5\.0\] lies outside the 30x20 image"),
        ({"points": [[5, 20]]}, "outside the 30x20"),
        ({"points": [[-0.1, 5]]}, "outside the 30x20"),
        ({"box": [30, 0, 40, 10]}, "box .* lies outside"),
        ({"box": [-9, 0, 0, 10]}, "box .* lies outside"),
        ({"box": [0, 20, 10, 40]}, "box .* lies outside"),
        ({"mask": np.ones((30, 20))}, "mask is 20x30, the image 30x20"),
    ],
)
def test_prompts_that_do_not_fit_an_image(fields, message):
    with pytest.raises(InvalidPromptError, match=message):
        Prompt(object_id=1, **fields).check_inside(20, 30)


def test_check_image_gives_height_and_width():
    assert check_image(np.zeros((16, 40, 3), np.uint8)) == (16, 40)


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (None, "shape None"),
        (np.zeros((20, 20), np.uint8), r"shape \(20, 20\)"),
        (np.zeros((20, 20, 4), np.uint8), r"shape \(20, 20, 4\)"),
        (np.zeros((20, 20, 3), np.float32), "dtype float32"),
        (np.zeros((0, 20, 3), np.uint8), "20x0"),
        (np.zeros((15, 20, 3), np.uint8), "20x15; both sides must be at least 16"),
    ],
)
def test_what_is_no_frame_is_refused(image, message):
    with pytest.raises(InvalidFrameError, match=message):
        check_image(image)


def test_timings_add_up():
    assert StepTimings(1.5, 2.0, 4.0, 0.5).total_ms == 8.0
