"""Objects in film are found by their own motion, and by what their boxes say of them."""

from typing import Any

import cv2
import numpy as np
import pytest

from sam2lite_core.errors import ConfigurationError
from sam2lite_core.tracker import Tracker
from training.config import loading
from training.labelling.moving_objects import MOVES, Candidate, Search, choose, find_objects, own_motion, suggest

from .films import HEIGHT, WIDTH, disk, film

SEARCH = Search(rows=3, columns=3)


@pytest.mark.parametrize("axis", [0, 1])
def test_what_moves_beyond_the_camera_stands_out(axis: int) -> None:
    # The camera pans by 5 px a frame; the disks move by 6 px on it, right and left.
    images = [np.roll(image, 5 * t, axis=axis) for t, image in enumerate(film())]
    moves = own_motion(images[:3])
    for x in (90, 330):
        assert np.median(moves[disk(x, 120, 30)]) == pytest.approx(12 / WIDTH, rel=0.25)
    assert np.median(moves) < MOVES / 3


def test_motion_is_as_long_up_and_down_as_sideways() -> None:
    turned = [np.ascontiguousarray(np.rot90(image)) for image in film()[:3]]
    moves = own_motion(turned)  # 432 px high, 240 wide: the disks move up and down by 12 px
    assert np.median(moves[np.rot90(disk(90, 120, 30))]) == pytest.approx(12 / HEIGHT, rel=0.25)


def test_what_moves_is_asked_for_by_boxes_and_clicks() -> None:
    moves = np.zeros((HEIGHT, WIDTH), np.float32)
    moves[disk(216, 120, 45)] = 2 * MOVES
    moves[118:122, 200:230] = 0  # a limb that stands still
    moves[10:14, 10:14] = 2 * MOVES  # too small for an object
    box, click = suggest(moves, SEARCH)
    assert box.box is not None and box.box.tolist() == pytest.approx([171, 75, 262, 166], abs=8)
    assert click.points is not None and click.points.tolist() == [[216.0, 120.0]], "the only click that moves"
    assert suggest(np.zeros_like(moves), SEARCH) == []


def rectangle(x0: int, y0: int, x1: int, y1: int) -> np.ndarray:
    mask = np.zeros((100, 100), bool)
    mask[y0:y1, x0:x1] = True
    return mask


def candidate(mask: np.ndarray, beyond: float = 0.02, again: float = 0.9) -> Candidate:
    return Candidate(mask, beyond, again)


LEFT, RIGHT = rectangle(0, 0, 30, 30), rectangle(60, 0, 90, 30)


@pytest.mark.parametrize(
    ("candidates", "expected"),
    [
        ([candidate(LEFT, 0.01), candidate(RIGHT, 0.02)], [RIGHT, LEFT]),  # who moves more comes first
        ([candidate(LEFT, again=0.79), candidate(RIGHT)], [RIGHT]),  # its box says something else
        ([candidate(LEFT, MOVES / 3), candidate(RIGHT)], [RIGHT]),  # moves like all else
        ([candidate(LEFT | RIGHT), candidate(LEFT), candidate(RIGHT)], [LEFT, RIGHT]),  # both at once: two pieces
        ([candidate(LEFT), candidate(rectangle(0, 0, 25, 25))], [LEFT]),  # a part of what is there already
        # A fifth of the smaller is shared: it keeps the rest.
        ([candidate(LEFT), candidate(rectangle(25, 0, 50, 30))], [LEFT, rectangle(30, 0, 50, 30)]),
        ([candidate(LEFT), candidate(rectangle(20, 0, 50, 30))], [LEFT]),  # a third
        ([], []),
    ],
)
def test_objects_are_large_whole_moving_and_apart(candidates: list[Candidate], expected: list[Any]) -> None:
    found = choose(candidates, SEARCH)
    assert len(found) == len(expected)
    assert all(np.array_equal(one, other) for one, other in zip(found, expected, strict=True))


def test_no_more_objects_than_asked_for() -> None:
    assert len(choose([candidate(LEFT), candidate(RIGHT)], Search(objects=1))) == 1


def test_moving_objects_are_found() -> None:
    tracker = Tracker("tiny", scale=0.5, threads=1)
    images = film()[:3]
    found = find_objects(tracker, images, SEARCH)
    assert len(found) == 2
    for true in (disk(90, 120), disk(330, 120)):
        assert max((mask & true).sum() / (mask | true).sum() for mask in found) > 0.7
    assert find_objects(tracker, images, Search(rows=3, columns=3, largest=0.01)) == [], "all are larger"
    assert find_objects(tracker, images[:1] * 3, SEARCH) == [], "nothing moves"
    grown = [cv2.resize(image, None, fx=1.5, fy=1.5) for image in images]
    assert len(find_objects(tracker, grown, SEARCH)) == 2, "shares of the frame, not pixels"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"rows": 0}, "rows is 0"),
        ({"objects": 0}, "objects is 0"),
        ({"again": 1.2}, "again is 1.2"),
        ({"smallest": 0.0}, "smallest is 0.0 and largest 0.4"),
        ({"smallest": 0.5}, "smallest is 0.5 and largest 0.4"),
    ],
)
def test_a_search_that_cannot_be_is_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        loading.build(Search, change)
