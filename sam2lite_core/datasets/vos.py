"""YouTube-VOS and MOSE: `JPEGImages/VIDEO` and `Annotations/VIDEO`, objects that appear later, hidden truth.

Both publish their validation sets without the truth: masks lie there only for the frames that show an object for the
first time. Such a sequence is followed, and its masks are written as the dataset's server wants them; where every frame
has its mask (as in the training sets), it is scored here. Scores follow DAVIS; the YouTube-VOS server goes on to
average over categories that it keeps to itself.

What the servers want was read from the evaluation code of XMem (`eval.py`: frames by `meta.json`) and of Cutie
(`results_utils.make_zip`: `Annotations/` on top for YouTube-VOS, none for MOSE), and from MOSE's own `tools/score.py`,
which refuses a video with a frame missing and reads every mask as an indexed PNG.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from sam2lite_core.datasets.base import (
    FolderSequence,
    check_frames,
    choose,
    find_folder,
    list_folders,
    list_frames,
)
from sam2lite_core.errors import SourceError
from sam2lite_core.media.label_map import read_label_map

META_FILE = "meta.json"
_HINT = "give the folder of one split, which holds JPEGImages and Annotations"


@dataclass(frozen=True)
class YouTubeVos:
    """YouTube-VOS, one split.

    `meta.json` beside the two folders says on which frames the server scores an object. Every published split has one;
    without it every frame counts, see `assumption`. Masks may be sparser than frames: the training set has every fifth.

    Attributes:
        root: the split's folder.
        sequences: names; None for all.
    """

    root: Path
    sequences: tuple[str, ...] | None = None

    @property
    def key(self) -> str:
        """See `Dataset.key`."""
        return "ytvos"

    @property
    def title(self) -> str:
        """See `Dataset.title`."""
        return "YouTube-VOS"

    def names(self) -> list[str]:
        """See `Dataset.names`."""
        return _names(self.root, self.sequences)

    def open(self, name: str) -> FolderSequence:
        """See `Dataset.open`."""
        images, masks = _files(self.root, name)
        wanted = self._wanted(name)
        present = {path.stem for path in images}
        for frame in sorted((wanted or set()) - present):
            raise SourceError(f"{images[0].parent / frame}.jpg: missing; {META_FILE} names this frame")
        return FolderSequence(
            name,
            images,
            masks,
            late=True,
            scored=not _only_shows(images, masks),
            pattern="Annotations/{sequence}/{frame}.png",
            wanted=None if wanted is None else frozenset(wanted),
        )

    @property
    def assumption(self) -> str | None:
        """What is taken for granted because the split has no `meta.json`; None where it has one."""
        path = self.root / META_FILE
        if path.is_file():
            return None
        return f"{path}: missing, as no published split is; taking every frame for one that the server scores"

    def _wanted(self, name: str) -> set[str] | None:
        """Names of the frames on which the server scores any object; None where no list says."""
        path = self.root / META_FILE
        if not path.is_file():
            return None
        try:
            objects = json.loads(path.read_text(encoding="utf-8"))["videos"][name]["objects"]
            return {frame for entry in objects.values() for frame in entry["frames"]}
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise SourceError(f"{path}: says nothing usable of video {name!r} ({error!r})") from None

    def describe(self) -> dict[str, Any]:
        """See `Dataset.describe`."""
        return {"layout": self.key, "root": str(self.root.absolute())}


@dataclass(frozen=True)
class Mose:
    """MOSE, one split.

    Attributes:
        root: the split's folder.
        sequences: names; None for all.
    """

    root: Path
    sequences: tuple[str, ...] | None = None

    @property
    def key(self) -> str:
        """See `Dataset.key`."""
        return "mose"

    @property
    def title(self) -> str:
        """See `Dataset.title`."""
        return "MOSE"

    def names(self) -> list[str]:
        """See `Dataset.names`."""
        return _names(self.root, self.sequences)

    def open(self, name: str) -> FolderSequence:
        """See `Dataset.open`."""
        images, masks = _files(self.root, name)
        scored = not _only_shows(images, masks)
        missing = [path for path in images if path.stem not in masks]
        if scored and missing:
            folder = self.root / "Annotations" / name
            raise SourceError(
                f"{folder / missing[0].stem}.png: missing; either every frame has its mask, or only those where an "
                "object appears"
            )
        return FolderSequence(name, images, masks, late=True, scored=scored)

    def describe(self) -> dict[str, Any]:
        """See `Dataset.describe`."""
        return {"layout": self.key, "root": str(self.root.absolute())}


def _names(root: Path, wanted: tuple[str, ...] | None) -> list[str]:
    """Names of the videos that have annotations."""
    folder = find_folder(root, "Annotations", hint=_HINT)
    return choose(list_folders(folder), wanted, folder)


def _files(root: Path, name: str) -> tuple[tuple[Path, ...], dict[str, Path]]:
    """A video's frames, and its masks by frame name."""
    folder = find_folder(root, "JPEGImages", hint=_HINT) / name
    images = list_frames(folder, "the annotations name this video")
    masks = {path.stem: path for path in sorted((root / "Annotations" / name).glob("*.png"))}
    if not masks:
        raise SourceError(
            f"{root / 'Annotations' / name}: no mask in this folder; nothing shows what to follow"
        )
    check_frames(images, masks.values())
    return images, masks


def _only_shows(images: tuple[Path, ...], masks: dict[str, Path]) -> bool:
    """Whether there are masks only where an object appears: the truth is then kept from us."""
    if len(masks) == len(images):
        return False
    known: set[int] = set()
    for stem in sorted(masks):
        ids = set(np.unique(read_label_map(masks[stem])).tolist()) - {0}
        if ids <= known:
            return False
        known |= ids
    return True
