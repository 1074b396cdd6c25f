"""Describe videos with known objects, and read those that lie in folders of frames and masks."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from sam2lite_core.errors import SourceError
from sam2lite_core.media.label_map import LabelMap, read_label_map
from sam2lite_core.media.pictures import list_images, read_image
from sam2lite_core.media.source import NOMINAL_FPS
from sam2lite_core.types import Frame


class VideoSequence(Protocol):
    """One video with its annotations."""

    @property
    def name(self) -> str:
        """The sequence's name."""

    def shown(self) -> Mapping[int, LabelMap]:
        """Return label maps of the objects that appear, by index of the frame that shows them first.

        A label map holds the ids that are new on its frame and nothing else.

        Raises:
            SourceError: no frame shows an object, or a file cannot be read.
        """

    def frames(self) -> Iterator[Frame]:
        """Yield the frames in order.

        Raises:
            SourceError: a file cannot be read.
        """

    def truth(self, frame: Frame) -> LabelMap | None:
        """Return the true label map of a frame; None where nobody annotated it.

        Raises:
            SourceError: the file cannot be read, or has another size than the frame.
        """

    def mask_file(self, frame: Frame) -> str | None:
        """Return the path of this frame's mask within a submission; None where the server wants none."""


class Dataset(Protocol):
    """Videos with objects to follow. Picklable: worker processes get a copy."""

    @property
    def key(self) -> str:
        """The layout's name on the command line, and of its result file."""

    @property
    def title(self) -> str:
        """The name in tables."""

    def names(self) -> list[str]:
        """List the sequences to evaluate.

        Raises:
            SourceError: the folder is not in this layout, or holds no sequence.
        """

    def open(self, name: str) -> VideoSequence:
        """Find a sequence's files and check that they are there.

        Raises:
            SourceError: a file is missing; the message names it.
        """

    def describe(self) -> dict[str, Any]:
        """Describe the data in plain strings and numbers."""


@dataclass(frozen=True)
class LabelledVideo:
    """The annotated frames of a video, in order.

    Attributes:
        name: of its folder.
        images: one file per frame.
        masks: the label map of each.
    """

    name: str
    images: tuple[Path, ...]
    masks: tuple[Path, ...]


@dataclass(frozen=True)
class FolderSequence:
    """A folder of frames and a mask file for all or some of them.

    Attributes:
        name: the sequence's name.
        images: its frames in order.
        masks: mask files by frame name.
        read: reads one of them.
        late: objects may appear after the first frame.
        scored: the masks are the truth of their frames; False where they only show what appears.
        pattern: path of a mask in a submission, with {sequence} and {frame}.
        wanted: names of the frames that the server scores; None for all.
    """

    name: str
    images: tuple[Path, ...]
    masks: Mapping[str, Path]
    read: Callable[[Path], LabelMap] = read_label_map
    late: bool = False
    scored: bool = True
    pattern: str = "{sequence}/{frame}.png"
    wanted: frozenset[str] | None = None

    def shown(self) -> dict[int, LabelMap]:
        """See `VideoSequence.shown`."""
        known: set[int] = set()
        found: dict[int, LabelMap] = {}
        for index, image in enumerate(self.images if self.late else self.images[:1]):
            if image.stem not in self.masks:
                continue
            label_map = self.read(self.masks[image.stem])
            fresh = set(np.unique(label_map).tolist()) - known - {0}
            if fresh:
                found[index] = label_map * np.isin(label_map, list(fresh))
                known |= fresh
        if not found:
            first = self.masks.get(self.images[0].stem, self.images[0])
            which = "no mask shows an object" if self.late else "the first mask is empty"
            raise SourceError(f"{first}: {which}; nothing to follow")
        return found

    def frames(self) -> Iterator[Frame]:
        """See `VideoSequence.frames`."""
        for index, path in enumerate(self.images):
            yield Frame(read_image(path), index / NOMINAL_FPS, index, path.stem)

    def truth(self, frame: Frame) -> LabelMap | None:
        """See `VideoSequence.truth`."""
        path = self.masks.get(frame.name)
        if path is None:
            return None
        label_map, (height, width) = self.read(path), frame.image.shape[:2]
        if label_map.shape != (height, width):
            rows, columns = label_map.shape
            raise SourceError(f"{path}: mask is {columns}x{rows}, its frame {width}x{height}")
        return label_map if self.scored else None

    def mask_file(self, frame: Frame) -> str | None:
        """See `VideoSequence.mask_file`."""
        if self.wanted is not None and frame.name not in self.wanted:
            return None
        return self.pattern.format(sequence=self.name, frame=frame.name)


