"""Look datasets up: by the description in a result, and by the kind of a training source."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from sam2lite_core.datasets.base import Dataset, FolderDataset
from sam2lite_core.datasets.bdd100k import Bdd100k
from sam2lite_core.datasets.davis import Davis
from sam2lite_core.datasets.stress import Stress
from sam2lite_core.datasets.vos import Mose, YouTubeVos
from sam2lite_core.errors import SourceError

_DESCRIBED: dict[str, Callable[[Mapping[str, Any]], Dataset]] = {
    "davis": lambda data: Davis(Path(data["root"]), data["year"]),
    "ytvos": lambda data: YouTubeVos(Path(data["root"])),
    "mose": lambda data: Mose(Path(data["root"])),
    "bdd100k": lambda data: Bdd100k(Path(data["root"]), data["split"]),
    "stress": lambda data: Stress(tuple(data["sets"]), data["clips"]),
}

LAYOUTS: dict[str, Callable[[Path, str], FolderDataset]] = {
    "davis": Davis.of_split,
    "youtube_vos": lambda root, split: YouTubeVos(root / split),
    "mose": lambda root, split: Mose(root / split),
    "bdd100k": Bdd100k,
}
"""From the kind of a labelled training source to the dataset of (root as published, split)."""


def find_dataset(data: Mapping[str, Any]) -> Dataset:
    """Return the dataset that `Dataset.describe` described.

    Raises:
        SourceError: the description is not one of ours.
    """
    try:
        return _DESCRIBED[data["layout"]](data)
    except KeyError as error:
        raise SourceError(f"no dataset is described by {dict(data)}: {error} is missing or unknown") from None
