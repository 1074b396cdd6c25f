"""The DAVIS protocol on miniatures small enough to score by hand."""

import json
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np
import pytest

from sam2lite_core.datasets.davis import Davis
from sam2lite_core.errors import ConfigurationError, SourceError
from sam2lite_core.evaluation.evaluate import evaluate, result_document
from sam2lite_core.evaluation.prompts import prompts_from_masks
from sam2lite_core.media.label_map import encode_label_map, read_label_map
from sam2lite_core.types import StepTimings, TrackResult

SIZE = 40


class CopyTracker:
    """Answers every frame with the first masks; keeps what it was shown."""

    def __init__(self):
        self.shown = []

    def reset(self):
        self.label_map = np.zeros((SIZE, SIZE), np.uint8)

    def step(self, image, prompts=()):
        for prompt in prompts:
            self.shown.append(prompt)
            if prompt.mask is not None:
                self.label_map = np.where(prompt.mask, prompt.object_id, self.label_map).astype(np.uint8)
        return TrackResult(self.label_map, (), StepTimings(inference_ms=20.0))


@dataclass(frozen=True, eq=False)
class CopyOptions:
    """Builds one `CopyTracker` and keeps it."""

    tracker: CopyTracker = field(default_factory=CopyTracker)

    def build(self):
        return self.tracker

    def describe(self):
        return {"variant": "copy", "threads": None}


def evaluate_davis(root, tracker=None, sequences=None, year=2016, **options):
    dataset = Davis(Path(root), year, None if sequences is None else tuple(sequences))
    return evaluate(dataset, CopyOptions(tracker or CopyTracker()), **options)


def list_sequences(root, sequences, year):
    return Davis(Path(root), year, sequences).names()


def square(left, value=255, top=10, side=10):
    mask = np.zeros((SIZE, SIZE), np.uint8)
    mask[top : top + side, left : left + side] = value
    return mask


def write_sequence(root, name, masks, *, below="", indexed=False):
    """Grey frames and these masks, in DAVIS's layout."""
    images, annotations = root / "JPEGImages" / below / name, root / "Annotations" / below / name
    images.mkdir(parents=True)
    annotations.mkdir(parents=True)
    for index, mask in enumerate(masks):
        assert cv2.imwrite(str(images / f"{index:05d}.jpg"), np.full((SIZE, SIZE, 3), 90, np.uint8))
        (annotations / f"{index:05d}.png").write_bytes(encode_label_map(mask, indexed=indexed))


@pytest.fixture
def still_and_moving(tmp_path):
    """`still` stays; `moving` lies 5 px to the right in its two scored frames."""
    write_sequence(tmp_path, "still", [square(10)] * 4)
    write_sequence(tmp_path, "moving", [square(10), square(15), square(15), square(30)])
    return tmp_path


@pytest.mark.parametrize("below", ["", "480p"])
def test_scores_by_hand_in_both_layouts(tmp_path, below):
    write_sequence(tmp_path, "still", [square(10)] * 4, below=below)
    write_sequence(tmp_path, "moving", [square(10), square(15), square(15), square(30)], below=below)
    result = evaluate_davis(tmp_path)
    moving, still = result.sequences
    assert (moving.name, still.name) == ("moving", "still")
    assert (still.scores.j.mean, still.scores.f.mean) == (1, 1)
    assert moving.scores.j.mean == pytest.approx(50 / 150)
    assert moving.scores.j.recall == 0
    # Radius 1. Of a boundary's 40 px its two rows of 11 overlap the other's by 6 px each, and the row's next
    # pixel lies within 1 px; the columns lie 5 px apart, but each starts within 1 px of the other's row at
    # its two ends.
    matched = boundary_pixels_within_one(square(10), square(15))
    assert moving.scores.f.mean == pytest.approx(matched / 40)
    assert result.j.mean == pytest.approx((1 + 50 / 150) / 2)
    assert result.jf == pytest.approx((result.j.mean + result.f.mean) / 2)
    assert result.fps == pytest.approx(50)


