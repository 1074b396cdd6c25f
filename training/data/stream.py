"""The stream of training samples: a mixture of sources in which sample i is always the same clip.

Sample i of a phase depends on the run's seed, the stage, the phase and i only. So a run that was interrupted goes on
with the clips that come next, and any number of workers and processes sees the clips that one would see.
"""

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
"""What random numbers are for: part of every key, so that no clip of validation is ever trained on."""

PICTURES = "pictures"
"""A key that scenes have and clips have not."""

ERROR, SKIPPED = "error", "skipped"
"""Keys of a batch beside the clip's: why there is none, and how many samples were skipped for it."""


class SampleStream(Dataset[dict[str, Any]]):
    """Samples of one phase by number."""

    def __init__(self, mixture: Mixture, phase: Phase, key: tuple[int, ...]) -> None:
        """Keep what sample i depends on: `key` holds the run's seed and what tells its parts apart."""
        self._mixture = mixture
        self._key = key
        self._shape = clip_shape(mixture, phase)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """Sample `index`: tensors of a clip; or `ERROR` and the message, since workers garble exceptions."""
        distinct = self._mixture.data.distinct
        rng = np.random.default_rng([*self._key, index if distinct is None else index % distinct])
        try:
            drawn, skipped = self._mixture.draw(rng, self._shape)
        except SourceError as error:
            return {ERROR: str(error)}
        tensors = scene_tensors(drawn) if isinstance(drawn, Scene) else to_tensors(drawn)
        return {**tensors, SKIPPED: torch.tensor(skipped)}


def batch_numbers(batch_size: int, first: int) -> BatchSampler:
    """Number the samples of successive batches from batch `first` on, without an end that anybody reaches."""
    return BatchSampler(range(first * batch_size, 2**60), batch_size, drop_last=True)


def collate(samples: list[dict[str, Any]]) -> dict[str, Any]:
    """Stack samples; one bad sample makes the batch an error."""
    for sample in samples:
        if ERROR in sample:
            return {ERROR: sample[ERROR]}
    skipped = torch.stack([sample.pop(SKIPPED) for sample in samples]).sum()
    # Scenes have as many layers as they happen to have.
    stacked = stack_scenes(samples) if PICTURES in samples[0] else default_collate(samples)
    return {**stacked, SKIPPED: skipped}


def rendered(batch: dict[str, Tensor], shape: SynthesisConfig, *key: int) -> dict[str, Tensor]:
    """Render the clips of a batch where they are scenes; leave them untouched where they are clips.

    Args:
        batch: on the device that is to render.
        shape: of the clips.
        key: what the camera's effects depend on.
    """
    if PICTURES not in batch:
        return batch
    with torch.no_grad(), torch.autocast(batch[PICTURES].device.type, enabled=False):
        return render_scenes(batch, shape, torch.Generator().manual_seed(seed_of(*key, CAMERA)))


def _start_worker(_: int) -> None:
    """End a worker when the training process says so, not at a signal that the whole process group gets.

    Were it to end at once, the training process would take that for a crash before it could stop in order. PyTorch's
    loader ends workers whose training process is gone.
    """
    cv2.setNumThreads(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    training = parent_process()
    if training is None or training.pid is None or not hasattr(signal, "sigwaitinfo"):
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        return
    # Only a thread that waits for a signal is told who sent it. Threads that start later have it blocked as well.
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    threading.Thread(target=_end_when_told, args=(training.pid,), daemon=True).start()


def _end_when_told(training: int) -> None:
    """Wait for the training process's own SIGTERM, which goes to workers that do not end by themselves."""
    while signal.sigwaitinfo({signal.SIGTERM}).si_pid != training:
        continue
    os._exit(0)


def batches(
    mixture: Mixture, phase: Phase, key: tuple[int, ...], first: int = 0, *, pin: bool = False
) -> DataLoader[dict[str, Any]]:
    """Batches of a phase from number `first` on, prepared ahead by the configured workers.

    Args:
        mixture: what to draw from.
        phase: shape of clips and batches.
        key: see `SampleStream`.
        first: number of the first batch.
        pin: put batches where a GPU copies them from without waiting.
    """
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
    """Return the clip of a batch, and how many samples were skipped for it.

    Raises:
        SourceError: there is no clip, because a sample was bad.
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
