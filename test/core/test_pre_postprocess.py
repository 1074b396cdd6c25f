"""From frames and prompts to graph inputs, and from logits to label maps."""

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sam2lite_core.errors import InvalidPromptError
from sam2lite_core.frame import masks, prompt_rasters, resolution
from sam2lite_core.frame.geometry import Geometry
from sam2lite_core.frame.motion import Motion, motion_map
from sam2lite_core.types import ObjectState, Prompt


@pytest.mark.parametrize(
    ("source", "scale", "expected"),
    [
        ((480, 854), 1.0, (480, 864)),  # design section 4
        ((480, 640), 1.0, (480, 640)),
        ((480, 854), 0.5, (240, 432)),
        ((1080, 1920), 1.0, (480, 864)),
        ((480, 640), 0.6, (288, 384)),
        ((240, 320), 1.0, (240, 320)),  # never upsampled
        ((20, 17), 1.0, (32, 32)),
    ],
)
def test_network_size(source: tuple[int, int], scale: float, expected: tuple[int, int]) -> None:
    assert resolution.network_size(*source, scale, 480) == expected


@given(st.integers(16, 3000), st.integers(16, 3000), st.floats(0.5, 1.0))
def test_network_size_is_whole_patches_and_not_larger_than_rounding_makes_it(
    height: int, width: int, scale: float
) -> None:
    rows, columns = resolution.network_size(height, width, scale, 480)
    assert rows % 16 == columns % 16 == 0 and rows >= 32 and columns >= 32
    assert rows < max(height, 17) + 16 and columns < max(width, 17) + 16


@pytest.mark.parametrize(
    ("source", "scale", "expected"),
    [
        ((480, 854), 1.0, (15, 27)),
        ((480, 854), 0.5, (15, 27)),  # a token per patch: the same share of the frame
        ((480, 854), 0.7, (15, 27)),
        ((240, 320), 1.0, (8, 10)),
        ((32, 32), 0.5, (2, 2)),
    ],
)
def test_token_grid_is_the_same_on_every_rung(source: tuple[int, int], scale: float, expected: tuple[int, int]) -> None:
    network = resolution.network_size(*source, scale, 480)
    assert resolution.token_grid(*source, network, 480) == expected


def test_prompts_become_rasters_at_stride_four() -> None:
    mask = np.zeros((64, 128), bool)
    mask[16:32, 64:96] = True
    prompts = [
        Prompt(object_id=7, box=np.array([32, 16, 64, 48])),
        Prompt(object_id=3, points=np.array([[66.0, 34.0], [2.0, 2.0]]), point_labels=np.array([1, 0])),
        Prompt(object_id=9, mask=mask),
    ]
    inputs = prompt_rasters.prompt_inputs([3, 7, 8, 9], prompts, (64, 128), (64, 128))
    assert inputs.prompted.tolist() == [1, 1, 0, 1]
    assert inputs.mask_given.tolist() == [0, 0, 0, 1]
    box = inputs.rasters[1, 0]
    assert box.sum() == 8 * 8 and box[4:12, 8:16].all()
    positive, negative = inputs.rasters[0, 1], inputs.rasters[0, 2]
    assert np.unravel_index(positive.argmax(), positive.shape) == (8, 16) and positive.max() == pytest.approx(1.0)
    assert np.unravel_index(negative.argmax(), negative.shape) == (0, 0)
    assert inputs.masks[3, 4:8, 16:24].all() and inputs.masks[3].sum() == 4 * 8
    assert not inputs.rasters[2].any()


def test_overlapping_masks_go_to_the_smaller_object() -> None:
    large, small = np.zeros((2, 8, 8), bool)
    large[1:7, 1:7] = True
    small[3:5, 3:5] = True
    separated = prompt_rasters.separate_masks([Prompt(object_id=1, mask=large), Prompt(object_id=2, mask=small)])
    assert [p.object_id for p in separated] == [1, 2]
    assert np.array_equal(separated[0].mask, large & ~small) and np.array_equal(separated[1].mask, small)
    apart = [Prompt(object_id=1, mask=small), Prompt(object_id=2, points=np.array([[1, 1]]))]
    assert prompt_rasters.separate_masks(apart) == tuple(apart)


def test_a_mask_without_pixels_of_its_own_is_refused() -> None:
    mask = np.ones((4, 4), bool)
    with pytest.raises(InvalidPromptError, match="object 2: smaller masks"):
        prompt_rasters.separate_masks([Prompt(object_id=1, mask=mask), Prompt(object_id=2, mask=mask)])


