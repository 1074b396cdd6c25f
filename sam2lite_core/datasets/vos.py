"""Read YouTube-VOS and MOSE: `JPEGImages/VIDEO` and `Annotations/VIDEO`, objects that appear later, hidden truth.

Both publish their validation sets with masks only for the frames that first show an object. Such a sequence is followed
and its masks are written for the dataset's server; where every frame has its mask, it is scored here. Scores follow
DAVIS; the YouTube-VOS server goes on to average over categories that it keeps to itself.

Source of the servers' formats: XMem's `eval.py` (frames by `meta.json`), Cutie's `results_utils.make_zip`
(`Annotations/` on top for YouTube-VOS, none for MOSE), and MOSE's `tools/score.py` (every frame, indexed PNG).
"""

import json
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from sam2lite_core.datasets.base import FolderDataset, FolderSequence, LabelledVideo
from sam2lite_core.errors import SourceError
from sam2lite_core.media.label_map import read_label_map

META_FILE = "meta.json"


@dataclass(frozen=True)
class YouTubeVos(FolderDataset):
    """YouTube-VOS 2018 and 2019, one split.

    `meta.json` beside the two folders lists the frames that the server scores; without it every frame counts, see
    `assumption`. Masks may be sparser than frames: the training set has every fifth.
    """

    root: Path
    sequences: tuple[str, ...] | None = None

    key = "ytvos"
    title = "YouTube-VOS"

    def open(self, name: str) -> FolderSequence:
        """See `Dataset.open`."""
        found, wanted = super().open(name), self._listed(name)
        present = {path.stem for path in found.images}
        for frame in sorted((wanted or frozenset()) - present):
            raise SourceError(f"{found.images[0].parent / frame}.jpg: missing; {META_FILE} names this frame")
        scored = not _only_shows(found)
        return replace(found, scored=scored, pattern="Annotations/{sequence}/{frame}.png", wanted=wanted)

    def labelled(self, name: str) -> LabelledVideo:
        """Pair the frames that `meta.json` lists with their masks.

        Raises:
            SourceError: a file is missing, `meta.json` too, or there are fewer than two masks.
        """
        video, listed = super().labelled(name), self._listed(name)
        if listed is None:
            raise SourceError(f"{self.root / META_FILE}: missing; it lists the labelled frames")
        for frame in sorted(listed - {path.stem for path in video.masks}):
            raise SourceError(f"{video.masks[0].with_name(frame)}.png: missing; {META_FILE} names this frame")
        images, masks = (tuple(path for path in paths if path.stem in listed) for paths in (video.images, video.masks))
        return LabelledVideo(name, images, masks)

    @property
    def assumption(self) -> str | None:
        """The assumption that stands in for a missing `meta.json`; None where there is one."""
        path = self.root / META_FILE
        if path.is_file():
            return None
        return f"{path}: missing, as no published split is; taking every frame for one that the server scores"

    def _listed(self, name: str) -> frozenset[str] | None:
        """Return the frames that `meta.json` lists for any object of a video; None without the file."""
        path = self.root / META_FILE
        if not path.is_file():
            return None
        try:
            objects = _read_meta(path, path.stat().st_mtime_ns)["videos"][name]["objects"]
            return frozenset(frame for entry in objects.values() for frame in entry["frames"])
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise SourceError(f"{path}: says nothing usable of video {name!r} ({error!r})") from None


@dataclass(frozen=True)
class Mose(FolderDataset):
    """MOSE, one split."""

    root: Path
    sequences: tuple[str, ...] | None = None

    key = "mose"
    title = "MOSE"

    def open(self, name: str) -> FolderSequence:
        """See `Dataset.open`: either every frame has its mask, or only those where an object appears."""
        found = super().open(name)
        scored = not _only_shows(found)
        if scored:
            self._check_complete(found.images, found.masks)
        return replace(found, scored=scored)


@lru_cache(maxsize=1)
def _read_meta(path: Path, changed_ns: int) -> Any:
    """Read `meta.json` once for all videos of a split; that of the training set has 20 MB."""
    return json.loads(path.read_text(encoding="utf-8"))


def _only_shows(sequence: FolderSequence) -> bool:
    """Return whether masks exist only where an object appears: the truth is then kept from us."""
    masks = sequence.masks
    if len(masks) == len(sequence.images):
        return False
    known: set[int] = set()
    for stem in sorted(masks):
        ids = set(np.unique(read_label_map(masks[stem])).tolist()) - {0}
        if ids <= known:
            return False
        known |= ids
    return True
