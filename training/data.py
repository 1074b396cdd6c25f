"""Batches of rendered clips on worker processes."""

from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from training.stills import Stills
from training.synthesis import Clip, SynthesisConfig, render_clip


def to_tensors(clip: Clip) -> dict[str, Tensor]:
    """A clip's arrays as tensors, uint8 kept, float32 otherwise."""
    return {
        "images": torch.from_numpy(clip.images),
        "labels": torch.from_numpy(clip.labels),
        "count": torch.tensor(clip.count),
        "flow": torch.from_numpy(clip.flow),
        "motion": torch.from_numpy(clip.motion),
        "places": torch.from_numpy(clip.places),
    }


class RenderedClips(IterableDataset[dict[str, Tensor]]):
    """An endless stream of rendered clips; every worker has a seed of its own."""

    def __init__(self, stills: Stills, config: SynthesisConfig, seed: int) -> None:
        self.stills = stills
        self.config = config
        self.seed = seed

    def __iter__(self) -> Iterator[dict[str, Tensor]]:
        cv2.setNumThreads(1)
        info = get_worker_info()
        rng = np.random.default_rng([self.seed, info.id if info is not None else 0])
        while True:
            yield to_tensors(render_clip(rng, self.stills, self.config))


def loader(
    stills: Stills, config: SynthesisConfig, batch: int, seed: int, workers: int
) -> DataLoader[dict[str, Tensor]]:
    """Batches of clips, rendered ahead by `workers` processes (0: in this one)."""
    return DataLoader(
        RenderedClips(stills, config, seed),
        batch_size=batch,
        num_workers=workers,
        prefetch_factor=4 if workers else None,
    )


def load_stills(root: Path) -> Stills:
    """All stills under root; see `training.stills`."""
    # Workers are forked: OpenCV's thread pool would be copied without its threads, and the first remap would hang.
    cv2.setNumThreads(1)
    return Stills(root)