def test_motion_is_per_frame_of_the_source() -> None:
    flow = np.zeros((4, 4, 2), np.float32)
    flow[0, 0, 0] = 0.5
    once, thrice = (motion_map(Motion(flow), 4, 4, elapsed) for elapsed in (1, 3))
    assert once[0, 0] == pytest.approx(2.0) and np.allclose(thrice, once / 3)
    assert not motion_map(None, 2, 3).any()


def test_masks_are_carried_where_motion_and_mask_are_known() -> None:
    geometry = Geometry.at_scale((64, 128), 1.0, 64)
    mask = np.zeros((16, 32), np.float32)
    mask[4:8, 8:16] = 1.0
    static = Motion(np.zeros((4, 8, 2), np.float32))
    assert not geometry.carry({1: mask}, (1, 2), None).any()
    carried = geometry.carry({1: mask}, (1, 2), static)
    assert carried.shape == (2, 16, 32) and not carried[1].any()
    assert np.array_equal(carried[0], 2.0 * mask - 1.0)


def test_a_box_thinner_than_a_cell_still_marks_one() -> None:
    inputs = prompt_rasters.prompt_inputs(
        [1], [Prompt(object_id=1, box=np.array([127.0, 63.0, 127.5, 63.5]))], (64, 128), (64, 128)
    )
    assert inputs.rasters[0, 0].sum() == 1


def test_probabilities_are_a_softmax_with_background() -> None:
    logits = np.array([[[2.0]], [[-1.0]]], np.float32)
    odds = np.exp([0.0, 2.0, -1.0])
    assert np.allclose(masks.probabilities(logits)[:, 0, 0], (odds / odds.sum())[1:], atol=1e-6)
    assert np.isfinite(masks.probabilities(np.full((2, 1, 1), 90.0, np.float32))).all()


def test_label_map_takes_the_highest_positive_object() -> None:
    logits = np.full((2, 4, 4), -1.0, np.float32)
    logits[0, :, :2] = 1.0
    logits[1, :2, :] = 2.0
    labels = masks.label_map(logits, [5, 6], 4, 4)
    assert labels.dtype == np.uint8
    assert labels.tolist() == [[6] * 4] * 2 + [[5, 5, 0, 0]] * 2


@pytest.mark.parametrize(("ids", "dtype"), [([255], np.uint8), ([256], np.uint16), ([], np.uint8)])
def test_label_map_widens_for_large_ids(ids: list[int], dtype: type) -> None:
    assert masks.label_map(np.ones((len(ids), 2, 2), np.float32), ids, 8, 8).dtype == dtype


def assert_drawn(logits: np.ndarray, ids: list[int], height: int, width: int) -> np.ndarray:
    """Compare a label map with floats over the whole frame; it may differ where the two best answers nearly tie."""
    labels = masks.label_map(logits, ids, height, width)
    full = np.stack([cv2.resize(one, (width, height), interpolation=cv2.INTER_CUBIC) for one in logits])
    answers = np.concatenate([np.zeros((1, height, width), np.float32), full])
    given = np.zeros((height, width), int)
    for index, object_id in enumerate(ids):
        given[labels == object_id] = index + 1
    behind = answers.max(axis=0) - np.take_along_axis(answers, given[None], 0)[0]
    # Rounding to levels costs half a level of each of two answers, along either axis and at the end.
    assert behind.max() <= 3.0 * np.abs(logits).max() / 92.0
    # A boundary is as long as the frame, not as large.
    assert np.count_nonzero(behind) < 2 * (height + width)
    return labels


def blobs(seed: int, rows: int, columns: int) -> np.ndarray:
    """Logits of noisy round objects, some of them cut by the frame's edge; one is absent."""
    noise = np.random.default_rng(seed)
    y, x = np.mgrid[:rows, :columns]
    objects = [np.full((rows, columns), -5.0)]
    for radius in (rows / 2, rows / 6, 2.0):
        distance = np.hypot(y - noise.uniform(0, rows), x - noise.uniform(0, columns))
        shape = (radius - distance) * noise.uniform(0.3, 2.0) + noise.normal(0.0, 0.7, (rows, columns))
        objects.append(np.clip(shape, -noise.uniform(5.0, 25.0), 15.0))
    return np.stack(objects).astype(np.float32)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(
    ("cells", "pixels"),
    [
        ((120, 160), (480, 640)),
        ((84, 112), (480, 640)),
        ((120, 216), (720, 1280)),
        ((120, 216), (480, 854)),
        ((9, 8), (31, 37)),
    ],
)
def test_label_map_is_that_of_objects_interpolated_over_the_whole_frame(
    cells: tuple[int, int], pixels: tuple[int, int], seed: int
) -> None:
    assert_drawn(blobs(seed, *cells), [9, 3, 4, 7], *pixels)


