"""The rendered clip: the same every time, true to its own labels, and hard in the way it promises."""

import numpy as np
import pytest

from sam2lite_core.errors import ConfigurationError
from sam2lite_core.scenes.clip import MAX_OBJECTS, render_clip

SMALL = {"height": 120, "width": 160, "frames": 21}


@pytest.fixture(scope="module")
def clip():
    return render_clip(3, **SMALL)


def test_shapes_and_types(clip):
    assert clip.frames.shape == (21, 120, 160, 3)
    assert clip.label_maps.shape == (21, 120, 160)
    assert clip.frames.dtype == clip.label_maps.dtype == np.uint8
    assert set(np.unique(clip.label_maps)) == {0, 1, 2}


def test_the_seed_decides_everything(clip):
    again, other = render_clip(3, **SMALL), render_clip(4, **SMALL)
    assert np.array_equal(clip.frames, again.frames)
    assert np.array_equal(clip.label_maps, again.label_maps)
    assert not np.array_equal(clip.label_maps, other.label_maps)


@pytest.mark.parametrize("seed", range(3))
def test_object_1_passes_behind_the_post_and_comes_back(seed):
    areas = (render_clip(seed, **SMALL).label_maps == 1).sum((1, 2))
    hidden = int(np.argmin(areas))
    assert 5 <= hidden <= 16
    assert areas[hidden] < 0.3 * areas[0]
    assert areas[-1] > 0.6 * areas[0]


@pytest.mark.parametrize("objects", range(1, MAX_OBJECTS + 1))
def test_every_object_is_shown_by_the_first_frame(objects):
    first = render_clip(0, height=240, width=320, frames=1, objects=objects).label_maps[0]
    areas = np.bincount(first.ravel(), minlength=objects + 1)[1:]
    assert len(areas) == objects
    assert areas.min() > 0.01 * first.size


def test_the_labels_are_where_the_objects_are_drawn():
    """Leaving object 2 out uncovers what lay below it and changes no other label."""
    both, alone = render_clip(5, **SMALL), render_clip(5, **SMALL, objects=1)
    assert np.array_equal(both.label_maps == 1, (alone.label_maps == 1) & (both.label_maps != 2))


def test_objects_look_unlike_the_ground(clip):
    """Object 1 is red to yellow and object 2 blue: the channels' order must show inside their masks."""
    first, labels = clip.frames[0].astype(float), clip.label_maps[0]
    red, _, blue = first[labels == 1].mean(0)
    assert red > blue + 60
    red, _, blue = first[labels == 2].mean(0)
    assert blue > red + 60


def test_everything_moves(clip):
    for object_id in (1, 2):
        ends = [np.argwhere(clip.label_maps[index] == object_id).mean(0) for index in (0, -1)]
        assert np.abs(ends[0] - ends[1]).max() > 20
    still = (clip.label_maps[0] == 0) & (clip.label_maps[10] == 0)
    assert np.abs(clip.frames[0].astype(int) - clip.frames[10])[still].mean() > 8


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"objects": 0}, "0 rendered objects"),
        ({"objects": 7}, "7 rendered objects"),
        ({"frames": 0}, "0 rendered frames"),
        ({"height": 63}, "160x63"),
        ({"width": 10}, "10x120"),
    ],
)
def test_arguments_outside_their_range_are_refused(change, message):
    with pytest.raises(ConfigurationError, match=message):
        render_clip(**{**SMALL, **change})
