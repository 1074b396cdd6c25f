"""Each dataset's published layout, in miniature; and masks that others made."""

import json
import zipfile

import cv2
import numpy as np
import pytest

from sam2lite_core.cli import app
from sam2lite_core.datasets.bdd100k import Bdd100k
from sam2lite_core.datasets.vos import Mose, YouTubeVos
from sam2lite_core.errors import SourceError
from sam2lite_core.evaluation.evaluate import evaluate_sequence
from sam2lite_core.evaluation.given_masks import score_results
from sam2lite_core.media.label_map import encode_label_map, read_label_map
from sam2lite_core.types import StepTimings, TrackResult

SIZE = 40


def square(left, value, top=10, side=8):
    mask = np.zeros((SIZE, SIZE), np.uint8)
    mask[top : top + side, left : left + side] = value
    return mask


EMPTY = square(0, 0)
FIRST, BOTH, OTHER = square(2, 1), square(2, 1) + square(25, 2), square(25, 2)


class CopyTracker:
    """Answers with every mask that it was shown, where it was shown."""

    def reset(self):
        self.label_map, self.shown, self.index = np.zeros((SIZE, SIZE), np.uint16), {}, -1

    def step(self, image, prompts=()):
        self.index += 1
        for prompt in prompts:
            self.shown[prompt.object_id] = self.index
            self.label_map[prompt.mask] = prompt.object_id
        return TrackResult(self.label_map.copy(), (), StepTimings(inference_ms=20.0))


def write_images(folder, names):
    folder.mkdir(parents=True)
    for name in names:
        assert cv2.imwrite(str(folder / f"{name}.jpg"), np.full((SIZE, SIZE, 3), 90, np.uint8))


def write_masks(folder, masks):
    folder.mkdir(parents=True)
    for name, mask in masks.items():
        (folder / f"{name}.png").write_bytes(encode_label_map(mask, indexed=True))


def write_split(root, masks, frames):
    write_images(root / "JPEGImages" / "clip", frames)
    write_masks(root / "Annotations" / "clip", masks)
    return root


def follow(dataset, masks=None):
    tracker = CopyTracker()
    return evaluate_sequence(tracker, dataset.open("clip"), masks=masks), tracker


def run(*arguments):
    with pytest.raises(SystemExit) as end:
        app.main([str(argument) for argument in arguments])
    assert not end.value.code


FRAMES = [f"{index:05d}" for index in range(0, 30, 5)]
TRUTH = dict(zip(FRAMES, [FIRST, FIRST, BOTH, BOTH, OTHER, OTHER], strict=True))
SHOWING = {FRAMES[0]: FIRST, FRAMES[2]: BOTH}


@pytest.mark.parametrize("layout", [YouTubeVos, Mose])
def test_objects_that_appear_later_are_shown_then_and_scored_from_the_next_frame_on(tmp_path, layout):
    result, tracker = follow(layout(write_split(tmp_path, TRUTH, FRAMES)))
    assert tracker.shown == {1: 0, 2: 2}
    one, two = result.scores.objects
    assert (one.object_id, one.frames, one.frames_j) == (1, (1, 2, 3, 4), (1, 1, 1, 0))
    assert (two.object_id, two.frames, two.frames_j) == (2, (3, 4), (1, 1))


@pytest.mark.parametrize(("layout", "place"), [(YouTubeVos, "Annotations/clip/{}.png"), (Mose, "clip/{}.png")])
def test_a_split_without_truth_gives_masks_for_the_server(tmp_path, layout, place):
    root = write_split(tmp_path / "valid", SHOWING, FRAMES)
    result, tracker = follow(layout(root), tmp_path / "masks")
    assert tracker.shown == {1: 0, 2: 2}
    assert (result.scores, result.stability) == (None, None)
    written = sorted(path.relative_to(tmp_path / "masks").as_posix() for path in tmp_path.rglob("masks/**/*.png"))
    assert written == [place.format(name) for name in FRAMES]
    expected = [FIRST, FIRST, BOTH, BOTH, BOTH, BOTH]
    for name, labels in zip(written, expected, strict=True):
        assert np.array_equal(read_label_map(tmp_path / "masks" / name), labels)
    # As docs/evaluation.md says to pack them.
    archive = tmp_path / "submission.zip"
    zipfile.main(["-c", str(archive), *map(str, (tmp_path / "masks").iterdir())])
    with zipfile.ZipFile(archive) as packed:
        assert sorted(name for name in packed.namelist() if not name.endswith("/")) == written