def boundary_pixels_within_one(first, second):
    """Count, pixel by pixel, the boundary of a 10 px square that lies within 1 px of another's."""

    def ring(mask):
        top, left = np.argwhere(mask).min(0) - 1
        outer = {(y, x) for y in range(top, top + 11) for x in range(left, left + 11)}
        return outer - {(y, x) for y in range(top + 1, top + 10) for x in range(left + 1, left + 10)}

    other = ring(second)
    return sum(any(abs(y - v) + abs(x - u) <= 1 for v, u in other) for y, x in ring(first))


def test_2017_follows_the_first_frames_ids_and_averages_objects(tmp_path):
    first = square(2, 1) + square(25, 2)
    later = square(2, 1) + square(25, 2, top=25) + square(14, 3, top=28)
    write_sequence(tmp_path, "pair", [first, later, first], indexed=True)
    tracker = CopyTracker()
    result = evaluate_davis(tmp_path, tracker, year=2017)
    assert [prompt.object_id for prompt in tracker.shown] == [1, 2]
    assert [(entry.object_id, entry.j.mean) for entry in result.objects] == [(1, 1), (2, 0)]
    assert result.j.mean == 0.5


def test_2016_takes_all_objects_as_one(tmp_path):
    first = square(2, 1) + square(25, 2)
    write_sequence(tmp_path, "pair", [first] * 3, indexed=True)
    tracker = CopyTracker()
    result = evaluate_davis(tmp_path, tracker, year=2016)
    assert [(prompt.object_id, int(prompt.mask.sum())) for prompt in tracker.shown] == [(1, 200)]
    assert result.jf == 1


def test_objects_of_all_sequences_count_the_same(tmp_path):
    """One sequence of one object at J = 1 and one of three at J = 0 average to 1/4, not 1/2."""
    write_sequence(tmp_path, "one", [square(10, 1)] * 3)
    three = square(2, 1, side=6) + square(14, 2, side=6) + square(26, 3, side=6)
    write_sequence(tmp_path, "three", [three, np.zeros_like(three), three])
    assert evaluate_davis(tmp_path, year=2017).j.mean == pytest.approx(0.25)


def test_prompts_by_kind():
    label_map = np.zeros((30, 40), np.uint8)
    label_map[5:16, 20:27] = 4  # 11 x 7 px: the middle column is deepest, 4 px from either side
    label_map[20:30, 0:9] = 9  # touches the border, which counts as outline
    mask, box, point = (prompts_from_masks(label_map, kind) for kind in ("mask", "box", "point"))
    assert [prompt.object_id for prompt in mask] == [4, 9]
    assert np.array_equal(mask[0].mask, label_map == 4)
    assert [prompt.box.tolist() for prompt in box] == [[20, 5, 27, 16], [0, 20, 9, 30]]
    x, y = point[0].points[0]
    assert x == 23
    assert 8 <= y <= 12
    x, y = point[1].points[0]
    assert (x, y) in ((4, 24), (4, 25))


@pytest.mark.parametrize("kind", ["box", "point"])
def test_the_prompt_kind_reaches_the_tracker(still_and_moving, kind):
    tracker = CopyTracker()
    evaluate_davis(still_and_moving, tracker, ["still"], prompt=kind)
    shown = tracker.shown[0]
    assert shown.mask is None
    assert (shown.box is not None) == (kind == "box")
    assert (shown.points is not None) == (kind == "point")


def test_output_holds_masks_and_scores(still_and_moving, tmp_path):
    out = tmp_path / "out"
    seen = []
    result = evaluate_davis(still_and_moving, out=out, progress=lambda *entry: seen.append(entry))
    assert json.loads((out / "davis.json").read_text()) == json.loads(json.dumps(result_document(result)))
    assert np.array_equal(read_label_map(out / "masks" / "moving" / "00003.png"), square(10, 1))
    assert seen == [("moving", 1, 2), ("still", 2, 2)]


