"""Record the memory bank after every frame of a run, and what one patch reads from it."""

from collections.abc import Callable, Sequence
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
"""Why a token is there, in the words of the paper's figure 1: written by a prompt; written where something moved or was
in doubt; young; or none of these."""

HIGH_MOTION = 0.5
"""Patch widths per frame, relative to the camera, from which a token counts as written at a change."""

HIGH_UNCERTAINTY = 0.25
"""Mask entropy in bits from which it does."""


@dataclass(frozen=True)
class MemoryRecord:
    """A run over T frames.

    Attributes:
        frames: (T, H, W, 3) uint8 RGB.
        label_maps: (T, H, W) what the tracker answered.
        banks: the bank after each frame.
        budget: B.
    """

    frames: Sequence[Image]
    label_maps: Sequence[NDArray[np.uint8] | NDArray[np.uint16]]
    banks: tuple[BankSnapshot, ...]
    budget: int

    def counts(self) -> NDArray[np.int64]:
        """Tokens after frame t that were written on frame b, by kind: (T, T, 4) over t, b, `KINDS`."""
        total = len(self.banks)
        table = np.zeros((total, total, len(KINDS)), np.int64)
        for index, bank in enumerate(self.banks):
            used = bank.column("valid") > 0.5
            births = bank.column("birth")[used].astype(int)
            np.add.at(table[index], (births, token_kinds(bank)[used]), 1)
        return table


def token_kinds(bank: BankSnapshot) -> NDArray[np.int64]:
    """Index into `KINDS` of every slot, (S,); of free slots without meaning."""
    change = (bank.column("motion") >= HIGH_MOTION) | (bank.column("uncertainty") >= HIGH_UNCERTAINTY)
    recent = bank.column("age") <= MAX_WINDOW
    # The first that holds counts: a young token tells nothing yet of what the gate likes to keep.
    conditions = [bank.column("owner") > 0.5, recent, change]
    choices = [KINDS.index(kind) for kind in ("anchor", "recent", "change")]
    return np.select(conditions, choices, KINDS.index("other")).astype(np.int64)


def record_memory(
    tracker: Tracker, frames: Sequence[Image], prompts: Sequence[Prompt], progress: Callable[[], object] = lambda: None
) -> MemoryRecord:
    """Track a clip from its first frame on and keep every bank. The tracker is reset first.

    Raises:
        ConfigurationError: a foreign model's memory is no bank of tokens.
    """
    backend = tracker.backend
    if isinstance(backend, FrameBackend):
        raise ConfigurationError(f"backend {backend.name} has no bank of tokens; choose torch or onnxruntime")
    tracker.reset()
    label_maps, banks = [], []
    for index, image in enumerate(frames):
        label_maps.append(tracker.step(image, prompts if index == 0 else ()).label_map)
        banks.append(backend.bank())
        progress()
    return MemoryRecord(frames, label_maps, tuple(banks), tracker.memory_budget)


def inner_point(mask: NDArray[np.bool_]) -> tuple[int, int]:
    """Find the pixel (x, y) of a mask that lies deepest inside it.

    Raises:
        ConfigurationError: the mask is empty.
    """
    import cv2

    if not mask.any():
        raise ConfigurationError("there is no object on this frame to ask from; choose another frame")
    padded = np.pad(mask.astype(np.uint8), 1)
    row, column = np.unravel_index(cv2.distanceTransform(padded, cv2.DIST_L2, 5).argmax(), padded.shape)
    return int(column) - 1, int(row) - 1


def attention_by_frame(bank: BankSnapshot, attention: FloatArray) -> dict[int, float]:
    """Attention (S,) of one query summed over the tokens of each frame that wrote them, largest first."""
    births = bank.column("birth").astype(int)
    used = bank.column("valid") > 0.5
    sums = {int(birth): float(attention[used & (births == birth)].sum()) for birth in np.unique(births[used])}
    return dict(sorted(sums.items(), key=lambda item: -item[1]))
