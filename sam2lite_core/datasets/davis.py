"""DAVIS 2016 and 2017: `JPEGImages/SEQUENCE` and `Annotations/SEQUENCE`, both with `480p/` between as published."""

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
from sam2lite_core.errors import ConfigurationError, SourceError
from sam2lite_core.media.label_map import LabelMap, read_label_map

YEARS = (2016, 2017)

_HINT = "give the folder that holds JPEGImages and Annotations"
_VALIDATION_FOLDERS = {2016: ("2016", "480p"), 2017: ("2017",)}


@dataclass(frozen=True)
class Davis:
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

    def __post_init__(self) -> None:
        if self.year not in YEARS:
            raise ConfigurationError(
                f"unknown DAVIS year {self.year}; choose one of {', '.join(map(str, YEARS))}"
            )

    @property
    def key(self) -> str:
        """See `Dataset.key`."""
        return "davis"

    @property
    def title(self) -> str:
        """See `Dataset.title`."""
        return f"DAVIS {self.year}"

    def names(self) -> list[str]:
        """See `Dataset.names`."""
        folder = find_folder(self.root, "Annotations/480p", "Annotations", hint=_HINT)
        present = list_folders(folder)
        listed = validation_set(self.root, self.year) or None
        return choose(present, self.sequences if self.sequences is not None else listed, folder)

    def open(self, name: str) -> FolderSequence:
        """See `Dataset.open`."""
        images = find_folder(self.root, "JPEGImages/480p", "JPEGImages", hint=_HINT) / name
        masks = find_folder(self.root, "Annotations/480p", "Annotations", hint=_HINT) / name
        frames = list_frames(images, "the annotations name this sequence")
        files = {frame.stem: masks / f"{frame.stem}.png" for frame in frames}
        for path in files.values():
            if not path.is_file():
                raise SourceError(f"{path}: missing; every frame needs its mask")
        check_frames(frames, sorted(masks.glob("*.png")))
        return FolderSequence(name, frames, files, _read_as_one if self.year == 2016 else read_label_map)

    def describe(self) -> dict[str, Any]:
        """See `Dataset.describe`."""
        return {"layout": self.key, "root": str(self.root.absolute()), "year": self.year}


def validation_set(root: Path, year: int) -> list[str]:
    """Names in the published list of the year, or none where it is not there.

    The 2017 list holds names; the 2016 list holds a line per frame, `/JPEGImages/480p/NAME/00000.jpg …`.
    """
    listings = [root / "ImageSets" / folder / "val.txt" for folder in _VALIDATION_FOLDERS[year]]
    listing = next((path for path in listings if path.is_file()), None)
    if listing is None:
        return []
    entries = [line.split()[0] for line in listing.read_text(encoding="utf-8").splitlines() if line.strip()]
    return list(dict.fromkeys(Path(entry).parent.name if "/" in entry else entry for entry in entries))


def _read_as_one(path: Path) -> LabelMap:
    """A mask file with all its objects as object 1."""
    return np.asarray(read_label_map(path) != 0, dtype=np.uint8)
