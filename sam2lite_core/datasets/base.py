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
        """Return label maps of the new objects alone, by index of the frame that shows them first.

        Raises:
            SourceError: no frame shows an object, or a file cannot be read.
        """

    def frames(self) -> Iterator[Frame]:
        """Yield the frames in order; raise SourceError for a file that cannot be read."""

    def truth(self, frame: Frame) -> LabelMap | None:
        """Return a frame's true label map, or None; raise SourceError if it is unreadable or of another size."""

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
        """List the sequences to evaluate; raise SourceError if the folder is not in this layout or holds none."""

    def open(self, name: str) -> VideoSequence:
        """Find a sequence's files; raise SourceError with the name of a missing one."""

    def describe(self) -> dict[str, Any]:
        """Describe the data in plain strings and numbers."""


@dataclass(frozen=True)
class LabelledVideo:
    """The annotated frames of a video in order, with the label map of each."""

    name: str
    images: tuple[Path, ...]
    masks: tuple[Path, ...]


@dataclass(frozen=True)
class FolderSequence:
    """A folder of frames and a mask file for all or some of them.

    Attributes:
        masks: mask files by frame name.
        read: reader of one of them.
        late: objects may appear after the first frame.
        scored: the masks are the truth of their frames; False where they only show new objects.
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
    """A `Dataset` with a folder of frames and a folder of masks for each video, which subclasses name.

    Attributes:
        sequences: names; None for all.
        image_folders: places of the frames below the root, with {split}; the first that exists is used.
        mask_folders: places of the masks, likewise.
        complete: every frame has its mask.
        hint: advice in the message about a missing folder.
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
        """Read one of the dataset's mask files; raise SourceError for a missing or damaged one."""
        return read_label_map(path)

    def names(self) -> list[str]:
        """See `Dataset.names`."""
        folder = self._find(self.mask_folders)
        present = list_folders(folder)
        chosen = self._chosen()
        wanted = present if chosen is None else list(chosen)
        missing = [name for name in wanted if name not in present]
        if missing or not wanted:
            first = repr(missing[0]) if missing else "chosen"
            raise SourceError(f"{folder}: no sequence {first}; there are {', '.join(present)}")
        return wanted

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
            self._check_complete(images, masks)
        return FolderSequence(name, images, masks, self.read_mask, late=self.late)

    def labelled(self, name: str) -> LabelledVideo:
        """Pair the labelled frames of a video with their masks.

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

    def _chosen(self) -> tuple[str, ...] | None:
        """Return the sequences to evaluate; None for all."""
        return self.sequences

    @staticmethod
    def _check_complete(images: Sequence[Path], masks: Mapping[str, Path]) -> None:
        """Raise SourceError unless every frame has its mask."""
        for image in images:
            if image.stem not in masks:
                path = next(iter(masks.values())).with_name(f"{image.stem}.png")
                raise SourceError(f"{path}: missing; every frame needs its mask")


def list_folders(folder: Path) -> list[str]:
    """List the names of the sequences in a folder, sorted; raise SourceError if there is none."""
    present = sorted(entry.name for entry in folder.iterdir() if entry.is_dir())
    if not present:
        raise SourceError(f"{folder}: no sequence in this folder")
    return present
