"""Read masked photographs from a folder with manifest.json, images/ and labels/."""

import json
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from sam2lite_core.errors import SourceError

KINDS = {"parts": 0.2, "object": 0.15, "instances": 0.35, "regions": 0.3}
"""Probability of each kind; uniform draws would train a person segmenter."""


class StillsError(SourceError):
    """A still that cannot be read; the message names the file."""


@dataclass(frozen=True)
class Still:
    """One photograph.

    Attributes:
        image: (H, W, 3) uint8 RGB.
        labels: (H, W) uint8, 0 = unlabelled.
        objects: labels that can be cut out as an object of their own.
        kind: parts, object, instances or regions.
    """

    image: NDArray[np.uint8]
    labels: NDArray[np.uint8]
    objects: tuple[int, ...]
    kind: str


def usable(labels: NDArray[np.uint8], label: int) -> bool:
    """Return whether a label can be followed: neither tiny nor huge, nor touching three borders."""
    mask = labels == label
    share = float(mask.mean())
    borders = sum(bool(edge.any()) for edge in (mask[0], mask[-1], mask[:, 0], mask[:, -1]))
    return 0.004 < share < 0.6 and borders < 3


def load_still(root: Path, entry: dict[str, object]) -> Still | None:
    """Read an entry of the manifest; None when it has no object to cut out. Raises StillsError."""
    name, kind = str(entry["name"]), str(entry["kind"])
    image_path, label_path = root / "images" / f"{name}.jpg", root / "labels" / f"{name}.png"
    image = _read(image_path, cv2.IMREAD_COLOR)
    labels = _read(label_path, cv2.IMREAD_GRAYSCALE)
    if image.shape[:2] != labels.shape:
        raise StillsError(f"{label_path} is {labels.shape[::-1]}, its image {image.shape[1::-1]}")
    if kind == "parts":
        labels = np.asarray(labels > 0, np.uint8)
    present = [int(value) for value in np.unique(labels) if value]
    objects = tuple(value for value in present if usable(labels, value))
    if not objects:
        return None
    return Still(np.asarray(cv2.cvtColor(image, cv2.COLOR_BGR2RGB), np.uint8), labels, objects, kind)


def _read(path: Path, flags: int) -> NDArray[np.uint8]:
    picture = cv2.imread(str(path), flags)
    if picture is None:
        raise StillsError(f"{path} cannot be read as an image")
    return np.asarray(picture, np.uint8)


class Stills:
    """All usable stills in memory, drawn by kind."""

    skipped = 0

    def __init__(self, root: Path, limit: int | None = None, skip_bad: bool = False) -> None:
        """Read the manifest under root and its stills, or about `limit` of them, spread evenly.

        Raises:
            StillsError: the manifest is bad, or a file of it; with `skip_bad`, bad files are counted in `skipped`.
        """
        manifest = root / "manifest.json"
        if not manifest.is_file():
            raise StillsError(f"{manifest} does not exist; give the folder of stills as a source's root")
        try:
            entries = json.loads(manifest.read_text())
        except ValueError as error:
            raise StillsError(f"{manifest}: not JSON: {error}") from None
        if limit is not None:
            entries = entries[:: max(1, len(entries) // limit)]
        usable_stills: list[Still] = []
        for entry in entries:
            try:
                still = load_still(root, entry)
            except StillsError:
                if not skip_bad:
                    raise
                self.skipped += 1
            else:
                if still is not None:
                    usable_stills.append(still)
        self._sort(usable_stills)
        if not self._kinds:
            raise StillsError(f"{manifest} lists no usable still")

    @classmethod
    def of(cls, stills: list[Still]) -> "Stills":
        """Take at least one still from memory."""
        made = cls.__new__(cls)
        made._sort(stills)
        return made

    def _sort(self, stills: list[Still]) -> None:
        self.by_kind: dict[str, list[Still]] = {kind: [] for kind in KINDS}
        for still in stills:
            self.by_kind[still.kind].append(still)
        self._kinds = [kind for kind in KINDS if self.by_kind[kind]]
        weights = np.array([KINDS[kind] for kind in self._kinds])
        self._weights = weights / max(weights.sum(), 1e-9)

    def draw(self, rng: np.random.Generator) -> Still:
        """Draw a kind by its weight, then one of its stills."""
        kind = self._kinds[int(rng.choice(len(self._kinds), p=self._weights))]
        stills = self.by_kind[kind]
        return stills[int(rng.integers(len(stills)))]
