"""Masks for films that nobody labelled: what a student finds in them, and finds again on the way back.

Objects are looked for where something moves by itself, with boxes and clicks; a mask counts when its own box asks for
it again. They are followed to the end of a stretch of film, and from their last masks alone back to its start; who
comes back to where it began is written down, in MOSE's layout, for `training.datasets` to read. Cycle consistency as a
measure of trust: Wang et al., "Learning Correspondence from the Cycle-Consistency of Time", CVPR 2019.
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from sam2lite_core.errors import ConfigurationError, SourceError
from sam2lite_core.evaluation.metrics import region_similarity
from sam2lite_core.evaluation.prompting import prompts_from_masks
from sam2lite_core.files import output_folder, write_json
from sam2lite_core.label_map import write_label_map
from sam2lite_core.motion import MotionEstimator
from sam2lite_core.tracker import Tracker
from sam2lite_core.types import Prompt
from training.datasets.unlabelled import open_videos

MARKER = "pseudo_labels.json"
"""What was labelled and how; lies in every folder that `label_films` filled."""

SPLIT = "train"

AHEAD = 3
"""Frames, from the first to the last of which motion is looked at."""

MOVES = 0.006
"""How far something gets meanwhile that is said to move by itself, as a share of the frame's width."""

Mask = NDArray[np.bool_]
Images = Sequence[NDArray[np.uint8]]


@dataclass(frozen=True)
class Trust:
    """What is looked for, and what is believed.

    Attributes:
        frames: of a stretch of film.
        stretches: of each film, evenly spread over it.
        rows: of the grid of clicks.
        columns: of the grid of clicks.
        smallest: least share of the frame that an object covers.
        largest: most that it covers.
        again: least IoU of a mask with the one that its own box asks for.
        apart: most IoU with an object that was found before.
        objects: most of a stretch.
        agreement: least IoU of the masks there with those on the way back, mean over the frames, and in frame 0.

    Raises:
        ConfigurationError: fewer than two frames, or a share outside 0..1.
    """

    frames: int = 32
    stretches: int = 4
    rows: int = 6
    columns: int = 10
    smallest: float = 0.008
    largest: float = 0.4
    again: float = 0.8
    apart: float = 0.1
    objects: int = 3
    agreement: float = 0.8

    def __post_init__(self) -> None:
        if self.frames < 2:
            raise ConfigurationError(f"frames is {self.frames}; a stretch of film has at least two")
        for name in ("stretches", "rows", "columns", "objects"):
            if getattr(self, name) < 1:
                raise ConfigurationError(f"{name} is {getattr(self, name)}, expected at least 1")
        for name in ("smallest", "largest", "again", "apart", "agreement"):
            if not 0.0 <= getattr(self, name) <= 1.0:
                raise ConfigurationError(f"{name} is {getattr(self, name)}, expected 0..1")


def own_motion(images: Images) -> NDArray[np.float32]:
    """What moves by itself in the first of a few frames.

    Args:
        images: at least two frames (H, W, 3) uint8 RGB.

    Returns:
        (H, W) float32: how far each pixel gets until the last of them, beyond what the camera's motion explains (an
        affine map that most of the picture agrees with); shares of the frame's width.
    """
    estimator = MotionEstimator()
    estimator.update(images[-1])
    motion = estimator.update(images[0])
    if motion is None:
        raise SourceError("frames of one film differ in size")
    height, width = images[0].shape[:2]
    flow = motion.flow * np.array([1.0, height / width], np.float32)
    rows, columns = flow.shape[:2]
    y, x = np.mgrid[0:rows, 0:columns].astype(np.float32)
    places = np.stack([(x + 0.5) / columns, (y + 0.5) / rows * height / width], axis=-1)
    some = (slice(None, None, 4), slice(None, None, 4))
    start, end = places[some].reshape(-1, 2), (places + flow)[some].reshape(-1, 2)
    camera, _ = cv2.estimateAffine2D(start, end, method=cv2.RANSAC, ransacReprojThreshold=MOVES / 2)
    explained = places @ camera[:, :2].T + camera[:, 2] if camera is not None else places
    own = np.linalg.norm(places + flow - explained, axis=-1).astype(np.float32)
    return np.asarray(cv2.resize(own, (width, height), interpolation=cv2.INTER_LINEAR), np.float32)


