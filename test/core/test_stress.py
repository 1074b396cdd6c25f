"""The stress sets keep what their names promise, and what became of absences is counted by hand."""

import numpy as np
import pytest

from sam2lite_core.datasets.stress import Stress
from sam2lite_core.errors import ConfigurationError
from sam2lite_core.evaluation.absence import AbsenceSummary, summarise_absences
from sam2lite_core.evaluation.davis_protocol import object_scores, sequence_scores
from sam2lite_core.evaluation.evaluate import evaluate_sequence, result_document
from sam2lite_core.evaluation.results import Evaluation, SequenceResult
from sam2lite_core.scenes.stress import FRAMES, HEIGHT, SETS, WIDTH, make_scene
from sam2lite_core.types import StepTimings, TrackResult

SEEDS = range(2)


def labels(name, seed, frames=range(0, FRAMES, 6)):
    scene = make_scene(name, seed)
    return np.stack([scene.draw(index)[1] for index in frames])


@pytest.mark.parametrize("name", SETS)
def test_every_scene_is_made_again_by_its_seed(name):
    image, truth = make_scene(name, 0).draw(40)
    again, same_truth = make_scene(name, 0).draw(40)
    other, _ = make_scene(name, 1).draw(40)
    assert image.shape == (HEIGHT, WIDTH, 3)
    assert image.dtype == truth.dtype == np.uint8
    assert np.array_equal(image, again)
    assert np.array_equal(truth, same_truth)
    assert not np.array_equal(image, other)


@pytest.mark.parametrize("name", ["long_occlusion", "exit_return"])
@pytest.mark.parametrize("seed", SEEDS)
def test_absences_are_long_and_leave_time_to_return(name, seed):
    areas = (labels(name, seed, range(0, FRAMES, 3)) == 1).sum((1, 2))
    gone = np.flatnonzero(areas == 0)
    assert len(gone) >= 8  # 24 frames
    assert np.array_equal(gone, np.arange(gone[0], gone[-1] + 1))
    assert areas[0] > 3000
    assert areas[24:].min() > 0.25 * areas[0]  # 18 frames before the end at the latest


def test_an_occluded_object_is_inside_the_picture_an_exited_one_is_not():
    for name, inside in (("long_occlusion", True), ("exit_return", False)):
        scene = make_scene(name, 0)
        x, y = scene.actors[0].path(0.4)
        assert (0 < x < WIDTH and 0 < y < HEIGHT) == inside


@pytest.mark.parametrize("seed", SEEDS)
def test_tiny_objects_are_below_32_px(seed):
    for truth in labels("tiny_objects", seed):
        for object_id in (1, 2, 3):
            rows, columns = np.nonzero(truth == object_id)
            assert len(rows)
            assert max(np.ptp(rows), np.ptp(columns)) < 40  # the outline waves by up to a third
            assert len(rows) < np.pi * 16**2


@pytest.mark.parametrize("seed", SEEDS)
def test_fast_motion_is_fast(seed):
    centres = [np.argwhere(truth == 1).mean(0) for truth in labels("fast_motion", seed, range(30))]
    steps = np.linalg.norm(np.diff(centres, axis=0), axis=1)
    assert steps.max() > 35
    assert np.median(steps) > 20


def test_light_changes_and_comes_back_at_once():
    scene = make_scene("light_change", 0)
    brightness = [scene.draw(index)[0].mean() for index in range(0, FRAMES, 4)]
    assert min(brightness) < 0.5 * brightness[0]
    assert max(np.diff(brightness)) > 0.5 * brightness[0]


def test_sixteen_objects_are_there_from_the_start():
    assert np.unique(labels("sixteen_objects", 0, [0])).tolist() == list(range(17))


@pytest.mark.parametrize("seed", SEEDS)
def test_look_alikes_look_alike_and_come_close(seed):
    scene = make_scene("look_alikes", seed)
    assert sorted(actor.object_id for actor in scene.actors) == [0, 0, 1]
    means = np.array([actor.body.texture.mean((0, 1)) for actor in scene.actors])
    assert np.abs(means - means[0]).max() < 30
    target = next(actor for actor in scene.actors if actor.object_id)
    for rival in (actor for actor in scene.actors if not actor.object_id):
        times = np.linspace(0, 1, FRAMES)
        gaps = [np.hypot(*np.subtract(target.path(t), rival.path(t))) for t in times]
        assert min(gaps) < 60


