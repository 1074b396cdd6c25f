"""Read BDD100K's segmentation tracking: frames and RGBA bitmasks, each in a folder of a split and a video."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from sam2lite_core.datasets.base import FolderDataset
from sam2lite_core.errors import SourceError
from sam2lite_core.media.label_map import LabelMap

_IGNORED_OR_CROWD = 0b11


@dataclass(frozen=True)
class Bdd100k(FolderDataset):
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

    key = "bdd100k"
    image_folders = ("images/seg_track_20/{split}",)
    mask_folders = ("labels/seg_track_20/bitmasks/{split}",)
    complete = True
    hint = "give the folder that holds images/seg_track_20 and labels/seg_track_20"

    @property
    def title(self) -> str:  # type: ignore[override]  # read-only, as in Dataset
        """See `Dataset.title`."""
        return f"BDD100K {self.split}"

    def read_mask(self, path: Path) -> LabelMap:
        """Read a BDD100K bitmask.

        Red holds the category: 1 to 8, and 0 for the background. Green holds flags: truncated 8, occluded 4, crowd 2
        and ignored 1. Blue and alpha hold the instance id, high byte first. Source: "Instance Segmentation Format" in
        bdd100k's `doc/source/format.rst`, and its `eval/mots.py`, which scores neither crowds nor ignored regions.

        Returns:
            (H, W) uint16 ids; 0 for category 0, crowds and ignored regions.

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
        blue, green, red, alpha = np.moveaxis(np.asarray(decoded, dtype=np.uint16), 2, 0)
        background = (red == 0) | (green & _IGNORED_OR_CROWD != 0)
        return np.asarray(np.where(background, 0, (blue << 8) | alpha), dtype=np.uint16)

    def describe(self) -> dict[str, Any]:
        """See `Dataset.describe`."""
        return {**super().describe(), "split": self.split}