def suggest(moves: NDArray[np.float32], trust: Trust) -> list[Prompt]:
    """Ask for what moves: a box around each region, and clicks on a grid wherever something moves.

    Args:
        moves: (H, W) from `own_motion`.
        trust: the grid.
    """
    height, width = moves.shape
    # Limbs that stand still for a moment belong to what moves around them.
    side = max(3, round(0.03 * width)) | 1
    moving = cv2.morphologyEx(
        (moves > MOVES).astype(np.uint8), cv2.MORPH_CLOSE, np.ones((side, side), np.uint8)
    )
    _, _, boxes, _ = cv2.connectedComponentsWithStats(moving)
    prompts = [
        Prompt(object_id=1, box=np.array([x, y, x + w, y + h], np.float32))
        for x, y, w, h, area in boxes[1:]
        if trust.smallest <= area / moves.size <= trust.largest
    ]
    for row in range(trust.rows):
        for column in range(trust.columns):
            x, y = (column + 0.5) / trust.columns * width, (row + 0.5) / trust.rows * height
            if moving[int(y), int(x)]:
                prompts.append(Prompt(object_id=1, points=np.array([[x, y]], np.float32)))
    return prompts


def find_objects(tracker: Tracker, images: Images, trust: Trust) -> list[Mask]:
    """Look for objects that move by themselves.

    Args:
        tracker: reads the prompts; forgets what it followed.
        images: the first few frames (H, W, 3) uint8 RGB; objects are those of the first.
        trust: see there.

    Returns:
        (H, W) masks that do not touch one another, at most `trust.objects`; first what is large, in one
        piece and moves most.
    """
    moves = own_motion(images)
    candidates: list[tuple[float, Mask]] = []
    for prompt in suggest(moves, trust):
        mask = _read(tracker, images[0], prompt)
        if any(region_similarity(mask, other) > trust.again for _, other in candidates):
            continue
        if not trust.smallest <= mask.mean() <= trust.largest:
            continue
        beyond = float(moves[mask].mean() - moves[~mask].mean())
        (box,) = prompts_from_masks(mask.astype(np.uint8), "box")
        again = region_similarity(_read(tracker, images[0], box), mask)
        if beyond > MOVES / 2 and again >= trust.again:
            candidates.append((beyond * float(np.sqrt(mask.mean())) * _largest_piece(mask), mask))
    found: list[Mask] = []
    for _, mask in sorted(candidates, key=lambda entry: -entry[0]):
        # What two objects both claim is the first one's.
        rest = mask & ~np.any(found, axis=0) if found else mask
        apart = all(region_similarity(mask, other) <= trust.apart for other in found)
        if apart and rest.mean() >= trust.smallest and len(found) < trust.objects:
            found.append(rest)
    return found


def _largest_piece(mask: Mask) -> float:
    """The share of a mask that hangs together: two objects that one click asks for are in two pieces."""
    _, _, statistics, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8))
    return float(statistics[1:, cv2.CC_STAT_AREA].max() / mask.sum())


def _read(tracker: Tracker, image: NDArray[np.uint8], prompt: Prompt) -> Mask:
    tracker.reset()
    return np.asarray(tracker.step(image, [prompt]).label_map == prompt.object_id)


