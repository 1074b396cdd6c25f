"""The DAVIS protocol: show the first frame's objects, follow them, score every frame but the first and last.

Two folder layouts are read: `ROOT/JPEGImages/SEQUENCE` and, as DAVIS is published,
`ROOT/JPEGImages/480p/SEQUENCE`; `Annotations` likewise.
"""

import contextlib
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from sam2lite_core.errors import ConfigurationError, SourceError
from sam2lite_core.evaluation.metrics import (
    ObjectScores,
    SequenceScorer,
    SequenceScores,
    Statistic,
    mean_statistic,
)
from sam2lite_core.files import output_folder, write_atomically
from sam2lite_core.frame_sources import list_images, open_source
from sam2lite_core.label_map import LabelMap, read_label_map, write_label_map
from sam2lite_core.types import Prompt
from sam2lite_core.video import VideoTracker, frame_record, summarise, track_video

YEARS = (2016, 2017)
PROMPTS = ("mask", "box", "point")
DAVIS_MARKER = "davis.json"
"""The file that a complete evaluation holds; it is written last."""

_VALIDATION_FOLDERS = {2016: ("2016", "480p"), 2017: ("2017",)}

Progress = Callable[[str, int, int], None]
"""Called after each frame with the sequence's name, the frames done and the frames there are."""


@dataclass(frozen=True)
class SequenceResult:
    """One sequence's outcome.

    Attributes:
        name: the sequence's folder name.
        scores: J and F, by object and averaged.
        timing: frames, mean_ms, p50_ms, p95_ms, max_ms and fps of the tracker's steps, reading files not
            counted.
    """

    name: str
    scores: SequenceScores
    timing: dict[str, Any]


@dataclass(frozen=True)
class DavisResult:
    """The outcome of an evaluation.

    Attributes:
        year: 2016 (all objects as one) or 2017 (each object by itself).
        prompt: how objects were shown: mask, box or point.
        sequences: one entry per sequence.
    """

    year: int
    prompt: str
    sequences: tuple[SequenceResult, ...]

    @property
    def objects(self) -> tuple[ObjectScores, ...]:
        """The scores of every object of every sequence."""
        return tuple(entry for sequence in self.sequences for entry in sequence.scores.objects)

    @property
    def j(self) -> Statistic:
        """Region similarity, averaged over objects."""
        return mean_statistic([entry.j for entry in self.objects])

    @property
    def f(self) -> Statistic:
        """Boundary accuracy, averaged over objects."""
        return mean_statistic([entry.f for entry in self.objects])

    @property
    def jf(self) -> float:
        """J&F: the mean of the two means, 0..1."""
        return (self.j.mean + self.f.mean) / 2

    @property
    def fps(self) -> float | None:
        """Frames over the time of all steps; None when no time was measured."""
        seconds = sum(entry.timing["frames"] * entry.timing["mean_ms"] for entry in self.sequences) / 1000
        return sum(entry.timing["frames"] for entry in self.sequences) / seconds if seconds > 0 else None

    def to_json(self) -> dict[str, Any]:
        """Plain numbers and strings, ready for `json.dumps`; scores 0..1, times in ms."""
        return {
            "protocol": f"DAVIS {self.year}",
            "prompt": self.prompt,
            "jf": self.jf,
            "j": asdict(self.j),
            "f": asdict(self.f),
            "fps": self.fps,
            "sequences": [
                {
                    "name": entry.name,
                    "jf": entry.scores.jf,
                    "j": asdict(entry.scores.j),
                    "f": asdict(entry.scores.f),
                    "timing": entry.timing,
                    "objects": [asdict(scores) for scores in entry.scores.objects],
                }
                for entry in self.sequences
            ],
        }


