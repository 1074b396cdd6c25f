"""Datasets in miniature, laid out as they are published: clips are right, and every bad file is named."""

import itertools
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch

from sam2lite_core.datasets.registry import LAYOUTS
from sam2lite_core.errors import SourceError
from sam2lite_core.media.label_map import write_label_map
from training.config import loading
from training.config.data import Augmentation, DataConfig, SourceConfig
from training.config.stages import Phase
from training.data.clip import UNKNOWN, SynthesisConfig
from training.data.filmed import draw_crop, draw_frames
from training.data.mixture import Mixture, open_source
from training.data.stream import ERROR, SKIPPED, SampleStream, batch_numbers, batches, collate
from training.data.synthesis.compose import render_clip
from training.data.synthesis.drawn_stills import rendered_stills
from training.data.synthesis.stills import Stills

HEIGHT, WIDTH, FRAMES = 96, 128, 5
SHAPE = SynthesisConfig(height=48, width=64, frames=3)
PLAIN = Augmentation(crop=1.0, flip=0.0, jitter=0.0, blur=0.0, max_gap=1)


def frame(t: int) -> tuple[np.ndarray, np.ndarray]:
    """A picture and its label map: object 5 (red) moves right by 8 px a frame, object 9 (blue) stays."""
    rng = np.random.default_rng(0)
    image = cv2.resize(rng.integers(60, 120, (12, 16, 3), np.uint8), (WIDTH, HEIGHT))
    labels = np.zeros((HEIGHT, WIDTH), np.uint8)
    labels[20:60, 10 + 8 * t : 50 + 8 * t] = 5
    labels[70:90, 90:120] = 9
    # Spots that move with it, for the flow to hold on to.
    spots = cv2.resize(rng.integers(0, 100, (10, 10, 1), np.uint8), (40, 40), interpolation=cv2.INTER_CUBIC)
    image[labels == 5] = np.dstack([np.full_like(spots, 220), spots, spots // 3]).reshape(-1, 3)
    image[labels == 9] = (20, 20, 220)
    return image, labels


def write_image(path: Path, image: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), cv2.cvtColor(image, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, 98])


def write_mask(path: Path, labels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_label_map(path, labels, indexed=True)


def davis(root: Path, empty: bool = False) -> None:
    for name in ("bear", "swan"):
        for t in range(FRAMES):
            image, labels = frame(t)
            write_image(root / "JPEGImages/480p" / name / f"{t:05d}.jpg", image)
            write_mask(root / "Annotations/480p" / name / f"{t:05d}.png", labels * (not empty))
    lists = root / "ImageSets/2017"
    lists.mkdir(parents=True)
    (lists / "train.txt").write_text("bear\n")
    (lists / "val.txt").write_text("swan\n")


def youtube_vos(root: Path, empty: bool = False) -> None:
    names = [f"{5 * t:05d}" for t in range(FRAMES)]
    for number in range(5 * FRAMES):  # every frame is there, every fifth is labelled
        image, _ = frame(number // 5)
        write_image(root / f"train/JPEGImages/003234408d/{number:05d}.jpg", image)
    for t, name in enumerate(names):
        write_mask(root / f"train/Annotations/003234408d/{name}.png", frame(t)[1] * (not empty))
    entry = {"category": "penguin", "frames": names}
    (root / "train/meta.json").write_text(json.dumps({"videos": {"003234408d": {"objects": {"5": entry, "9": entry}}}}))


def mose(root: Path, empty: bool = False) -> None:
    for t in range(FRAMES):
        image, labels = frame(t)
        write_image(root / f"train/JPEGImages/0a1b2c3d/{t:05d}.jpg", image)
        write_mask(root / f"train/Annotations/0a1b2c3d/{t:05d}.png", labels * (not empty))


def bdd100k(root: Path, empty: bool = False) -> None:
    for t in range(FRAMES):
        image, labels = frame(t)
        name = f"b1c66a42-6f7d68ca/b1c66a42-6f7d68ca-{t + 1:07d}"
        write_image(root / f"images/seg_track_20/train/{name}.jpg", image)
        path = root / f"labels/seg_track_20/bitmasks/train/{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(path), bitmask(labels * (not empty)))


def bitmask(labels: np.ndarray) -> np.ndarray:
    """BDD100K's four channels as OpenCV orders them; the instance of object 5 is 1280 + 5, to need both bytes."""
    out = np.zeros((*labels.shape, 4), np.uint8)
    out[..., 2] = np.where(labels > 0, 3, 0)
    out[..., 0] = np.where(labels == 5, 5, 0)
    out[..., 3] = labels
    return out


WRITERS: dict[str, Callable[..., None]] = {
    "davis": davis, "youtube_vos": youtube_vos, "mose": mose, "bdd100k": bdd100k,
}  # fmt: skip
FIRST_MASK = {
    "davis": "Annotations/480p/bear/00000.png",
    "youtube_vos": "train/Annotations/003234408d/00000.png",
    "mose": "train/Annotations/0a1b2c3d/00000.png",
    "bdd100k": "labels/seg_track_20/bitmasks/train/b1c66a42-6f7d68ca/b1c66a42-6f7d68ca-0000001.png",
}
FIRST_IMAGE = {
    name: path.replace("Annotations", "JPEGImages")
    .replace("labels/seg_track_20/bitmasks", "images/seg_track_20")
    .replace(".png", ".jpg")
    for name, path in FIRST_MASK.items()
}
layouts = pytest.mark.parametrize("name", list(WRITERS))


def opened(name: str, root: Path, augmentation: Augmentation = PLAIN) -> Any:
    return open_source(SourceConfig(name, root), DataConfig(augmentation=augmentation), seed=0)


@layouts
def test_a_published_layout_gives_clips_with_the_right_masks(name: str, tmp_path: Path) -> None:
    WRITERS[name](tmp_path)
    source = opened(name, tmp_path)
    assert len(source.videos) == 1
    clip = source.clip(np.random.default_rng(0), SHAPE)
    assert clip.images.shape == (3, 48, 64, 3) and clip.labels.shape == (3, 48, 64)
    assert clip.count == 2
    assert set(np.unique(clip.labels)) == {0, 1, 2}
    # Objects keep their order of ids, but for BDD100K, where 5 became 1285 and comes second.
    red = 2 if name == "bdd100k" else 1
    for t in range(3):
        inside = clip.images[t][cv2.erode((clip.labels[t] == red).astype(np.uint8), np.ones((5, 5))) > 0]
        assert len(inside) > 100 and inside[:, 0].min() > 170 and inside[:, 2].max() < 90
    left = [int(np.flatnonzero((clip.labels[t] == red).any(0))[0]) for t in range(3)]
    assert [b - a for a, b in itertools.pairwise(left)] == [4, 4]  # 8 px a frame, at half the size
    assert clip.flow.shape == (3, 12, 16, 2) and clip.motion.shape == (3, 3, 4)
    moved = clip.flow[1][cv2.resize((clip.labels[1] == red).astype(np.uint8), (16, 12)) > 0, 0].mean()
    assert moved == pytest.approx(-8 / WIDTH, abs=0.02)  # backward flow of something that moves right
    assert (clip.places[..., 0] == UNKNOWN).all()


@layouts
def test_a_video_whose_masks_are_all_empty_is_named_at_once(name: str, tmp_path: Path) -> None:
    WRITERS[name](tmp_path, empty=True)
    with pytest.raises(SourceError, match="all masks of this video are empty") as caught:
        opened(name, tmp_path)
    assert str((tmp_path / FIRST_MASK[name]).parent) in str(caught.value)


@pytest.mark.parametrize("shown", [(4,), (0, 3), (2,)])
@pytest.mark.parametrize("size", [1.0, 0.08], ids=["large", "tiny"])
def test_an_object_may_be_absent_but_not_from_the_first_frame(
    shown: tuple[int, ...], size: float, tmp_path: Path
) -> None:
    mose(tmp_path)
    for t in range(FRAMES):
        path = tmp_path / f"train/Annotations/0a1b2c3d/{t:05d}.png"
        labels = np.zeros((HEIGHT, WIDTH), np.uint8)
        if t in shown:
            labels[: round(40 * size), WIDTH - round(40 * size) :] = 5
        write_mask(path, labels)
    source = opened("mose", tmp_path, Augmentation())
    clips = [source.clip(np.random.default_rng(seed), SHAPE) for seed in range(20)]
    assert all((clip.labels[0] == 1).any() and clip.count == 1 for clip in clips)
    assert any(not clip.labels[1:].any(axis=(1, 2)).all() for clip in clips)


def test_videos_without_any_object_are_left_out_when_that_is_asked_for(tmp_path: Path) -> None:
    mose(tmp_path)
    for kind in ("JPEGImages", "Annotations"):
        shutil.copytree(tmp_path / "train" / kind / "0a1b2c3d", tmp_path / "train" / kind / "empty")
    for path in (tmp_path / "train/Annotations/empty").iterdir():
        write_mask(path, np.zeros((HEIGHT, WIDTH), np.uint8))
    source = SourceConfig("mose", tmp_path)
    with pytest.raises(SourceError, match="Annotations/empty: all masks"):
        open_source(source, DataConfig(), seed=0)
    lenient = open_source(source, DataConfig(skip_bad=True), seed=0)
    assert (len(lenient.videos), lenient.skipped) == (1, 1)


@layouts
@pytest.mark.parametrize("what", ["image", "mask"])
def test_a_corrupted_file_is_named(name: str, what: str, tmp_path: Path) -> None:
    WRITERS[name](tmp_path)
    folder = (tmp_path / (FIRST_IMAGE if what == "image" else FIRST_MASK)[name]).parent
    for path in folder.iterdir():
        data = path.read_bytes()
        path.write_bytes(data[: len(data) // 2])
    source = opened(name, tmp_path)
    with pytest.raises(SourceError, match=r"\.(jpg|png): (not a readable image|damaged PNG|not a bitmask)") as caught:
        source.clip(np.random.default_rng(0), SHAPE)
    assert str(folder) in str(caught.value)


@layouts
def test_a_missing_folder_and_a_missing_file_are_named(name: str, tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=str(tmp_path / "nowhere")):
        opened(name, tmp_path / "nowhere")
    WRITERS[name](tmp_path)
    image = tmp_path / FIRST_IMAGE[name]
    image.unlink()
    with pytest.raises(SourceError, match=f"{image}: missing"):
        opened(name, tmp_path)
    for path in list(image.parent.iterdir()):
        path.unlink()
    image.parent.rmdir()
    with pytest.raises(SourceError, match=f"{image.parent}: no such folder"):
        opened(name, tmp_path)


def test_a_mask_of_another_size_is_named(tmp_path: Path) -> None:
    mose(tmp_path)
    for t in range(FRAMES):
        write_image(tmp_path / f"train/JPEGImages/0a1b2c3d/{t:05d}.jpg", np.zeros((40, 60, 3), np.uint8))
    with pytest.raises(SourceError, match=r"\.png: mask is 128x96, its frame 60x40"):
        opened("mose", tmp_path).clip(np.random.default_rng(0), SHAPE)


def test_davis_never_trains_on_its_validation_set(tmp_path: Path) -> None:
    davis(tmp_path)
    assert LAYOUTS["davis"](tmp_path, "train").names() == ["bear"]
    assert LAYOUTS["davis"](tmp_path, "val").names() == ["swan"]
    (tmp_path / "ImageSets/2017/train.txt").unlink()
    with pytest.raises(SourceError, match=r"train\.txt: missing"):
        opened("davis", tmp_path)


def test_youtube_vos_without_its_list_is_refused(tmp_path: Path) -> None:
    youtube_vos(tmp_path)
    meta = tmp_path / "train/meta.json"
    meta.write_text("{")
    with pytest.raises(SourceError, match=r"meta\.json: says nothing usable of video '003234408d'"):
        opened("youtube_vos", tmp_path)
    meta.unlink()
    with pytest.raises(SourceError, match=r"meta\.json: missing"):
        opened("youtube_vos", tmp_path)


def test_youtube_vos_gives_the_frames_that_its_list_names(tmp_path: Path) -> None:
    youtube_vos(tmp_path)
    meta = tmp_path / "train/meta.json"
    entry = {"category": "penguin", "frames": ["00005", "00015", "00020"]}
    meta.write_text(json.dumps({"videos": {"003234408d": {"objects": {"5": entry}}}}))
    video = LAYOUTS["youtube_vos"](tmp_path, "train").labelled("003234408d")
    assert [path.stem for path in video.images] == [path.stem for path in video.masks] == entry["frames"]
    (tmp_path / "train/Annotations/003234408d/00015.png").unlink()
    with pytest.raises(SourceError, match=r"00015\.png: missing; meta\.json names this frame"):
        opened("youtube_vos", tmp_path)


def test_a_video_with_one_mask_is_no_clip(tmp_path: Path) -> None:
    mose(tmp_path)
    for path in sorted((tmp_path / "train/Annotations/0a1b2c3d").iterdir())[1:]:
        path.unlink()
    with pytest.raises(SourceError, match=r"0a1b2c3d: 1 masks; a clip needs at least two"):
        opened("mose", tmp_path)


def test_augmentation_moves_image_and_mask_together(tmp_path: Path) -> None:
    mose(tmp_path)
    source = opened("mose", tmp_path, Augmentation(crop=0.6, flip=0.5, jitter=0.0, blur=0.0))
    flipped = set()
    for seed in range(8):
        clip = source.clip(np.random.default_rng(seed), SHAPE)
        reddish = (clip.images[..., 0] > 150) & (clip.images[..., 2] < 90)
        is_red = [number for number in (1, 2) if (reddish & (clip.labels == number)).any()]
        if is_red:
            labelled = clip.labels == is_red[0]
            assert (reddish & labelled).sum() / (reddish | labelled).sum() > 0.85
        flipped.add(bool(clip.flow[1, ..., 0].sum() > 0))
    assert flipped == {True, False}


def test_colours_and_blur_are_the_same_in_all_frames_of_a_clip(tmp_path: Path) -> None:
    for t in range(FRAMES):  # a clip that stands still
        image, labels = frame(0)
        write_image(tmp_path / f"train/JPEGImages/a/{t:05d}.jpg", image)
        write_mask(tmp_path / f"train/Annotations/a/{t:05d}.png", labels)
    source = opened("mose", tmp_path, Augmentation(jitter=0.2, blur=1.0))
    first, second = (source.clip(np.random.default_rng(seed), SHAPE).images for seed in (1, 2))
    assert (first == first[0]).all() and (second == second[0]).all()
    assert not np.array_equal(first, second)


@pytest.mark.parametrize(("length", "frames"), [(2, 5), (5, 5), (30, 4), (3, 24)])
def test_frames_of_a_clip_lie_in_the_video_and_are_no_farther_apart_than_asked(length: int, frames: int) -> None:
    for seed in range(20):
        numbers = draw_frames(np.random.default_rng(seed), length, frames, Augmentation(max_gap=3))
        assert len(numbers) == frames
        assert min(numbers) >= 0 and max(numbers) < length
        assert all(1 <= abs(a - b) <= 3 for a, b in itertools.pairwise(numbers))


def test_crops_lie_in_the_frame_and_keep_the_aspect() -> None:
    for seed in range(30):
        crop = draw_crop(np.random.default_rng(seed), 480, 854, SHAPE, Augmentation())
        assert 0 <= crop.x <= 854 - crop.width and 0 <= crop.y <= 480 - crop.height
        assert crop.width / crop.height == pytest.approx(64 / 48, rel=0.01)
        assert 0.79 <= crop.height / 480 <= 1.0


@pytest.fixture(scope="module")
def stills() -> Stills:
    return rendered_stills(3)


def test_videos_without_labels_get_objects_whose_masks_are_known(tmp_path: Path, stills: Stills) -> None:
    writer = cv2.VideoWriter(str(tmp_path / "a.avi"), cv2.VideoWriter.fourcc(*"MJPG"), 10, (WIDTH, HEIGHT))
    for _ in range(6):
        writer.write(np.full((HEIGHT, WIDTH, 3), (200, 90, 30), np.uint8))
    writer.release()
    (tmp_path / "notes.txt").write_text("not a video")
    config = DataConfig(augmentation=PLAIN)
    source = open_source(SourceConfig("clips", tmp_path, count=3), config, seed=0)
    assert len(source.videos) == 1
    clip = source.clip(np.random.default_rng(3), SHAPE)
    assert 1 <= clip.count <= 3 and clip.labels.max() == clip.count
    untouched = (clip.places[..., 0] == UNKNOWN).repeat(16, 1).repeat(16, 2)
    assert untouched.any() and not untouched.all()
    corner = clip.images[untouched & (clip.labels == 0)]
    assert np.median(np.abs(corner.astype(int) - (30, 90, 200)), axis=0).max() < 25
    (tmp_path / "b.mp4").write_bytes(b"\0" * 100)
    with pytest.raises(SourceError, match=r"b\.mp4: not a readable video"):
        open_source(SourceConfig("clips", tmp_path), config, seed=0)


def test_stills_alone_follow_the_objects_of_the_photograph(stills: Stills) -> None:
    shape = SynthesisConfig(height=64, width=96, frames=3, pasted=0)
    for seed in range(6):
        clip = render_clip(np.random.default_rng(seed), stills, shape)
        assert clip.count >= 1
        assert (clip.places[..., 0] == 0).all()  # one layer: the photograph


def test_rendered_stills_are_repeatable_and_have_objects() -> None:
    first, second = rendered_stills(2, seed=5), rendered_stills(2, seed=5)
    assert len(first.by_kind["instances"]) == 2
    for a, b in zip(first.by_kind["instances"], second.by_kind["instances"], strict=True):
        assert np.array_equal(a.image, b.image) and a.objects == b.objects and a.objects


# ---- the stream ----------------------------------------------------------------------------------------------------

PHASE = Phase(height=48, width=48, frames=2, batch=2)


def data(**changes: Any) -> DataConfig:
    document = {"sources": [{"kind": "rendered", "count": 2}], "workers": 0, **changes}
    return loading.build(DataConfig, document)


def same(first: dict[str, Any], second: dict[str, Any]) -> bool:
    return all(torch.equal(value, second[name]) for name, value in first.items())


def test_sample_i_is_the_same_clip_whoever_prepares_it() -> None:
    here = Mixture(data(), seed=1)
    alone = SampleStream(here, PHASE, (1, 2))
    expected = [collate([alone[2 * n], alone[2 * n + 1]]) for n in range(4)]
    for workers, first in ((0, 0), (2, 0), (1, 3)):
        loader = iter(batches(Mixture(data(workers=workers), seed=1), PHASE, (1, 2), first))
        for wanted in expected[first:]:
            assert same(next(loader), wanted)
        del loader
    assert not same(alone[0], alone[1])
    assert not same(alone[0], SampleStream(here, PHASE, (1, 3))[0])


def test_distinct_clips_come_round_again() -> None:
    stream = SampleStream(Mixture(data(distinct=2), seed=0), PHASE, (0,))
    assert same(stream[1], stream[3]) and not same(stream[0], stream[1])


def test_batch_numbers_go_on_where_they_are_told() -> None:
    numbers = iter(batch_numbers(3, first=2))
    assert [next(numbers), next(numbers)] == [[6, 7, 8], [9, 10, 11]]


def test_sources_are_drawn_by_weight(tmp_path: Path) -> None:
    mose(tmp_path)
    sources = [{"kind": "rendered", "count": 2, "weight": 1}, {"kind": "mose", "root": str(tmp_path), "weight": 3}]
    mixture = Mixture(data(sources=sources), seed=0)
    shape = SynthesisConfig(height=32, width=32, frames=2)
    drawn = [mixture.draw(np.random.default_rng([i]), shape)[0].places[0, 0, 0, 0] for i in range(80)]
    assert 48 <= sum(layer == UNKNOWN for layer in drawn) <= 70  # 60 expected, 3.9 the deviation


def test_bad_samples_are_counted_and_replaced_only_when_that_is_asked_for(tmp_path: Path) -> None:
    mose(tmp_path / "good")
    mose(tmp_path / "bad")
    for path in (tmp_path / "bad/train/Annotations/0a1b2c3d").iterdir():
        path.write_bytes(path.read_bytes()[:40])
    sources = [{"kind": "mose", "root": str(tmp_path / name)} for name in ("good", "bad")]
    strict = SampleStream(Mixture(data(sources=sources), seed=0), PHASE, (0,))
    outcomes = [strict[i] for i in range(12)]
    messages = [outcome[ERROR] for outcome in outcomes if ERROR in outcome]
    assert 0 < len(messages) < 12 and all("damaged PNG" in message for message in messages)
    assert collate([next(o for o in outcomes if ERROR not in o), {ERROR: "x"}]) == {ERROR: "x"}
    lenient = SampleStream(Mixture(data(sources=sources, skip_bad=True), seed=0), PHASE, (0,))
    replaced = [lenient[i] for i in range(12)]
    assert sum(int(sample[SKIPPED]) > 0 for sample in replaced) == len(messages)
    hopeless = SampleStream(Mixture(data(sources=sources[1:], skip_bad=True), seed=0), PHASE, (0,))
    assert "20 bad samples in a row; the last one" in hopeless[0][ERROR]