@pytest.mark.parametrize(
    ("listing", "content", "year", "expected"),
    [
        (None, "", 2016, ["moving", "still"]),
        ("2017", "still\n", 2017, ["still"]),
        ("2017", "still\n", 2016, ["moving", "still"]),
        ("480p", "/JPEGImages/480p/still/00000.jpg /Annotations/480p/still/00000.png \n" * 2, 2016, ["still"]),
    ],
)
def test_sequences_come_from_the_published_list(still_and_moving, listing, content, year, expected):
    if listing is not None:
        (still_and_moving / "ImageSets" / listing).mkdir(parents=True)
        (still_and_moving / "ImageSets" / listing / "val.txt").write_text(content)
    assert list_sequences(still_and_moving, None, year) == expected


def remove_mask(root):
    (root / "Annotations" / "still" / "00002.png").unlink()


def shrink_mask(root):
    (root / "Annotations" / "still" / "00002.png").write_bytes(encode_label_map(np.zeros((SIZE, 20), np.uint8)))


def shrink_first_mask(root):
    (root / "Annotations" / "still" / "00000.png").write_bytes(encode_label_map(np.ones((20, SIZE), np.uint8)))


def empty_first_mask(root):
    (root / "Annotations" / "still" / "00000.png").write_bytes(encode_label_map(np.zeros((SIZE, SIZE), np.uint8)))


def damage_mask(root):
    (root / "Annotations" / "still" / "00001.png").write_bytes(b"nothing")


def damage_image(root):
    (root / "JPEGImages" / "still" / "00003.jpg").write_bytes(b"nothing")


def remove_images(root):
    (root / "JPEGImages" / "still").rename(root / "JPEGImages" / "elsewhere")


def remove_frame(root):
    (root / "JPEGImages" / "still" / "00002.jpg").unlink()


def shorten(root):
    for name in ("00002", "00003"):
        (root / "JPEGImages" / "still" / f"{name}.jpg").unlink()
        (root / "Annotations" / "still" / f"{name}.png").unlink()


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (remove_mask, r"still/00002\.png: missing"),
        (shrink_mask, r"still/00002\.png: mask is 20x40, its frame 40x40"),
        (shrink_first_mask, r"still/00000\.png: mask is 40x20, its frame 40x40"),
        (empty_first_mask, r"still/00000\.png: the first mask is empty"),
        (damage_mask, r"still/00001\.png: not a PNG"),
        (damage_image, r"still/00003\.jpg: not a readable image"),
        (remove_images, r"JPEGImages/still: no such folder"),
        (remove_frame, r"JPEGImages/still/00002\.jpg: missing; .*Annotations/still/00002\.png is its mask"),
        (shorten, r"still: no frame to score.*at least 3"),
    ],
)
def test_spoiled_data_is_named_and_leaves_no_output(still_and_moving, tmp_path, spoil, message):
    spoil(still_and_moving)
    with pytest.raises(SourceError, match=message):
        evaluate_davis(still_and_moving, sequences=["still"], out=tmp_path / "out")
    assert not [entry for entry in tmp_path.iterdir() if "out" in entry.name]


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"root": "nowhere"}, SourceError, "Annotations: no such folder"),
        ({"sequences": ["still", "horse"]}, SourceError, "no sequence 'horse'; there are moving, still"),
        ({"year": 2018}, ConfigurationError, "year 2018; choose one of 2016, 2017"),
        ({"prompt": "scribble"}, ConfigurationError, "'scribble'; choose one of mask, box, point"),
    ],
)
def test_bad_arguments_are_refused_before_the_tracker_is_built(still_and_moving, change, error, message):
    class Never:
        def step(self, image, prompts=()):
            raise AssertionError("the tracker was used")

    with pytest.raises(error, match=message):
        evaluate_davis(**{"root": still_and_moving, "tracker": Never(), **change})


@pytest.mark.slow
def test_copying_the_first_mask_scores_what_others_measured(shared_data):
    """27.2 is the published figure of the data's own documentation for these ten sequences."""

    class AnySize(CopyTracker):
        def reset(self):
            self.label_map = None

        def step(self, image, prompts=()):
            for prompt in prompts:
                self.label_map = prompt.mask.astype(np.uint8)
            return TrackResult(self.label_map, ())

    result = evaluate_davis(shared_data / "davis16_dev", AnySize())
    assert len(result.sequences) == 10
    assert 100 * result.jf == pytest.approx(27.2, abs=0.05)