class FolderDataset:
    """A `Dataset` with a folder of frames and a folder of masks for each video; subclasses say where.

    Evaluation opens whole sequences, training takes the labelled frames of each.

    Attributes:
        root: the dataset's folder.
        sequences: names; None for all.
        image_folders: places of the frames below the root, with {split}; the first that exists counts.
        mask_folders: places of the masks, likewise.
        complete: every frame has its mask.
        late: objects may appear after the first frame.
        hint: ends the message where a folder is missing.
    """

    root: Path
    sequences: tuple[str, ...] | None
    split: str | None = None
    key: str
    title: str
    image_folders: tuple[str, ...] = ("JPEGImages",)
    mask_folders: tuple[str, ...] = ("Annotations",)
    complete = False
    late = True
    hint = "give the folder of one split, which holds JPEGImages and Annotations"

    def read_mask(self, path: Path) -> LabelMap:
        """Read one of the dataset's mask files.

        Raises:
            SourceError: the file is missing or damaged.
        """
        return read_label_map(path)

    def names(self) -> list[str]:
        """See `Dataset.names`."""
        folder = self._find(self.mask_folders)
        return choose(list_folders(folder), self.sequences, folder)

    def files(self, name: str) -> tuple[tuple[Path, ...], dict[str, Path]]:
        """Find a video's frames in order, and its masks by frame name.

        Raises:
            SourceError: no frame, no mask, or a mask without its frame.
        """
        frames, folder = (self._find(places) / name for places in (self.image_folders, self.mask_folders))
        if not frames.is_dir():
            raise SourceError(f"{frames}: no such folder; the annotations name this video")
        images = tuple(list_images(frames))
        if not images:
            raise SourceError(f"{frames}: no image in this folder")
        masks = {path.stem: path for path in sorted(folder.glob("*.png"))}
        if not masks:
            raise SourceError(f"{folder}: no mask in this folder; nothing shows what to follow")
        for frame in sorted(masks.keys() - {image.stem for image in images}):
            raise SourceError(f"{frames / frame}{images[0].suffix}: missing; {folder / frame}.png is its mask")
        return images, masks

    def open(self, name: str) -> FolderSequence:
        """See `Dataset.open`."""
        images, masks = self.files(name)
        if self.complete:
            check_complete(images, masks)
        return FolderSequence(name, images, masks, self.read_mask, late=self.late)

    def labelled(self, name: str) -> LabelledVideo:
        """Pair the labelled frames of a video with their masks; most datasets label every fifth.

        Raises:
            SourceError: a file is missing, or there are fewer than two masks.
        """
        images, masks = self.files(name)
        kept = [image for image in images if image.stem in masks]
        if len(kept) < 2:
            folder = next(iter(masks.values())).parent
            raise SourceError(f"{folder}: {len(kept)} masks; a clip needs at least two")
        return LabelledVideo(name, tuple(kept), tuple(masks[image.stem] for image in kept))

    def describe(self) -> dict[str, Any]:
        """See `Dataset.describe`."""
        return {"layout": self.key, "root": str(self.root.absolute())}

    def _find(self, places: Sequence[str]) -> Path:
        folders = [self.root / place.format(split=self.split) for place in places]
        for folder in folders:
            if folder.is_dir():
                return folder
        raise SourceError(f"{folders[-1]}: no such folder; {self.hint}")


def check_complete(images: Sequence[Path], masks: Mapping[str, Path]) -> None:
    """Check that every frame has its mask.

    Raises:
        SourceError: one has none.
    """
    for image in images:
        if image.stem not in masks:
            path = next(iter(masks.values())).with_name(f"{image.stem}.png")
            raise SourceError(f"{path}: missing; every frame needs its mask")


def list_folders(folder: Path) -> list[str]:
    """List the names of the sequences in a folder, sorted.

    Raises:
        SourceError: there is none.
    """
    present = sorted(entry.name for entry in folder.iterdir() if entry.is_dir())
    if not present:
        raise SourceError(f"{folder}: no sequence in this folder")
    return present


def choose(names: Sequence[str], wanted: Sequence[str] | None, where: object) -> list[str]:
    """Return the names that were asked for, all when None.

    Raises:
        SourceError: one is not there, or the choice is empty.
    """
    if wanted is None:
        return list(names)
    missing = [name for name in wanted if name not in names]
    if missing or not wanted:
        first = repr(missing[0]) if missing else "chosen"
        raise SourceError(f"{where}: no sequence {first}; there are {', '.join(names)}")
    return list(wanted)