def evaluate(
    root: str | Path,
    tracker_factory: Callable[[], VideoTracker],
    sequences: Sequence[str] | None = None,
    year: int = 2016,
    prompt: str = "mask",
    out: str | Path | None = None,
    *,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> DavisResult:
    """Evaluate a tracker on sequences in DAVIS's layout.

    Args:
        root: the folder that holds `JPEGImages` and `Annotations`.
        tracker_factory: builds the tracker; called once, after the data was found to be there. The tracker is
            reset before each sequence.
        sequences: names; by default those in `ImageSets/YEAR/val.txt`, or all where there is no such list.
        year: 2016 takes all objects as one, 2017 the ids of the first frame.
        prompt: how objects are shown: their mask, the mask's bounding box, or the point deepest inside it.
        out: folder for `masks/SEQUENCE/NAME.png` and `davis.json`; nothing is written when None.
        overwrite: replace an earlier evaluation in `out`.
        progress: told of every frame.

    Raises:
        ConfigurationError: an unknown year or prompt.
        SourceError: a folder or file is missing or unreadable, a mask has another size than its frame, or
            `out` cannot be written.
    """
    if prompt not in PROMPTS:
        raise ConfigurationError(f"unknown prompt {prompt!r}; choose one of {', '.join(PROMPTS)}")
    folders = [_SequenceFolders.find(Path(root), name) for name in list_sequences(root, sequences, year)]
    with contextlib.ExitStack() as stack:
        folder = None
        if out is not None:
            folder = stack.enter_context(output_folder(out, marker=DAVIS_MARKER, overwrite=overwrite))
        tracker = tracker_factory()
        results = [_evaluate_sequence(tracker, entry, year, prompt, folder, progress) for entry in folders]
        result = DavisResult(year, prompt, tuple(results))
        if folder is not None:
            write_atomically(folder / DAVIS_MARKER, (json.dumps(result.to_json(), indent=1) + "\n").encode())
    return result


def list_sequences(root: str | Path, sequences: Sequence[str] | None = None, year: int = 2016) -> list[str]:
    """Names of the sequences to evaluate.

    Args:
        root: the folder that holds `JPEGImages` and `Annotations`.
        sequences: names that were asked for; None for the validation set of the year, or all where no list
            says.
        year: 2016 or 2017.

    Raises:
        ConfigurationError: an unknown year.
        SourceError: `root` is not in DAVIS's layout, or a name is not there.
    """
    if year not in YEARS:
        raise ConfigurationError(f"unknown DAVIS year {year}; choose one of {', '.join(map(str, YEARS))}")
    folder = _data_folder(Path(root), "Annotations")
    present = sorted(entry.name for entry in folder.iterdir() if entry.is_dir())
    if not present:
        raise SourceError(f"{folder}: no sequence in this folder")
    wanted = list(sequences) if sequences is not None else _validation_set(Path(root), year) or present
    missing = [name for name in wanted if name not in present]
    if missing:
        raise SourceError(f"{folder}: no sequence {missing[0]!r}; there are {', '.join(present)}")
    return wanted


def prompts_from_masks(label_map: LabelMap, kind: str = "mask") -> list[Prompt]:
    """Show every object of a label map.

    Args:
        label_map: (H, W) ids, 0 = background.
        kind: mask, box (tight, half open) or point (the one farthest from the mask's outline).

    Returns:
        One prompt per object, in order of their ids.
    """
    return [_prompt(label_map == value, int(value), kind) for value in np.unique(label_map) if value != 0]


def _prompt(mask: NDArray[np.bool_], object_id: int, kind: str) -> Prompt:
    """One object shown by its (H, W) mask, or by what `kind` makes of it."""
    if kind == "mask":
        return Prompt(object_id=object_id, mask=mask)
    binary = mask.view(np.uint8)
    if kind == "box":
        x, y, width, height = cv2.boundingRect(binary)
        return Prompt(object_id=object_id, box=np.array([x, y, x + width, y + height], np.float32))
    # The zero border counts the image's edge as outline: a point on it would be a poor click.
    padded = cv2.copyMakeBorder(binary, 1, 1, 1, 1, cv2.BORDER_CONSTANT, value=0)
    depth = cv2.distanceTransform(padded, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)[1:-1, 1:-1]
    row, column = np.unravel_index(int(depth.argmax()), depth.shape)
    return Prompt(object_id=object_id, points=np.array([[column, row]], np.float32))


@dataclass(frozen=True)
class _SequenceFolders:
    """Where a sequence's frames and masks lie."""

    name: str
    images: Path
    masks: Path

    @classmethod
    def find(cls, root: Path, name: str) -> "_SequenceFolders":
        """Locate a sequence and check that every frame has its mask, before hours of work start."""
        images, masks = _data_folder(root, "JPEGImages") / name, _data_folder(root, "Annotations") / name
        if not images.is_dir():
            raise SourceError(f"{images}: no such folder; the annotations name this sequence")
        for image in list_images(images):
            if not (masks / f"{image.stem}.png").is_file():
                raise SourceError(f"{masks / image.stem}.png: missing; every frame needs its mask")
        return cls(name, images, masks)

    def truth(self, frame_name: str, size: tuple[int, int], year: int) -> LabelMap:
        """The true label map of a frame of this (height, width)."""
        path = self.masks / f"{frame_name}.png"
        label_map = read_label_map(path)
        if label_map.shape != size:
            height, width = label_map.shape
            raise SourceError(f"{path}: mask is {width}x{height}, its frame {size[1]}x{size[0]}")
        return (label_map != 0).astype(np.uint8) if year == 2016 else label_map


def _evaluate_sequence(
    tracker: VideoTracker,
    folders: _SequenceFolders,
    year: int,
    prompt: str,
    out: Path | None,
    progress: Progress | None,
) -> SequenceResult:
    """Follow one sequence and score it; masks go to `out` when there is one."""
    scorer, records = SequenceScorer(), []
    mask_folder = None if out is None else out / "masks" / folders.name
    if mask_folder is not None:
        mask_folder.mkdir(parents=True)
    with open_source(folders.images) as frames:
        first = list_images(folders.images)[0].stem
        prompts = prompts_from_masks(folders.truth(first, frames.size, year), prompt)
        if not prompts:
            raise SourceError(f"{folders.masks / first}.png: the first mask is empty; nothing to follow")
        for frame, result in track_video(tracker, frames, prompts):
            truth = folders.truth(frame.name, (frame.image.shape[0], frame.image.shape[1]), year)
            scorer.add(result.label_map, truth)
            records.append(frame_record(frame, result))
            if mask_folder is not None:
                write_label_map(mask_folder / f"{frame.name}.png", result.label_map)
            if progress is not None:
                progress(folders.name, frame.index + 1, frames.length or 0)
    try:
        scores = scorer.result()
    except SourceError as error:
        raise SourceError(f"{folders.images}: {error}") from None
    return SequenceResult(folders.name, scores, summarise(records))


def _data_folder(root: Path, kind: str) -> Path:
    """`ROOT/KIND/480p` where it exists, else `ROOT/KIND`."""
    folder = root / kind
    if not folder.is_dir():
        raise SourceError(f"{folder}: no such folder; give the folder that holds JPEGImages and Annotations")
    return folder / "480p" if (folder / "480p").is_dir() else folder


def _validation_set(root: Path, year: int) -> list[str]:
    """Names in the published list of the year, or none where it is not there.

    The 2017 list holds names; the 2016 list holds a line per frame, `/JPEGImages/480p/NAME/00000.jpg …`.
    """
    listings = [root / "ImageSets" / folder / "val.txt" for folder in _VALIDATION_FOLDERS[year]]
    listing = next((path for path in listings if path.is_file()), None)
    if listing is None:
        return []
    entries = [line.split()[0] for line in listing.read_text(encoding="utf-8").splitlines() if line.strip()]
    return list(dict.fromkeys(Path(entry).parent.name if "/" in entry else entry for entry in entries))