@pytest.mark.parametrize("layout", [YouTubeVos, Mose])
def test_the_servers_read_the_masks_as_indexed_png_of_8_bits(tmp_path, layout):
    """The object appears on the third frame, so that the first masks are empty."""
    image = pytest.importorskip("PIL.Image", reason="needs Pillow, with which the servers read: pip install Pillow")
    root = write_split(tmp_path / "valid", {FRAMES[2]: OTHER}, FRAMES)
    follow(layout(root), tmp_path / "masks")
    written = sorted((tmp_path / "masks").rglob("*.png"))
    assert len(written) == len(FRAMES)
    for path, labels in zip(written, [EMPTY, EMPTY, OTHER, OTHER, OTHER, OTHER], strict=True):
        assert tuple(path.read_bytes()[24:26]) == (8, 3)  # the PNG header's bit depth and colour type
        read = image.open(path)
        assert read.mode == "P"
        assert np.array_equal(np.asarray(read.convert("P")), labels)


def test_ytvos_writes_the_frames_that_its_list_names(tmp_path):
    """The frames in between are followed, not submitted."""
    between = [f"{index:05d}" for index in range(26)]
    root = write_split(tmp_path / "valid", SHOWING, between)
    objects = {"1": {"category": "a", "frames": FRAMES[:3]}, "2": {"category": "b", "frames": FRAMES[2:]}}
    (root / "meta.json").write_text(json.dumps({"videos": {"clip": {"objects": objects}}}))
    result, _ = follow(YouTubeVos(root), tmp_path / "masks")
    assert len(result.frames["names"]) == 26
    assert sorted(path.stem for path in (tmp_path / "masks").rglob("*.png")) == FRAMES


def test_ytvos_scores_masks_that_are_sparser_than_the_frames(tmp_path):
    between = [f"{index:05d}" for index in range(31)]
    result, _ = follow(YouTubeVos(write_split(tmp_path, TRUTH, between)))
    assert [entry.frames for entry in result.scores.objects] == [(5, 10, 15, 20, 25), (15, 20, 25)]


# --- BDD100K


def bitmask(*entries):
    """RGBA bytes of (mask, category, attributes, id)."""
    rgba = np.zeros((SIZE, SIZE, 4), np.uint8)
    for mask, category, attributes, object_id in entries:
        rgba[mask != 0] = (category, attributes, object_id >> 8, object_id & 255)
    encoded, data = cv2.imencode(".png", rgba[..., [2, 1, 0, 3]])
    assert encoded
    return data.tobytes()


CAR, CROWD, IGNORED = ((square(2, 1), 3, 0b0100, 513), (square(14, 1), 1, 0b0010, 7), (square(25, 1), 1, 0b0001, 8))


@pytest.fixture
def bdd(tmp_path):
    names = [f"clip-{index:07d}" for index in range(1, 5)]
    write_images(tmp_path / "images" / "seg_track_20" / "val" / "clip", names)
    folder = tmp_path / "labels" / "seg_track_20" / "bitmasks" / "val" / "clip"
    folder.mkdir(parents=True)
    for name in names:
        (folder / f"{name}.png").write_bytes(bitmask(CAR, CROWD, IGNORED))
    return tmp_path


def test_bdd100k_ids_span_two_channels_and_crowds_are_background(bdd):
    found = Bdd100k(bdd).read_mask(next((bdd / "labels").rglob("*.png")))
    assert found.dtype == np.uint16
    assert np.array_equal(found, 513 * (square(2, 1) != 0))


def test_bdd100k_bitmasks_by_hand(tmp_path):
    """Truncated and occluded instances count; category 0, crowds and ignored regions are background."""
    pixels = [  # category, flags, instance
        (3, 0, 258), (3, 8, 258), (8, 4, 7), (3, 2, 9), (3, 1, 10), (3, 3, 12), (0, 0, 11), (1, 12, 65535),
    ]  # fmt: skip
    image = np.array([[[i >> 8, flags, category, i & 255] for category, flags, i in pixels]], np.uint8)
    assert cv2.imwrite(str(tmp_path / "a.png"), image)
    assert Bdd100k(tmp_path).read_mask(tmp_path / "a.png").tolist() == [[258, 258, 7, 0, 0, 0, 0, 65535]]
    assert cv2.imwrite(str(tmp_path / "b.png"), image[..., :3])
    with pytest.raises(SourceError, match=r"b\.png: not a bitmask; .* four 8-bit channels"):
        Bdd100k(tmp_path).read_mask(tmp_path / "b.png")


