"""Cache batches of clips with a teacher's targets on disk.

A cache is a folder: `cache.json` names the teacher, `stageS_phaseP/000000.pt` holds a batch. Training repeats the
batches, so that a cache fixes the augmentation of its clips.
"""

import json
from pathlib import Path

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
from training.teachers.base import TeacherTargets

CACHE_FILE = "cache.json"
PREFIX = "teacher."
"""Prefix of the teacher's tensors in a batch."""


def batch_file(folder: Path, stage: int, phase: int, number: int) -> Path:
    """Name the file of a batch of a cache."""
    return folder / f"stage{stage}_phase{phase}" / f"{number:06d}.pt"


class CachedTeacher:
    """Teacher that reads its targets from the batches of a cache; see `Teacher`."""

    def __init__(self, folder: Path) -> None:
        """Read the teacher's name and width.

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

    def targets(self, clip: dict[str, Tensor]) -> TeacherTargets:
        """See `Teacher.targets`; the clip must come from the cache."""
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
    place = batch_file(folder, stage, phase, 0).parent
    files = sorted(place.glob("*.pt"))
    if not files:
        raise SourceError(f"{place}: no batch; make the cache with the same stages and phases")
    return DataLoader(
        _CachedBatches(files, first), sampler=range(2**40), batch_size=1, collate_fn=lambda batches: batches[0]
    )


def fill_cache(config: RunConfig, stages: tuple[int, ...], count: int, out: Path, device: str) -> int:
    """Run the configured teacher over the first `count` batches of every phase; return the batches written.

    Args:
        config, stages: the run, and numbers of its stages.
        count: batches of each phase.
        out: folder of the cache; an earlier cache is replaced.
        device: auto, cpu, cuda or cuda:N.

    Raises:
        ConfigurationError, SourceError, TeacherError: no teacher to run, or a bad file.
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
                    content = {name: tensor.cpu() for name, tensor in clip.items()}
                    content |= {PREFIX + name: tensor for name, tensor in teacher.targets(clip).state().items()}
                    path = batch_file(folder, stage, phase, number)
                    path.parent.mkdir(parents=True, exist_ok=True)
                    checkpoint.save(path, {"variant": config.variant, "batch": content})
                    written += 1
        # Last, so that only a complete cache has it.
        document = {"teacher": teacher.name, "readout_width": teacher.readout_width}
        write_atomically(folder / CACHE_FILE, (json.dumps(document) + "\n").encode())
    return written
