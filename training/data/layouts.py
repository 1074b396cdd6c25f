"""Datasets of filmed, labelled videos in the folder layouts in which they are published.

| name | images | masks |
|---|---|---|
| davis | `JPEGImages/480p/NAME/*.jpg`, sequences in `ImageSets/2017/SPLIT.txt` | `Annotations/480p/NAME/*.png` |
| youtube_vos | `SPLIT/JPEGImages/ID/*.jpg` | `SPLIT/Annotations/ID/*.png`, `SPLIT/meta.json` |
| mose | `SPLIT/JPEGImages/ID/*.jpg` | `SPLIT/Annotations/ID/*.png` |
| bdd100k | `images/seg_track_20/SPLIT/ID/*.jpg` | `labels/seg_track_20/bitmasks/SPLIT/ID/*.png` |
"""

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from sam2lite_core.errors import SourceError
from sam2lite_core.media.label_map import LabelMap, read_label_map
from sam2lite_core.media.pictures import list_images, natural_key

MaskReader = Callable[[Path], LabelMap]


@dataclass(frozen=True)
class LabelledVideo:
    """A video's annotated frames, in order.

    Attributes:
        name: of its folder.
        images: one file per frame.
        masks: the label map of each.
    """

    name: str
    images: tuple[Path, ...]
    masks: tuple[Path, ...]


@dataclass(frozen=True)
class Layout:
    """How one dataset lies on disk.

    Attributes:
        list_videos: the videos of (root, split).
        read_mask: a mask file as label map, 0 = background.
    """

    list_videos: Callable[[Path, str], list[LabelledVideo]]
    read_mask: MaskReader


def _folder(path: Path, dataset: str) -> Path:
    if not path.is_dir():
        raise SourceError(f"{path}: no such folder; {dataset} is expected in its published layout")
    return path


def _video(images: Path, masks: Path, names: Iterable[str] | None = None) -> LabelledVideo:
    """Pair every mask with its image; frames without a mask are left out, as most datasets label every fifth.

    Raises:
        SourceError: a folder is missing, a mask has no image, or there are fewer than two masks.
    """
    for folder in (images, masks):
        if not folder.is_dir():
            raise SourceError(f"{folder}: no such folder, but the dataset lists this video")
    stems = sorted(names, key=natural_key) if names is not None else None
    found = (
        [masks / f"{stem}.png" for stem in stems]
        if stems is not None
        else [path for path in list_images(masks) if path.suffix == ".png"]
    )
    by_stem = {path.stem: path for path in list_images(images)}
    for path in found:
        if path.stem not in by_stem:
            raise SourceError(f"{images / path.stem}.jpg: missing, but {path} is its mask")
        if not path.is_file():
            raise SourceError(f"{path}: no such mask file, but the dataset lists it")
    if len(found) < 2:
        raise SourceError(f"{masks}: {len(found)} masks; a clip needs at least two")
    return LabelledVideo(images.name, tuple(by_stem[path.stem] for path in found), tuple(found))


def _subfolders(folder: Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir() if entry.is_dir())


def davis(root: Path, split: str) -> list[LabelledVideo]:
    """DAVIS 2017: the sequences of `ImageSets/2017/SPLIT.txt`, so that nobody trains on the validation set.

    Raises:
        SourceError: the list, a folder or a file is missing.
    """
    listing = root / "ImageSets" / "2017" / f"{split}.txt"
    try:
        names = listing.read_text(encoding="utf-8").split()
    except OSError:
        raise SourceError(f"{listing}: missing; it says which sequences belong to split {split!r}") from None
    images = _folder(root / "JPEGImages" / "480p", "davis")
    masks = _folder(root / "Annotations" / "480p", "davis")
    return [_video(images / name, masks / name) for name in names]


def youtube_vos(root: Path, split: str) -> list[LabelledVideo]:
    """YouTube-VOS 2018 and 2019: the videos and frames that `meta.json` lists.

    Raises:
        SourceError: `meta.json` is missing or of another form, or a folder or file is missing.
    """
    meta = root / split / "meta.json"
    try:
        videos = json.loads(meta.read_text(encoding="utf-8"))["videos"]
        frames = {
            name: {frame for entry in video["objects"].values() for frame in entry["frames"]}
            for name, video in videos.items()
        }
    except OSError as error:
        raise SourceError(f"{meta}: cannot be read: {error.strerror}") from None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise SourceError(f"{meta}: not YouTube-VOS's list of videos: {error}") from None
    images = _folder(root / split / "JPEGImages", "youtube_vos")
    masks = _folder(root / split / "Annotations", "youtube_vos")
    return [_video(images / name, masks / name, stems) for name, stems in sorted(frames.items())]


def mose(root: Path, split: str) -> list[LabelledVideo]:
    """MOSE: every folder of `SPLIT/Annotations`.

    Raises:
        SourceError: a folder or file is missing.
    """
    images = _folder(root / split / "JPEGImages", "mose")
    masks = _folder(root / split / "Annotations", "mose")
    return [_video(images / name, masks / name) for name in _subfolders(masks)]


def bdd100k(root: Path, split: str) -> list[LabelledVideo]:
    """BDD100K segmentation tracking (MOTS): every folder of the split's bitmasks.

    Raises:
        SourceError: a folder or file is missing.
    """
    images = _folder(root / "images" / "seg_track_20" / split, "bdd100k")
    masks = _folder(root / "labels" / "seg_track_20" / "bitmasks" / split, "bdd100k")
    return [_video(images / name, masks / name) for name in _subfolders(masks)]


def read_bitmask(path: Path) -> LabelMap:
    """A BDD100K bitmask as label map.

    Its red channel is the category, green holds the flags truncated 8, occluded 4, crowd 2 and ignored 1, blue and
    alpha the instance, high byte first. Crowds and ignored regions become background: they are no one object.

    Raises:
        SourceError: missing, damaged, or not of four channels.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise SourceError(f"{path}: cannot be read: {error.strerror}") from None
    bitmask = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED) if data else None
    if bitmask is None:
        raise SourceError(f"{path}: damaged PNG file")
    if bitmask.ndim != 3 or bitmask.shape[2] != 4:
        raise SourceError(f"{path}: has shape {bitmask.shape}; a BDD100K bitmask has four channels")
    # OpenCV's order is blue, green, red, alpha.
    blue, green, red, alpha = (bitmask[..., index] for index in range(4))
    label_map = blue.astype(np.uint16) * 256 + alpha
    label_map[(red == 0) | (green & 3 > 0)] = 0
    return np.asarray(label_map, dtype=np.uint16)


LAYOUTS: dict[str, Layout] = {
    "davis": Layout(davis, read_label_map),
    "youtube_vos": Layout(youtube_vos, read_label_map),
    "mose": Layout(mose, read_label_map),
    "bdd100k": Layout(bdd100k, read_bitmask),
}