def test_bdd100k_is_scored_as_published(bdd, tmp_path):
    assert Bdd100k(bdd).names() == ["clip"]
    result, tracker = follow(Bdd100k(bdd), tmp_path / "masks")
    assert tracker.shown == {513: 0}
    assert result.scores.jf == 1
    assert read_label_map(tmp_path / "masks" / "clip" / "clip-0000004.png").max() == 513


# --- what is wrong is named


def ytvos(root):
    return YouTubeVos(write_split(root, TRUTH, FRAMES))


def mose(root):
    return Mose(write_split(root, TRUTH, FRAMES))


def drop(path):
    return lambda root: (root / path).unlink()


def write(path, data):
    return lambda root: (root / path).write_bytes(data)


SMALL = encode_label_map(np.ones((20, 30), np.uint8))


@pytest.mark.parametrize("layout", [ytvos, mose])
@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (drop("JPEGImages/clip/00010.jpg"), r"JPEGImages/clip/00010\.jpg: missing; .*00010\.png is its mask"),
        (write("Annotations/clip/00015.png", SMALL), r"00015\.png: mask is 30x20, its frame 40x40"),
        (write("Annotations/clip/00015.png", b"x"), r"00015\.png: not a PNG"),
        (write("JPEGImages/clip/00015.jpg", b"x"), r"00015\.jpg: not a readable image"),
    ],
)
def test_spoiled_videos_name_the_file(tmp_path, layout, spoil, message):
    dataset = layout(tmp_path)
    spoil(tmp_path)
    with pytest.raises(SourceError, match=message):
        follow(dataset)


def test_mose_wants_all_masks_or_the_first(tmp_path):
    dataset = mose(tmp_path)
    drop("Annotations/clip/00015.png")(tmp_path)
    with pytest.raises(SourceError, match=r"Annotations/clip/00015\.png: missing"):
        dataset.open("clip")


@pytest.mark.parametrize(
    ("meta", "message"),
    [
        ("{", r"meta\.json: says nothing usable of video 'clip'"),
        ('{"videos": {}}', r"meta\.json: says nothing usable of video 'clip' \(KeyError"),
        ('{"videos": {"clip": {"objects": {"1": {"frames": ["00099"]}}}}}', r"clip/00099\.jpg: missing"),
    ],
)
def test_a_list_that_does_not_fit_is_named(tmp_path, meta, message):
    dataset = ytvos(tmp_path)
    (tmp_path / "meta.json").write_text(meta)
    with pytest.raises(SourceError, match=message):
        dataset.open("clip")


@pytest.mark.parametrize(
    ("data", "message"),
    [(b"", "not a bitmask"), (encode_label_map(FIRST), "not a bitmask"), (None, "missing; every frame")],
)
def test_spoiled_bitmasks_are_named(bdd, data, message):
    path = bdd / "labels" / "seg_track_20" / "bitmasks" / "val" / "clip" / "clip-0000002.png"
    path.unlink() if data is None else path.write_bytes(data)
    with pytest.raises(SourceError, match=f"clip-0000002.png: {message}"):
        follow(Bdd100k(bdd))


def test_a_bitmask_without_its_frame_is_named(bdd):
    (bdd / "images" / "seg_track_20" / "val" / "clip" / "clip-0000002.jpg").unlink()
    with pytest.raises(SourceError, match=r"clip-0000002\.jpg: missing; .*clip-0000002\.png is its mask"):
        Bdd100k(bdd).open("clip")


@pytest.mark.parametrize("layout", [YouTubeVos, Mose, Bdd100k])
def test_a_folder_of_another_layout_is_refused(tmp_path, layout):
    with pytest.raises(SourceError, match="no such folder; give the folder"):
        layout(tmp_path).names()


def test_empty_folders_are_named(tmp_path):
    (tmp_path / "Annotations").mkdir()
    with pytest.raises(SourceError, match="Annotations: no sequence in this folder"):
        Mose(tmp_path).names()
    (tmp_path / "Annotations" / "clip").mkdir()
    (tmp_path / "JPEGImages" / "clip").mkdir(parents=True)
    with pytest.raises(SourceError, match="JPEGImages/clip: no image in this folder"):
        Mose(tmp_path).open("clip")
    write_images(tmp_path / "JPEGImages" / "other", FRAMES)
    (tmp_path / "Annotations" / "other").mkdir()
    with pytest.raises(SourceError, match="Annotations/other: no mask in this folder"):
        Mose(tmp_path).open("other")


