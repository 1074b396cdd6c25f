"""Label films by the objects that a student finds in them, in MOSE's layout.

Moving objects are tracked to the end of a stretch of film and back from their last masks alone; those whose masks
agree are kept. Cycle consistency: Wang et al., "Learning Correspondence from the Cycle-Consistency of Time", CVPR 2019.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import cv2
import numpy as np
from numpy.typing import NDArray
from pydantic import Field, PositiveInt
from pydantic.dataclasses import dataclass

from sam2lite_core.errors import ConfigurationError, SourceError
from sam2lite_core.evaluation.prompts import prompts_from_masks
from sam2lite_core.evaluation.region_boundary import region_similarity
from sam2lite_core.files import output_folder, write_json
from sam2lite_core.media.label_map import write_label_map
from sam2lite_core.tracker import Tracker
from sam2lite_core.types import Prompt
from training.config.fields import STRICT, Share
from training.data.pasted import Video, open_videos
from training.labelling.moving_objects import Images, Mask, Search, find_objects

MARKER = "pseudo_labels.json"
"""File that describes a result of `label_films`."""

AHEAD = 3
"""First frames of a stretch, searched for moving objects."""

UNSURE_END = 2
"""Frames at a film's end that are left out, since headers may count one or two too many."""


@dataclass(frozen=True, config=STRICT)
class Trust:
    """Stretches of film to label, and conditions for trusted masks.

    Attributes:
        frames: of a stretch of film.
        stretches: of each film, evenly spread over it; fewer where they would overlap.
        agreement: least IoU of an object's masks on both ways: in frame 0, and on average over the frames in which
            either sees it.
        least: least IoU in any of those frames.
        seen: least share of the frames in which both see it.
    """

    frames: Annotated[int, Field(ge=AHEAD)] = 24
    stretches: PositiveInt = 6
    agreement: Share = 0.75
    least: Share = 0.4
    seen: Share = 0.5
    search: Search = Search()


def follow(tracker: Tracker, images: Images, shown: Mapping[int, Sequence[Prompt]]) -> NDArray[np.uint8]:
    """Track objects through T frames (H, W, 3) from their masks by frame; return (T, H, W) uint8 label maps."""
    tracker.reset()
    out = []
    for t, image in enumerate(images):
        prompts = shown.get(t, ())
        label_map = tracker.step(image, prompts).label_map.astype(np.uint8)
        for prompt in prompts:
            label_map[label_map == prompt.object_id] = 0
            label_map[prompt.mask] = prompt.object_id
        out.append(label_map)
    return np.stack(out)


