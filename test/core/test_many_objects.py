"""Several trackers that look like one."""

import numpy as np
import pytest

from sam2lite_core.datasets.stress import Stress
from sam2lite_core.evaluation.many_objects import ManyObjects
from sam2lite_core.evaluation.tracker_options import TrackerOptions
from sam2lite_core.tracker import Tracker
from sam2lite_core.types import ObjectState, Prompt, StepTimings, TrackedObject, TrackResult


class Slots:
    """Follows two objects at most, where they were shown; counts its steps."""

    max_objects = 2

    def __init__(self):
        self.reset()
        self.steps = 0

    def reset(self):
        self.masks = {}

    def step(self, image, prompts=()):
        self.steps += 1
        self.masks |= {prompt.object_id: prompt.mask for prompt in prompts}
        assert len(self.masks) <= 2
        labels = np.zeros(image.shape[:2], np.uint16)
        for object_id, mask in self.masks.items():
            labels[mask] = object_id
        objects = tuple(
            TrackedObject(i, ObjectState.TRACKED, 1.0, (0, 0, 1, 1), 1, (0.0, 0.0)) for i in sorted(self.masks)
        )
        return TrackResult(labels, objects, StepTimings(1.0, 2.0, 3.0, 4.0), 0.5, 8, 10)


IMAGE = np.zeros((20, 20, 3), np.uint8)


def column(object_id, at, width=2):
    mask = np.zeros((20, 20), bool)
    mask[:, at : at + width] = True
    return Prompt(object_id=object_id, mask=mask)


@pytest.fixture
def built():
    return []


@pytest.fixture
def many(built):
    return ManyObjects(lambda: built.append(Slots()) or built[-1])


def test_one_tracker_serves_as_many_as_it_holds(many, built):
    result = many.step(IMAGE, [column(7, 0), column(3, 4)])
    assert len(built) == 1
    assert result.timings == StepTimings(1, 2, 3, 4)
    assert np.unique(result.label_map).tolist() == [0, 3, 7]


def test_more_objects_make_more_trackers_and_one_result(many, built):
    many.step(IMAGE, [column(1, 0), column(2, 4), column(300, 8)])
    result = many.step(IMAGE, [column(4, 12), column(5, 16)])
    assert [sorted(tracker.masks) for tracker in built] == [[1, 2], [4, 300], [5]]
    assert [entry.object_id for entry in result.objects] == [1, 2, 4, 5, 300]
    assert result.label_map[0].tolist() == [1, 1, 0, 0, 2, 2, 0, 0, 300, 300, 0, 0, 4, 4, 0, 0, 5, 5, 0, 0]
    assert (result.timings.total_ms, result.memory_tokens_used, result.scale) == (30, 30, 0.5)


def test_the_earlier_tracker_has_the_pixel_and_its_objects_stay_with_it(many, built):
    many.step(IMAGE, [column(1, 0), column(2, 4), column(3, 0, 6)])
    result = many.step(IMAGE, [column(1, 1)])
    assert sorted(built[0].masks) == [1, 2]
    assert result.label_map[0, :6].tolist() == [3, 1, 1, 3, 2, 2]


def test_trackers_are_kept_for_the_next_sequence_but_idle_until_needed(many, built):
    many.step(IMAGE, [column(1, 0), column(2, 4), column(3, 8)])
    many.reset()
    result = many.step(IMAGE, [column(9, 0)])
    assert [tracker.steps for tracker in built] == [2, 1]
    assert [entry.object_id for entry in result.objects] == [9]


def test_with_few_objects_nothing_differs_from_the_tracker_alone():
    sequence = Stress(("light_change",), 1).open("light_change-00")
    shown = sequence.shown()[0]
    prompts = [Prompt(object_id=i, mask=shown == i) for i in (1, 2)]
    alone, many = Tracker(scale=0.5, threads=1), TrackerOptions(scale=0.5, threads=1).build()
    for frame, _ in zip(sequence.frames(), range(4), strict=False):
        given = prompts if frame.index == 0 else ()
        assert np.array_equal(alone.step(frame.image, given).label_map, many.step(frame.image, given).label_map)
