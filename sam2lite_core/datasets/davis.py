"""Read DAVIS 2016 and 2017: `JPEGImages/SEQUENCE` and `Annotations/SEQUENCE`, with `480p/` between as published."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from sam2lite_core.datasets.base import FolderDataset
from sam2lite_core.errors import ConfigurationError, SourceError
from sam2lite_core.media.label_map import LabelMap, read_label_map

_LIST_FOLDERS = {2016: ("2016", "480p"), 2017: ("2017",)}


@dataclass(frozen=True)
class Davis(FolderDataset):
    """DAVIS in its published layout, or without its `480p` folders.

    Attributes:
        root: the folder that holds `JPEGImages` and `Annotations`.
        year: 2016 takes all objects as one, 2017 the ids of the first frame.
        sequences: names; None for those in `ImageSets/YEAR/val.txt`, or all where there is no such list.

    Raises:
        ConfigurationError: an unknown year.
    """

    root: Path
    year: int = 2016
    sequences: tuple[str, ...] | None = None

    key = "davis"
    image_folders = ("JPEGImages/480p", "JPEGImages")
    mask_folders = ("Annotations/480p", "Annotations")
    complete = True
    late = False
    hint = "give the folder that holds JPEGImages and Annotations"

    def __post_init__(self) -> None:
        if self.year not in _LIST_FOLDERS:
            years = ", ".join(map(str, _LIST_FOLDERS))
            raise ConfigurationError(f"unknown DAVIS year {self.year}; choose one of {years}")

    @classmethod
    def of_split(cls, root: Path, split: str) -> "Davis":
        """Take the sequences of `ImageSets/2017/SPLIT.txt`; raise SourceError if there is no such list."""
        names = _read_split(root, 2017, split)
        if names is None:
            listing = root / "ImageSets" / "2017" / f"{split}.txt"
            raise SourceError(f"{listing}: missing; it says which sequences belong to split {split!r}")
        return cls(root, 2017, names)

    @property
    def title(self) -> str:  # type: ignore[override]  # read-only, as in Dataset
        """See `Dataset.title`."""
        return f"DAVIS {self.year}"

    def read_mask(self, path: Path) -> LabelMap:
        """Read a mask; all its objects are object 1 in 2016."""
        label_map = read_label_map(path)
        return np.asarray(label_map != 0, dtype=np.uint8) if self.year == 2016 else label_map

    def _chosen(self) -> tuple[str, ...] | None:
        return self.sequences if self.sequences is not None else _read_split(self.root, self.year, "val") or None

    def describe(self) -> dict[str, Any]:
        """See `Dataset.describe`."""
        return {**super().describe(), "year": self.year}


def _read_split(root: Path, year: int, split: str) -> tuple[str, ...] | None:
    """Read the published list of a split: names in 2017, `/JPEGImages/480p/NAME/00000.jpg …` a line in 2016."""
    listings = [root / "ImageSets" / folder / f"{split}.txt" for folder in _LIST_FOLDERS[year]]
    listing = next((path for path in listings if path.is_file()), None)
    if listing is None:
        return None
    entries = [line.split()[0] for line in listing.read_text(encoding="utf-8").splitlines() if line.strip()]
    return tuple(dict.fromkeys(Path(entry).parent.name if "/" in entry else entry for entry in entries))
