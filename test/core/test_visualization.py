"""Overlays and contact sheets: what is drawn where, and what is left alone."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sam2lite_core.errors import InvalidFrameError
from sam2lite_core.media.overlay import contact_sheet, draw_overlay, fit_image, object_colour
from sam2lite_core.types import ObjectState, TrackedObject


def grey(height=120, width=160, value=100):
    return np.full((height, width, 3), value, np.uint8)


def labels(height=120, width=160):
    """Object 1 in rows 60..99, columns 20..59."""
    label_map = np.zeros((height, width), np.uint8)
    label_map[60:100, 20:60] = 1
    return label_map


def tracked(object_id, state=ObjectState.TRACKED, score=0.9):
    return TrackedObject(object_id, state, score, (0, 0, 1, 1), 1, (0.0, 0.0))


@given(st.integers(1, 65530))
def test_colours_are_stable_bright_and_unlike_their_neighbours(object_id):
    colour = object_colour(object_id)
    assert colour == object_colour(object_id)
    assert all(0 <= channel <= 255 for channel in colour)
    assert max(colour) - min(colour) > 100
    for neighbour in range(object_id + 1, object_id + 4):
        assert sum(abs(a - b) for a, b in zip(colour, object_colour(neighbour), strict=True)) > 60


def test_the_first_twelve_colours_differ():
    colours = np.array([object_colour(index) for index in range(1, 13)], int)
    distances = np.abs(colours[:, None] - colours[None]).sum(-1) + 1000 * np.eye(12, dtype=int)
    assert distances.min() > 40


def test_inside_is_tinted_and_outside_untouched():
    image, label_map = grey(), labels()
    overlay = draw_overlay(image, label_map, opacity=0.5)
    expected = np.round(0.5 * 100 + 0.5 * np.array(object_colour(1)))
    assert np.abs(overlay[80, 40].astype(int) - expected).max() <= 1
    far = np.ones((120, 160), bool)
    far[30:105, 10:70] = False  # the object, its contour and its tag
    assert (overlay[far] == 100).all()
    assert (image == 100).all()


def test_the_contour_is_drawn_in_full_colour():
    overlay = draw_overlay(grey(), labels())
    assert overlay[80, 20].tolist() == pytest.approx(object_colour(1), abs=10)  # anti-aliased


def test_opacity_zero_leaves_the_inside_alone():
    assert draw_overlay(grey(), labels(), opacity=0)[80, 40].tolist() == [100, 100, 100]


def test_an_empty_label_map_changes_nothing():
    image = grey()
    overlay = draw_overlay(image, np.zeros((120, 160), np.uint8))
    assert np.array_equal(overlay, image)
    assert overlay is not image


def test_tags_show_scores_and_names():
    plain = draw_overlay(grey(), labels())
    scored = draw_overlay(grey(), labels(), [tracked(1)])
    named = draw_overlay(grey(), labels(), [tracked(1)], names={1: "robot"})
    widths = [tag_width(overlay) for overlay in (plain, scored, named)]
    assert widths[0] < widths[1] < widths[2]


def tag_width(overlay):
    """Columns above the object that are no longer grey."""
    return int((overlay[:58] != 100).any((0, 2)).sum())


def test_lost_objects_are_listed_in_the_corner():
    overlay = draw_overlay(grey(), labels(), [tracked(1), tracked(7, ObjectState.LOST, 0.1)])
    corner = overlay[:40, :60].reshape(-1, 3)
    assert (corner == object_colour(7)).all(1).any()
    assert not (draw_overlay(grey(), labels(), [tracked(1)])[:40, :15] != 100).any()


@pytest.mark.parametrize("corner", [(0, 0), (0, 140), (100, 0), (100, 140)])
def test_tags_of_objects_at_the_border_stay_inside(corner):
    label_map = np.zeros((120, 160), np.uint8)
    label_map[corner[0] : corner[0] + 20, corner[1] : corner[1] + 20] = 3
    assert draw_overlay(grey(), label_map, [tracked(3)]).shape == (120, 160, 3)


def test_large_ids_are_drawn():
    label_map = labels().astype(np.uint16) * 40000
    assert draw_overlay(grey(), label_map)[80, 20].tolist() == pytest.approx(object_colour(40000), abs=10)


@pytest.mark.parametrize(
    ("image", "label_map"),
    [(grey(), labels(60, 160)[:60]), (grey()[..., 0], labels()), (grey().astype(np.float32), labels())],
)
def test_what_does_not_fit_is_refused(image, label_map):
    with pytest.raises(InvalidFrameError):
        draw_overlay(image, label_map)


def test_contact_sheet_lays_pictures_out_row_by_row():
    images = [grey(60, 80, value) for value in (50, 100, 150, 200, 250)]
    sheet = contact_sheet(images, 2)
    gap = 4
    assert sheet.shape == (3 * (60 + gap) + gap, 2 * (80 + gap) + gap, 3)
    for index, value in enumerate((50, 100, 150, 200, 250)):
        top, left = gap + index // 2 * (60 + gap), gap + index % 2 * (80 + gap)
        assert (sheet[top : top + 60, left : left + 80] == value).all()


def test_captions_stand_below_their_pictures():
    bare, captioned = contact_sheet([grey()] * 2, 2), contact_sheet([grey()] * 2, 2, ["first", "second"])
    strip = captioned.shape[0] - bare.shape[0]
    assert strip > 0
    below = captioned[4 + 120 : 4 + 120 + strip]
    assert (below[:, :160] > 150).any()
    assert (below[:, 168:] > 150).any()


def test_fewer_pictures_than_columns_make_one_row():
    assert contact_sheet([grey(60, 80)], 4).shape == (68, 88, 3)


@pytest.mark.parametrize(
    ("count", "columns", "captions"), [(0, 4, None), (2, 0, None), (2, 2, ["only one"]), (1, 1, ["a", "b"])]
)
def test_impossible_sheets_are_refused(count, columns, captions):
    with pytest.raises(InvalidFrameError):
        contact_sheet([grey()] * count, columns, captions)


@pytest.mark.parametrize(
    ("size", "inside"), [((10, 40), np.s_[30:50, :]), ((40, 10), np.s_[:, 30:50]), ((160, 160), np.s_[:, :])]
)
def test_fit_image_keeps_proportions(size, inside):
    fitted = fit_image(grey(*size), 80, 80)
    expected = np.zeros((80, 80, 3), np.uint8)
    expected[inside] = 100
    assert np.array_equal(fitted, expected)
