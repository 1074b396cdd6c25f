"""Stream training samples: sample i depends on seed, stage, phase and i only, however many workers there are."""

import os
import signal
import threading
from collections.abc import Iterator
from multiprocessing import parent_process
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import BatchSampler, DataLoader, Dataset, default_collate

from sam2lite_core.errors import SourceError
from training.config.stages import Phase
from training.data.clip import SynthesisConfig, to_tensors
from training.data.mixture import Mixture, clip_shape
from training.data.synthesis.compose import render_clip
from training.data.synthesis.layers import Scene
from training.data.synthesis.render_batch import render_scenes, scene_tensors, stack_scenes
from training.data.synthesis.stills import Stills
from training.seeds import seed_of

TRAINING, VALIDATION, CALIBRATION, NOISE, CAMERA = range(5)
"""Uses of random numbers, part of every key: no clip of validation is ever trained on."""

PICTURES = "pictures"
"""Key that only scenes have."""

ERROR, SKIPPED = "error", "skipped"
"""Keys of a batch beside the clip's: the error message without a clip, and the number of skipped samples."""


class SampleStream(Dataset[dict[str, Any]]):
    """Samples of one phase by number."""

    def __init__(self, mixture: Mixture, phase: Phase, key: tuple[int, ...]) -> None:
        """Keep a `key` of the run's seed and numbers that tell its parts apart."""
        self._mixture, self._key, self._shape = mixture, key, clip_shape(mixture, phase)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """Return tensors of a clip; or `ERROR` and the message, since workers garble exceptions."""
        distinct = self._mixture.data.distinct
        rng = np.random.default_rng([*self._key, index if distinct is None else index % distinct])
        try:
            drawn, skipped = self._mixture.draw(rng, self._shape)
        except SourceError as error:
            return {ERROR: str(error)}
        tensors = scene_tensors(drawn) if isinstance(drawn, Scene) else to_tensors(drawn)
        return {**tensors, SKIPPED: torch.tensor(skipped)}


def batch_numbers(batch_size: int, first: int) -> BatchSampler:
    """Number the samples of successive batches from batch `first` on, practically without end."""
    return BatchSampler(range(first * batch_size, 2**60), batch_size, drop_last=True)


def collate(samples: list[dict[str, Any]]) -> dict[str, Any]:
    """Stack samples; one bad sample makes the batch an error."""
    for sample in samples:
        if ERROR in sample:
            return {ERROR: sample[ERROR]}
    skipped = torch.stack([sample.pop(SKIPPED) for sample in samples]).sum()
    stacked = stack_scenes(samples) if PICTURES in samples[0] else default_collate(samples)
    return {**stacked, SKIPPED: skipped}


def rendered(batch: dict[str, Tensor], shape: SynthesisConfig, *key: int) -> dict[str, Tensor]:
    """Render a batch of scenes on its device, with camera effects by `key`; return clips untouched."""
    if PICTURES not in batch:
        return batch
    with torch.no_grad(), torch.autocast(batch[PICTURES].device.type, enabled=False):
        return render_scenes(batch, shape, torch.Generator().manual_seed(seed_of(*key, CAMERA)))


def _start_worker(_: int) -> None:
    """End a worker at a signal of the training process only, which else takes the group's signal for a crash."""
    cv2.setNumThreads(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    training = parent_process()
    if training is None or training.pid is None or not hasattr(signal, "sigwaitinfo"):
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        return
    # Only a thread that waits for a signal learns its sender. Later threads have it blocked as well.
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    threading.Thread(target=_end_when_told, args=(training.pid,), daemon=True).start()


def _end_when_told(training: int) -> None:
    """Wait for the SIGTERM that the training process sends."""
    while signal.sigwaitinfo({signal.SIGTERM}).si_pid != training:
        continue
    os._exit(0)


def batches(
    mixture: Mixture, phase: Phase, key: tuple[int, ...], first: int = 0, *, pin: bool = False
) -> DataLoader[dict[str, Any]]:
    """Load batches of a phase from number `first` on; `key` as in `SampleStream`, `pin` for fast copies to a GPU."""
    data = mixture.data
    return DataLoader(
        SampleStream(mixture, phase, key),
        batch_sampler=batch_numbers(phase.batch, first),
        num_workers=data.workers,
        prefetch_factor=data.prefetch if data.workers else None,
        collate_fn=collate,
        pin_memory=pin,
        worker_init_fn=_start_worker,
    )


def checked(batch: dict[str, Any]) -> tuple[dict[str, Any], int]:
    """Return the clip of a batch, and the number of samples skipped for it.

    Raises:
        SourceError: a sample was bad.
    """
    if ERROR in batch:
        raise SourceError(batch[ERROR])
    return {name: value for name, value in batch.items() if name != SKIPPED}, int(batch[SKIPPED])


def rendered_batches(stills: Stills, config: SynthesisConfig, batch: int, seed: int) -> Iterator[dict[str, Tensor]]:
    """Render batches of clips without end, in this process."""
    cv2.setNumThreads(1)
    rng = np.random.default_rng([seed, 0])
    while True:
        yield default_collate([to_tensors(render_clip(rng, stills, config)) for _ in range(batch)])