class CopyTracker:
    def reset(self):
        self.label_map = None

    def step(self, image, prompts=()):
        for prompt in prompts:
            self.label_map = prompt.mask.astype(np.uint8)
        return TrackResult(self.label_map, (), StepTimings(inference_ms=5.0))


def test_a_clip_is_scored_like_any_sequence_and_counts_for_its_set():
    dataset = Stress(("exit_return",), 1)
    assert dataset.names() == ["exit_return-00"]
    result = evaluate_sequence(CopyTracker(), dataset.open("exit_return-00"))
    assert len(result.frames["names"]) == FRAMES
    document = result_document(Evaluation("", {"data": dataset.describe()}, (result,), {}))
    assert document["sets"] == {"exit_return": result.scores.jf}
    absence = document["absence"]
    assert (absence["absences"], absence["returns"], absence["lost_within_10"]) == (1, 1, 0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"sets": ("rain",)}, "no stress set 'rain'; choose from long_occlusion"),
        ({"sets": ()}, "no stress set chosen"),
        ({"clips": 0}, "0 clips"),
    ],
)
def test_sets_that_do_not_exist_are_refused(options, message):
    with pytest.raises(ConfigurationError, match=message):
        Stress(**options)


# --- absences, by hand


def sequence(areas, lost, j=None):
    """One object of these areas on 60 frames; LOST on the given frames; J is 1 except where `j` says."""
    frames = tuple(range(1, len(areas) - 1))
    scores = [1.0 if j is None else j.get(index, 1.0) for index in frames]
    return SequenceResult(
        "clip",
        sequence_scores([object_scores(1, scores, scores, frames)]),
        None,
        {},
        {
            "names": [],
            "true_area": [{"1": area} if area else {} for area in areas],
            "lost": [[1] if index in lost else [] for index in range(len(areas))],
        },
    )


def areas(gone, back, length=60):
    return [0 if gone <= index < back else 100 for index in range(length)]


@pytest.mark.parametrize(
    ("result", "expected"),
    [
        pytest.param(sequence(areas(20, 32), lost=range(25, 33)), AbsenceSummary(1, 1, 1, 1, 0), id="as it should be"),
        pytest.param(sequence(areas(20, 32), lost=range(30, 33)), AbsenceSummary(1, 1, 0, 1, 0), id="noticed too late"),
        pytest.param(
            sequence(areas(20, 32), lost=range(29, 47)),
            AbsenceSummary(1, 1, 1, 0, 0),
            id="noticed in the last frame, found one too late",
        ),
        pytest.param(
            sequence(areas(20, 32), range(25, 33), dict.fromkeys(range(32, 60), 0.5)),
            AbsenceSummary(1, 1, 1, 0, 0),
            id="tracked elsewhere is not found",
        ),
        pytest.param(sequence(areas(20, 29), lost=()), AbsenceSummary(0, 0, None, None, 0), id="too short to count"),
        pytest.param(sequence(areas(20, 60), lost=range(20, 60)), AbsenceSummary(1, 0, 1, None, 0), id="never back"),
        # Visible after the first frame: 60 - 1 - 12 - 15 = 32 frames, 4 of them LOST.
        pytest.param(
            sequence(areas(20, 32), lost=[5, 6, *range(21, 34), 50, 51]),
            AbsenceSummary(1, 1, 1, 1, 4 / 32),
            id="called LOST when it was there",
        ),
        # A sliver of 24 % for 10 frames: back on frame 42, so that settling lasts until 56.
        pytest.param(
            sequence([24 if 32 <= i < 42 else a for i, a in enumerate(areas(20, 32))], lost=range(21, 56)),
            AbsenceSummary(1, 1, 1, 1, 0),
            id="a sliver is no return",
        ),
    ],
)
def test_absences_by_hand(result, expected):
    assert summarise_absences([result]) == expected


def test_masks_from_elsewhere_have_no_absences():
    result = SequenceResult("clip", None, None, {}, {"names": []})
    assert summarise_absences([result]) == AbsenceSummary(0, 0, None, None, None)
