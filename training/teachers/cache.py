"""Keep on disk what a teacher says: batches of clips together with the teacher's targets.

A cache is a folder: `cache.json` says whose it is, `stageS_phaseP/000000.pt` holds a batch. Training runs through the
batches again and again, so a cache fixes the augmentation of its clips.
"""

import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from sam2lite_core.backends.torch import choose_device
from sam2lite_core.errors import ConfigurationError, ModelFileError, SourceError
from sam2lite_core.files import output_folder, write_atomically
from training import checkpoint
from training.config.run import RunConfig
from training.data.mixture import Mixture, clip_shape
from training.data.stream import SKIPPED, TRAINING, batches, checked, rendered

CACHE_FILE = "cache.json"
PREFIX = "teacher."
"""Marks what belongs to the teacher among a batch's tensors."""


def batch_file(folder: Path, stage: int, phase: int, number: int) -> Path:
    """Name the file of a batch of a cache."""
    return folder / f"stage{stage}_phase{phase}" / f"{number:06d}.pt"


def write_header(folder: Path, name: str, readout_width: int) -> None:
    """Say whose targets the folder holds; written last, so that only a complete cache has it.

    Raises:
        SourceError: the folder cannot be written.
    """
    document = {"teacher": name, "readout_width": readout_width}
    write_atomically(folder / CACHE_FILE, (json.dumps(document) + "\n").encode())


def write_batch(path: Path, clip: dict[str, Tensor], targets: Any, variant: str) -> None:
    """Keep a batch and what the teacher says of it (`TeacherTargets`).

    Raises:
        SourceError: the disk is full, or the folder cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    content = {name: tensor.cpu() for name, tensor in clip.items()}
    content |= {PREFIX + name: tensor for name, tensor in targets.state().items()}
    checkpoint.save(path, {"variant": variant, "batch": content})


class CachedTeacher:
    """Says what a teacher once said of the same batch.

    Attributes:
        name: of that teacher.
        readout_width: D of its readout, 0 where it has none.
    """

    def __init__(self, folder: Path) -> None:
        """Read whose the cache is.

        Raises:
            SourceError: there is no complete cache in the folder.
        """
        path = folder / CACHE_FILE
        try:
            document = json.loads(path.read_text())
            self.name, self.readout_width = str(document["teacher"]), int(document["readout_width"])
        except OSError:
            raise SourceError(f"{path}: missing; make the cache with `cache-teacher`") from None
        except (ValueError, KeyError, TypeError) as error:
            raise SourceError(f"{path}: not a teacher cache: {error}") from None

    def targets(self, clip: dict[str, Tensor]) -> Any:
        """See `training.teachers.base.Teacher.targets`; the clip must come from the cache."""
        from training.teachers.base import TeacherTargets

        state = {name.removeprefix(PREFIX): value for name, value in clip.items() if name.startswith(PREFIX)}
        return TeacherTargets.from_state(state).to(clip["images"].device)


class _CachedBatches(Dataset[dict[str, Tensor]]):
    """Batches of one phase, from some number on, over and over."""

    def __init__(self, files: list[Path], first: int) -> None:
        self._files = files
        self._first = first

    def __len__(self) -> int:
        return 2**40

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        path = self._files[(self._first + index) % len(self._files)]
        batch = checkpoint.load(path).get("batch")
        if not isinstance(batch, dict):
            raise ModelFileError(f"{path}: not a batch of a teacher cache")
        return {**batch, SKIPPED: torch.tensor(0)}


def cached_batches(folder: Path, stage: int, phase: int, first: int) -> DataLoader[dict[str, Tensor]]:
    """Read the cached batches of a phase from number `first` on.

    Raises:
        SourceError: the cache has none for this phase.
    """
    files = sorted(batch_file(folder, stage, phase, 0).parent.glob("*.pt"))
    if not files:
        raise SourceError(
            f"{batch_file(folder, stage, phase, 0).parent}: no batch; make the cache with the same stages and phases"
        )
    dataset = _CachedBatches(files, first)
    return DataLoader(dataset, sampler=range(2**40), batch_size=1, collate_fn=lambda batches: batches[0])


def fill_cache(config: RunConfig, stages: tuple[int, ...], count: int, out: Path, device: str) -> int:
    """Run the configured teacher over the first batches of every phase and keep both.

    Args:
        config: the run whose clips and teacher are meant.
        stages: numbers of its stages.
        count: batches of each phase.
        out: folder of the cache; an earlier cache is replaced.
        device: auto, cpu, cuda or cuda:N.

    Returns:
        Batches written.

    Raises:
        ConfigurationError: the run has no teacher, or one that is read from a cache.
        SourceError, TeacherError: naming the file that is bad.
    """
    if config.teacher.name == "none" or config.teacher.cache is not None:
        raise ConfigurationError("teacher: name one that is not read from a cache, to cache what it says")
    from training.teachers import open_teacher

    place = choose_device(device)
    teacher = open_teacher(config.teacher.name, config.teacher.path, place)
    mixture = Mixture(config.data, config.seed)
    written = 0
    with output_folder(out, marker=CACHE_FILE, overwrite=True) as folder:
        for stage in stages:
            trained = config.stages.numbered()[stage]
            for phase in range(trained.rounds * len(trained.phases)):
                shape = trained.phase(phase)
                loader = iter(batches(mixture, shape, (config.seed, TRAINING, stage, phase)))
                size = clip_shape(mixture, shape)
                for number in tqdm(range(count), desc=f"stage {stage}, phase {phase + 1}", disable=None):
                    batch, _ = checked(next(loader))
                    batch = {name: value.to(place) for name, value in batch.items()}
                    clip = rendered(batch, size, config.seed, stage, phase, number)
                    targets = teacher.targets(clip)
                    write_batch(batch_file(folder, stage, phase, number), clip, targets, config.variant)
                    written += 1
        write_header(folder, teacher.name, teacher.readout_width)
    return written
