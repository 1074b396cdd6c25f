"""What an evaluation needs of a dataset, and what all layouts of folders share."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from sam2lite_core.errors import SourceError
from sam2lite_core.media.label_map import LabelMap, read_label_map
from sam2lite_core.media.pictures import list_images, read_image
from sam2lite_core.media.source import NOMINAL_FPS
from sam2lite_core.types import Frame

MaskReader = Callable[[Path], LabelMap]


class VideoSequence(Protocol):
    """One video with what is known of its objects."""

    @property
    def name(self) -> str:
        """The sequence's name."""

    def shown(self) -> Mapping[int, LabelMap]:
        """Label maps of the objects that appear, by index of the frame that shows them first.

        A label map holds the ids that are new on its frame and nothing else.

        Raises:
            SourceError: no frame shows an object, or a file cannot be read.
        """

    def frames(self) -> Iterator[Frame]:
        """The frames in order.

        Raises:
            SourceError: while iterating, a file cannot be read.
        """

    def truth(self, frame: Frame) -> LabelMap | None:
        """The true label map of a frame; None where nobody annotated it.

        Raises:
            SourceError: the file cannot be read, or has another size than the frame.
        """

    def mask_file(self, frame: Frame) -> str | None:
        """Where the dataset's server wants this frame's mask, relative to the submission; None where it wants none."""


class Dataset(Protocol):
    """Videos with objects to follow. Picklable: worker processes get a copy."""

    @property
    def key(self) -> str:
        """The layout's name on the command line, and of its result file."""

    @property
    def title(self) -> str:
        """What tables call it."""

    def names(self) -> list[str]:
        """Names of the sequences to evaluate.

        Raises:
            SourceError: the folder is not in this layout, or holds no sequence.
        """

    def open(self, name: str) -> VideoSequence:
        """Find a sequence's files and check that they are there.

        Raises:
            SourceError: a file is missing; the message names it.
        """

    def describe(self) -> dict[str, Any]:
        """What a result says of its data: plain strings and numbers."""


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
        pattern: where the server wants a mask, with {sequence} and {frame}.
        wanted: names of the frames that the server scores; None for all.
    """

    name: str
    images: tuple[Path, ...]
    masks: Mapping[str, Path]
    read: MaskReader = read_label_map
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
            raise SourceError(
                f"{path}: mask is {label_map.shape[1]}x{label_map.shape[0]}, its frame {width}x{height}"
            )
        return label_map if self.scored else None

    def mask_file(self, frame: Frame) -> str | None:
        """See `VideoSequence.mask_file`."""
        if self.wanted is not None and frame.name not in self.wanted:
            return None
        return self.pattern.format(sequence=self.name, frame=frame.name)


def find_folder(root: Path, *candidates: str, hint: str) -> Path:
    """The first of the candidate folders below `root` that exists.

    Raises:
        SourceError: none does; the message names the last and gives the hint.
    """
    for candidate in candidates:
        if (root / candidate).is_dir():
            return root / candidate
    raise SourceError(f"{root / candidates[-1]}: no such folder; {hint}")


def list_folders(folder: Path) -> list[str]:
    """Names of the sequences in a folder, sorted.

    Raises:
        SourceError: there is none.
    """
    present = sorted(entry.name for entry in folder.iterdir() if entry.is_dir())
    if not present:
        raise SourceError(f"{folder}: no sequence in this folder")
    return present


def list_frames(folder: Path, reason: str) -> tuple[Path, ...]:
    """The images of a sequence.

    Raises:
        SourceError: no such folder (the message goes on with the reason), or no image in it.
    """
    if not folder.is_dir():
        raise SourceError(f"{folder}: no such folder; {reason}")
    images = tuple(list_images(folder))
    if not images:
        raise SourceError(f"{folder}: no image in this folder")
    return images


def check_frames(images: Sequence[Path], masks: Iterable[Path]) -> None:
    """Check that no mask lacks its frame.

    Raises:
        SourceError: one does; the message names the frame that is missing.
    """
    present = {path.stem for path in images}
    for mask in masks:
        if mask.stem not in present:
            frame = images[0].with_name(mask.stem + images[0].suffix)
            raise SourceError(f"{frame}: missing; {mask} is its mask")


def choose(names: Sequence[str], wanted: Sequence[str] | None, where: object) -> list[str]:
    """The names that were asked for, all when None.

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