def test_masks_without_objects_are_nothing_to_follow(tmp_path):
    dataset = Mose(write_split(tmp_path, dict.fromkeys(FRAMES, EMPTY), FRAMES))
    with pytest.raises(SourceError, match=r"clip/00000\.png: no mask shows an object"):
        follow(dataset)


@pytest.mark.parametrize("layout", ["ytvos", "mose", "bdd100k"])
def test_the_command_follows_each_layout(tmp_path, layout, request, capsys):
    bdd = layout == "bdd100k"
    root = request.getfixturevalue("bdd") if bdd else write_split(tmp_path / "split", TRUTH, FRAMES)
    out = tmp_path / "out"
    run("eval", layout, "--root", root, "--scale", 0.5, "--threads", 1, "--out", out)
    document = json.loads((out / f"{layout}.json").read_text())
    assert [entry["name"] for entry in document["sequences"]] == ["clip"]
    assert document["sequences"][0]["frames"]["memory_tokens"][-1] > 0
    said = capsys.readouterr()
    assert "clip" in said.out
    note = f"sam2lite: {root / 'meta.json'}: missing, as no published split is; taking every frame for one that "
    assert said.err == (f"{note}the server scores\n" if layout == "ytvos" else "")


def test_ytvos_assumes_nothing_with_its_list(tmp_path):
    (tmp_path / "meta.json").write_text("{}")
    assert YouTubeVos(tmp_path).assumption is None


# --- masks that others made


@pytest.fixture
def results(tmp_path):
    masks = {**TRUTH, FRAMES[3]: FIRST}
    write_masks(tmp_path / "gt" / "clip", TRUTH)
    write_masks(tmp_path / "pred" / "clip", masks)
    return tmp_path


def test_results_are_scored_as_our_own_are(results):
    evaluation = score_results(results / "pred", results / "gt")
    one, two = evaluation.objects
    assert one.frames_j == (1, 1, 1, 1)
    assert two.frames_j == (0, 1)
    assert evaluation.jf == pytest.approx((1 + 0.5) / 2)
    assert evaluation.fps is None


def test_results_of_one_sequence_need_no_folder_and_no_first_mask(results):
    (results / "pred" / "clip" / "00000.png").unlink()
    alone = score_results(results / "pred" / "clip", results / "gt" / "clip")
    assert alone.jf == score_results(results / "pred", results / "gt").jf


def test_results_may_be_denser_than_the_truth_and_hold_other_folders(results):
    before = score_results(results / "pred", results / "gt").jf
    (results / "pred" / "clip" / "00007.png").write_bytes(encode_label_map(FIRST))
    (results / "pred" / "logs").mkdir()
    (results / "pred" / "read me.txt").write_text("ours")
    assert score_results(results / "pred", results / "gt").jf == before


def test_results_as_one_object(results):
    evaluation = score_results(results / "pred", results / "gt", as_one=True)
    assert [entry.frames_j for entry in evaluation.objects] == [(1, 1, 0.5, 1)]


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (drop("pred/clip/00015.png"), r"pred/clip/00015\.png: no such mask file"),
        (write("pred/clip/00015.png", SMALL), r"00015\.png: mask is 30x20, its truth 40x40"),
        (
            write("pred/clip/00015.png", encode_label_map(square(1, 9))),
            r"pred/clip/00015\.png: id 9 does not exist in the truth, which has 1, 2",
        ),
        (lambda root: (root / "pred/clip").rename(root / "pred/x"), "pred/clip: no such folder; the truth has"),
        (lambda root: (root / "gt/empty").mkdir(), "pred/empty: no such folder"),
        (lambda root: (root / "gt").rename(root / "x"), "gt: no such folder"),
        (
            lambda root: write_masks(root / "pred/clap", TRUTH),
            "pred/clap: the truth has no sequence of this name, only clip",
        ),
    ],
)
def test_results_that_cannot_be_scored_are_named(results, spoil, message):
    spoil(results)
    with pytest.raises(SourceError, match=message):
        score_results(results / "pred", results / "gt")


def test_the_command_scores_results(results, capsys):
    run("eval", "results", results / "pred", results / "gt", "--json", results / "s.json")
    assert json.loads((results / "s.json").read_text())["jf"] == pytest.approx(0.75)
    assert "75.0" in capsys.readouterr().out