def follow(tracker: Tracker, images: Images, label_map: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Follow the objects of the first frame's label map; (T, H, W) label maps, the first as it was given."""
    tracker.reset()
    shown = prompts_from_masks(label_map)
    following = [tracker.step(image, shown if t == 0 else ()).label_map for t, image in enumerate(images)]
    return np.stack([label_map, *following[1:]]).astype(np.uint8)


def there_and_back(
    tracker: Tracker, images: Images, masks: Sequence[Mask], trust: Trust
) -> tuple[NDArray[np.uint8], list[float]]:
    """Follow objects through a stretch of film, and from their last masks alone back to its start.

    Args:
        tracker: forgets what it followed.
        images: T frames (H, W, 3) uint8 RGB.
        masks: (H, W) of the objects in the first one, apart from one another.
        trust: `agreement` is used.

    Returns:
        (T, H, W) uint8 label maps of the objects that come back, numbered from 1 on; and the mean IoU of each.
    """
    first = np.zeros(images[0].shape[:2], np.uint8)
    for number, mask in enumerate(masks, start=1):
        first[mask] = number
    there = follow(tracker, images, first)
    if not there[-1].any():
        return np.zeros_like(there), []
    back = follow(tracker, images[::-1], there[-1])[::-1]
    kept, agreements = np.zeros_like(there), []
    for number in np.unique(there[-1][there[-1] > 0]):
        # The last frame agrees by itself: its mask is what the way back began with.
        same = [
            region_similarity(a == number, b == number) for a, b in zip(there[:-1], back[:-1], strict=True)
        ]
        if min(float(np.mean(same)), same[0]) >= trust.agreement:
            agreements.append(float(np.mean(same)))
            kept[there == number] = len(agreements)
    return kept, agreements


def label_films(
    root: Path,
    out: Path,
    tracker: Tracker,
    trust: Trust,
    tell: Callable[[str], None],
    *,
    overwrite: bool = False,
) -> int:
    """Label what can be trusted of all films of a folder.

    Args:
        root: folder of video files, or of folders of images.
        out: folder to make, MOSE's layout: `train/JPEGImages/FILM-FRAME/*.jpg` and `train/Annotations/...`.
        tracker: labels; the larger its student and its scale, the better.
        trust: what is believed.
        tell: is told a line per stretch.
        overwrite: replace an earlier result.

    Returns:
        Objects that were labelled.

    Raises:
        SourceError: a film cannot be read, `out` cannot be written, or nothing was found in any film.
    """
    videos = open_videos(root)
    lines: dict[str, list[float]] = {}
    with output_folder(out, marker=MARKER, overwrite=overwrite) as folder:
        for video in videos:
            for start in starts(video.length, trust):
                numbers = list(range(start, min(start + trust.frames, video.length)))
                images = video.read(numbers)
                masks = find_objects(tracker, images[:AHEAD], trust)
                labels, agreements = there_and_back(tracker, images, masks, trust) if masks else (None, [])
                name = f"{video.path.stem}-{start:05d}"
                tell(f"{name}: {len(masks)} found, {len(agreements)} came back")
                if labels is not None and agreements:
                    _write(folder / SPLIT, name, images, labels)
                    lines[name] = [round(value, 3) for value in agreements]
        if not lines:
            raise SourceError(
                f"{root}: no object of any film came back to where it began; nothing is written"
            )
        write_json(folder / MARKER, {"trust": asdict(trust), "agreement": lines})
    return sum(map(len, lines.values()))


def starts(length: int, trust: Trust) -> list[int]:
    """First frames of the stretches of a film of `length` frames; fewer than asked for where they would overlap."""
    count = max(1, min(trust.stretches, length // trust.frames))
    return [round(i * max(0, length - trust.frames) / max(1, count - 1)) for i in range(count)]


def _write(folder: Path, name: str, images: Images, labels: NDArray[np.uint8]) -> None:
    for kind in ("JPEGImages", "Annotations"):
        (folder / kind / name).mkdir(parents=True)
    for t, (image, label_map) in enumerate(zip(images, labels, strict=True)):
        path = folder / "JPEGImages" / name / f"{t:05d}.jpg"
        # A full disk is a False here.
        if not cv2.imwrite(str(path), cv2.cvtColor(image, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, 95]):
            raise SourceError(f"{path}: cannot be written")
        write_label_map(folder / "Annotations" / name / f"{t:05d}.png", label_map, indexed=True)