def there_and_back(
    tracker: Tracker, images: Images, masks: Sequence[Mask], smallest: float
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Track disjoint masks (H, W) of frame 0 to the end, and from each object's last frame back to the start.

    An object is seen in a frame of which it covers the share `smallest`. Returns (T, H, W) uint8 label maps of both
    ways in the order of frames, numbered from 1 on.
    """
    first = np.zeros(images[0].shape[:2], np.uint8)
    for number, mask in enumerate(masks, start=1):
        first[mask] = number
    there = follow(tracker, images, {0: prompts_from_masks(first)})
    last = len(images) - 1
    shown: dict[int, list[Prompt]] = {}
    for number in range(1, len(masks) + 1):
        # Others would take the place of an object that left, were it not shown on the way back.
        seen = np.flatnonzero((there == number).mean(axis=(1, 2)) >= smallest)
        when = int(seen[-1]) if len(seen) else 0
        shown.setdefault(last - when, []).append(Prompt(object_id=number, mask=there[when] == number))
    return there, follow(tracker, images[::-1], shown)[::-1]


def trusted(there: NDArray[np.uint8], back: NDArray[np.uint8], trust: Trust) -> tuple[NDArray[np.uint8], list[float]]:
    """Keep the objects whose (T, H, W) label maps of both ways agree.

    Returns:
        (T, H, W) uint8 label maps of these objects, numbered from 1 on; and the mean IoU of each.
    """
    kept, agreements = np.zeros_like(there), []
    for number in np.unique(there[0][there[0] > 0]):
        one, other = there == number, back == number
        sees, seen = one.any(axis=(1, 2)), other.any(axis=(1, 2))
        if not sees[-1] or np.mean(sees & seen) < trust.seen:
            continue
        # The way back began with the last mask, which says nothing.
        pairs = zip(one[:-1], other[:-1], strict=True)
        same = [region_similarity(a, b) for a, b in pairs if a.any() or b.any()]
        agreement = float(np.mean(same))
        if min(agreement, same[0]) >= trust.agreement and min(same) >= trust.least:
            agreements.append(agreement)
            kept[one] = len(agreements)
    return kept, agreements


def label_stretch(tracker: Tracker, images: Images, trust: Trust) -> tuple[NDArray[np.uint8], int, list[float]]:
    """Label a stretch as `trusted` does; the number of objects found at its start comes second."""
    masks = find_objects(tracker, images[:AHEAD], trust.search)
    if not masks:
        return np.zeros((len(images), *images[0].shape[:2]), np.uint8), 0, []
    labels, agreements = trusted(*there_and_back(tracker, images, masks, trust.search.smallest), trust)
    return labels, len(masks), agreements


def label_films(
    root: Path,
    out: Path,
    tracker: Tracker,
    trust: Trust,
    tell: Callable[[str], None],
    *,
    skip_bad: bool = False,
    overwrite: bool = False,
    labelled_by: Mapping[str, object] | None = None,
) -> int:
    """Label the trusted objects of all films of a folder, and return their number.

    Args:
        root: folder of video files, or of folders of images.
        out: folder to make, MOSE's layout: `train/JPEGImages/FILM-FRAME/*.jpg` and `train/Annotations/...`.
        tracker: labels; the larger its student and its scale, the better.
        trust: conditions for masks.
        tell: is called with a line per stretch.
        skip_bad: leave out a stretch that cannot be read, rather than stop.
        overwrite: replace an earlier result.
        labelled_by: description of the tracker for `MARKER`.

    Raises:
        ConfigurationError: `trust` asks for more objects than the tracker can follow.
        SourceError: a film cannot be read, `out` cannot be written, or no object came back in any film.
    """
    if trust.search.objects > tracker.max_objects:
        raise ConfigurationError(f"objects is {trust.search.objects}; the model follows {tracker.max_objects}")
    stretches = [(video, start) for video in open_videos(root) for start in starts(video.length, trust)]
    agreement: dict[str, list[float]] = {}
    with output_folder(out, marker=MARKER, overwrite=overwrite) as folder:
        for video, start in stretches:
            name = f"{video.path.name}-{start:05d}"
            try:
                images = read_stretch(video, start, trust.frames)
            except SourceError as error:
                if not skip_bad:
                    raise
                tell(f"{name}: left out: {error}")
                continue
            labels, found, agreements = label_stretch(tracker, images, trust)
            tell(f"{name}: {found} found, {len(agreements)} came back")
            if agreements:
                _write(folder / "train", name, images, labels)
                agreement[name] = [round(value, 3) for value in agreements]
        if not agreement:
            raise SourceError(f"{root}: no object of any film came back to where it began; nothing is written")
        document = {"labelled_by": dict(labelled_by or {}), "trust": asdict(trust), "agreement": agreement}
        write_json(folder / MARKER, document)
    return sum(map(len, agreement.values()))


def starts(length: int, trust: Trust) -> list[int]:
    """List the first frames of a film's stretches."""
    room = max(0, length - UNSURE_END - trust.frames)
    count = max(1, min(trust.stretches, (length - UNSURE_END) // trust.frames))
    return [round(i * room / max(1, count - 1)) for i in range(count)]


def read_stretch(video: Video, start: int, frames: int) -> list[NDArray[np.uint8]]:
    """Read a stretch of film, (H, W, 3) uint8 RGB; shorter where the film is.

    Raises:
        SourceError: it cannot be read, is too short to find motion, or its frames differ in size.
    """
    end = min(start + frames, max(AHEAD, video.length - UNSURE_END))
    if end > video.length:
        raise SourceError(f"{video.path}: {video.length} frames; at least {AHEAD} are needed to see what moves")
    images = video.read(list(range(start, end)))
    for number, image in enumerate(images, start=start):
        if image.shape != images[0].shape:
            sizes = " to ".join(f"{entry.shape[1]}x{entry.shape[0]}" for entry in (images[0], image))
            raise SourceError(f"{video.path}: frame size changes from {sizes} at frame {number}")
    return images


def _write(folder: Path, name: str, images: Images, labels: NDArray[np.uint8]) -> None:
    for kind in ("JPEGImages", "Annotations"):
        (folder / kind / name).mkdir(parents=True)
    for t, (image, label_map) in enumerate(zip(images, labels, strict=True)):
        path = folder / "JPEGImages" / name / f"{t:05d}.jpg"
        # A full disk is a False here.
        if not cv2.imwrite(str(path), cv2.cvtColor(image, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, 95]):
            raise SourceError(f"{path}: cannot be written")
        write_label_map(folder / "Annotations" / name / f"{t:05d}.png", label_map, indexed=True)
