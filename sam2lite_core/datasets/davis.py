"""Read DAVIS 2016 and 2017: `JPEGImages/SEQUENCE` and `Annotations/SEQUENCE`, with `480p/` between as published."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from sam2lite_core.datasets.base import FolderDataset, choose, list_folders
from sam2lite_core.errors import ConfigurationError, SourceError
from sam2lite_core.media.label_map import LabelMap, read_label_map

YEARS = (2016, 2017)

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
        if self.year not in YEARS:
            raise ConfigurationError(f"unknown DAVIS year {self.year}; choose one of {', '.join(map(str, YEARS))}")

    @classmethod
    def of_split(cls, root: Path, split: str) -> "Davis":
        """Take the sequences of `ImageSets/2017/SPLIT.txt`, so that nobody trains on the validation set.

        Raises:
            SourceError: there is no such list.
        """
        names = read_split(root, 2017, split)
        if names is None:
            listing = root / "ImageSets" / "2017" / f"{split}.txt"
            raise SourceError(f"{listing}: missing; it says which sequences belong to split {split!r}")
        return cls(root, 2017, tuple(names))

    @property
    def title(self) -> str:  # type: ignore[override]  # read-only, as in Dataset
        """See `Dataset.title`."""
        return f"DAVIS {self.year}"

    def read_mask(self, path: Path) -> LabelMap:
        """Read a mask; all its objects are object 1 in 2016.

        Raises:
            SourceError: the file is missing or damaged.
        """
        label_map = read_label_map(path)
        return np.asarray(label_map != 0, dtype=np.uint8) if self.year == 2016 else label_map

    def names(self) -> list[str]:
        """See `Dataset.names`."""
        folder = self._find(self.mask_folders)
        wanted = self.sequences
        if wanted is None:
            wanted = tuple(read_split(self.root, self.year, "val") or ()) or None
        return choose(list_folders(folder), wanted, folder)

    def describe(self) -> dict[str, Any]:
        """See `Dataset.describe`."""
        return {**super().describe(), "year": self.year}


def read_split(root: Path, year: int, split: str) -> list[str] | None:
    """Read the published list of a split; None where it is not there.

    The 2017 list holds names; the 2016 list holds a line per frame, `/JPEGImages/480p/NAME/00000.jpg …`.
    """
    listings = [root / "ImageSets" / folder / f"{split}.txt" for folder in _LIST_FOLDERS[year]]
    listing = next((path for path in listings if path.is_file()), None)
    if listing is None:
        return None
    entries = [line.split()[0] for line in listing.read_text(encoding="utf-8").splitlines() if line.strip()]
    return list(dict.fromkeys(Path(entry).parent.name if "/" in entry else entry for entry in entries))