def test_label_map_knows_what_the_interpolation_overshoots_far_from_the_object() -> None:
    logits = np.full((1, 16, 16), -10.0, np.float32)
    logits[0, 1, 1] = 5.0
    # Between two columns that are just negative, amid others that are far below: 1.19 * -1 + 0.19 * 10 is positive.
    logits[0, :, 11:13] = -1.0
    assert assert_drawn(logits, [2], 64, 64)[32, 47:49].tolist() == [2, 2]


def test_a_boundary_is_drawn_where_the_logits_change_their_sign() -> None:
    # From -8 to 8 with a level of 8 / 92: rounding must not move the boundary to either side.
    ramp = np.linspace(-8.0, 8.0, 64, dtype=np.float32)
    logits = np.broadcast_to(ramp, (2, 8, 64)).copy()
    logits[1] = -logits[0]
    labels = masks.label_map(logits, [1, 2], 64, 512)
    assert (labels[:, :255] == 2).all() and (labels[:, 257:] == 1).all()


def test_what_overshoots_along_an_axis_stays_inside_a_byte() -> None:
    # Cells that are the largest and the smallest in turn overshoot by three eighths; cut off, one object would tie with
    # the other where it is ahead.
    logits = np.full((2, 4, 32), -8.0, np.float32)
    logits[0, :, ::2] = 8.0
    logits[1, :, ::2] = 7.0
    full = [cv2.resize(one, (256, 32), interpolation=cv2.INTER_CUBIC) for one in logits]
    assert full[0].max() > 8.5
    for order in ([0, 1], [1, 0]):
        labels = masks.label_map(logits[order], [index + 1 for index in order], 32, 256)
        assert (labels[full[0] > 8.0] == 1).all()


def test_nothing_is_drawn_where_the_logits_are_zero() -> None:
    logits = np.zeros((1, 8, 8), np.float32)
    logits[0, 2, 2] = 4.0
    labels = masks.label_map(logits, [1], 64, 64)
    # The kernel reaches two cells of 8 px.
    assert labels[20, 20] == 1 and not labels[40:].any() and not labels[:, 40:].any()


@pytest.mark.parametrize("bad", [np.nan, -np.inf, -1024.0])
def test_an_object_s_broken_logits_leave_the_others_as_they_are(bad: float) -> None:
    logits = blobs(0, 60, 80)[1:3]
    alone = masks.label_map(logits, [1, 2], 480, 640)
    broken = np.concatenate([logits, np.full((1, 60, 80), -5.0, np.float32)])
    broken[2, 30, 40] = 3.0
    broken[2, 0, 0] = bad
    labels = masks.label_map(broken, [1, 2, 3], 480, 640)
    elsewhere = np.ones(labels.shape, bool)
    elsewhere[220:270, 300:350] = False  # where the third object has a cell of its own
    assert np.mean(labels[elsewhere] != alone[elsewhere]) < 0.005


def test_given_mask_is_exact() -> None:
    labels = np.array([[1, 1, 2], [2, 2, 0]], np.uint8)
    mask = np.array([[0, 1, 1], [0, 0, 1]], bool)
    masks.impose_mask(labels, 1, mask)
    assert labels.tolist() == [[0, 1, 1], [2, 2, 1]]


def test_describe_measures_box_area_and_centroid() -> None:
    labels = np.zeros((20, 30), np.uint8)
    labels[4:6, 10:14] = 3
    labels[15, 10] = 3
    found = masks.describe(labels, 3, 0.75, ObjectState.TRACKED)
    assert found.box == (10, 4, 14, 16) and found.area == 9
    assert found.centroid == pytest.approx(((11.5 * 8 + 10) / 9, (4.5 * 8 + 15) / 9))
    empty = masks.describe(labels, 4, 0.1, ObjectState.LOST)
    assert empty.area == 0 and empty.box == (0, 0, 0, 0)
