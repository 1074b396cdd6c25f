"""Record the memory bank after every frame of a run, and what one patch reads from it."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sam2lite_core.backends.foreign import FrameBackend
from sam2lite_core.errors import ConfigurationError
from sam2lite_core.graph_io import BankSnapshot, FloatArray
from sam2lite_core.tracker import Tracker
from sam2lite_core.types import Prompt
from sam2lite_core.variants import MAX_WINDOW

Image = NDArray[np.uint8]

KINDS = ("anchor", "change", "recent", "other")
"""Kinds of tokens (the paper's figure 1): written by a prompt; where something moved or was in doubt; young; other."""

HIGH_MOTION = 0.5
"""Least motion of a change, patch widths per frame relative to the camera."""

HIGH_UNCERTAINTY = 0.25
"""Least mask entropy of a change, bits."""


@dataclass(frozen=True)
class MemoryRecord:
    """A run over T frames: (T, H, W, 3) uint8 RGB, label maps (T, H, W), the bank after each, its budget B."""

    frames: Sequence[Image]
    label_maps: Sequence[NDArray[np.uint8] | NDArray[np.uint16]]
    banks: tuple[BankSnapshot, ...]
    budget: int

    def counts(self) -> NDArray[np.int64]:
        """Count tokens after frame t that were written on frame b, by kind: (T, T, 4) over t, b, `KINDS`."""
        total = len(self.banks)
        table = np.zeros((total, total, len(KINDS)), np.int64)
        for index, bank in enumerate(self.banks):
            used = bank.column("valid") > 0.5
            births = bank.column("birth")[used].astype(int)
            np.add.at(table[index], (births, token_kinds(bank)[used]), 1)
        return table


def token_kinds(bank: BankSnapshot) -> NDArray[np.int64]:
    """Return the index into `KINDS` of every row, (S,); of free rows without meaning."""
    change = (bank.column("motion") >= HIGH_MOTION) | (bank.column("uncertainty") >= HIGH_UNCERTAINTY)
    recent = bank.column("age") <= MAX_WINDOW
    # The first that holds counts: a young token tells nothing yet of what the gate likes to keep.
    conditions = [bank.column("owner") > 0.5, change & ~recent, recent]
    return np.select(conditions, [0, 1, 2], KINDS.index("other")).astype(np.int64)


def record_memory(tracker: Tracker, frames: Sequence[Image], prompts: Sequence[Prompt]) -> MemoryRecord:
    """Reset the tracker, track a clip and keep every bank; ConfigurationError for a foreign model, which has none."""
    backend = tracker.backend
    if isinstance(backend, FrameBackend):
        raise ConfigurationError(f"backend {backend.name} has no bank of tokens; choose torch or onnxruntime")
    tracker.reset()
    label_maps, banks = [], []
    for index, image in enumerate(frames):
        label_maps.append(tracker.step(image, prompts if index == 0 else ()).label_map)
        banks.append(backend.bank())
    return MemoryRecord(frames, label_maps, tuple(banks), tracker.memory_budget)


def inner_point(mask: NDArray[np.bool_]) -> tuple[int, int]:
    """Find the pixel (x, y) that lies deepest inside a mask; ConfigurationError if the mask is empty."""
    import cv2

    if not mask.any():
        raise ConfigurationError("there is no object on this frame to ask from; choose another frame")
    padded = np.pad(mask.astype(np.uint8), 1)
    row, column = np.unravel_index(cv2.distanceTransform(padded, cv2.DIST_L2, 5).argmax(), padded.shape)
    return int(column) - 1, int(row) - 1


def attention_by_frame(bank: BankSnapshot, attention: FloatArray) -> dict[int, float]:
    """Sum the attention (S,) of one query over the tokens of each frame that wrote them, largest first."""
    births = bank.column("birth").astype(int)
    used = bank.column("valid") > 0.5
    sums = {int(birth): float(attention[used & (births == birth)].sum()) for birth in np.unique(births[used])}
    return dict(sorted(sums.items(), key=lambda item: -item[1]))
