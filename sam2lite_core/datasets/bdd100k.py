"""BDD100K's segmentation tracking: frames in `images/seg_track_20`, RGBA bitmasks in `labels/seg_track_20/bitmasks`.

A bitmask's red channel holds the category, green the attributes (bits from the lowest: ignored, crowd, occluded,
truncated), blue and alpha the object's id, high byte first. Crowds and ignored regions are nobody's track: they count
as background.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
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
from sam2lite_core.media.label_map import LabelMap

_HINT = "give the folder that holds images/seg_track_20 and labels/seg_track_20"
_IGNORED_OR_CROWD = 0b11


@dataclass(frozen=True)
class Bdd100k:
    """BDD100K's segmentation-tracking videos; objects come and go.

    Masks are written as label maps: categories are not followed, so this is no submission for its server.

    Attributes:
        root: the folder that holds `images` and `labels`.
        split: train, val or test.
        sequences: names; None for all.
    """

    root: Path
    split: str = "val"
    sequences: tuple[str, ...] | None = None

    @property
    def key(self) -> str:
        """See `Dataset.key`."""
        return "bdd100k"

    @property
    def title(self) -> str:
        """See `Dataset.title`."""
        return f"BDD100K {self.split}"

    def names(self) -> list[str]:
        """See `Dataset.names`."""
        folder = self._masks()
        return choose(list_folders(folder), self.sequences, folder)

    def open(self, name: str) -> FolderSequence:
        """See `Dataset.open`."""
        folder = find_folder(self.root, f"images/seg_track_20/{self.split}", hint=_HINT) / name
        images = list_frames(folder, "the bitmasks name this video")
        masks = {image.stem: self._masks() / name / f"{image.stem}.png" for image in images}
        for path in masks.values():
            if not path.is_file():
                raise SourceError(f"{path}: missing; every frame needs its bitmask")
        check_frames(images, sorted((self._masks() / name).glob("*.png")))
        return FolderSequence(name, images, masks, read_bitmask, late=True)

    def describe(self) -> dict[str, Any]:
        """See `Dataset.describe`."""
        return {"layout": self.key, "root": str(self.root.absolute()), "split": self.split}

    def _masks(self) -> Path:
        """The folder of the split's bitmasks."""
        return find_folder(self.root, f"labels/seg_track_20/bitmasks/{self.split}", hint=_HINT)


def read_bitmask(path: Path) -> LabelMap:
    """Read a BDD100K bitmask.

    Returns:
        (H, W) uint16 ids; 0 for background, crowds and ignored regions.

    Raises:
        SourceError: the file is missing, damaged, or not of four channels.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise SourceError(f"{path}: cannot be read: {error.strerror}") from None
    decoded = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED) if data else None
    if decoded is None or decoded.ndim != 3 or decoded.shape[2] != 4 or decoded.dtype != np.uint8:
        raise SourceError(f"{path}: not a bitmask; expected a PNG of four 8-bit channels")
    blue, green, _, alpha = np.moveaxis(np.asarray(decoded, dtype=np.uint16), 2, 0)
    ids = (blue << 8) | alpha
    return np.asarray(np.where(green & _IGNORED_OR_CROWD, 0, ids), dtype=np.uint16)
