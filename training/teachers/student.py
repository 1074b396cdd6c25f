"""One of our own checkpoints as teacher, with a memory that forgets nothing."""

from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor

from sam2lite_core.backends.model_files import WEIGHTS_FILE
from sam2lite_core.backends.torch import load_shipped
from sam2lite_core.export.checkpoint import load_checkpoint
from sam2lite_core.model.bank import readable
from sam2lite_core.model.step import ROBOT, StepResult, UnboundedMemory
from sam2lite_core.model.student import Student
from training.data.play import WINDOW, encode_clips, play
from training.teachers.attention_bins import CELLS, cell_of, into_bins, occupied
from training.teachers.base import TeacherTargets


def load(path: Path) -> Student:
    """Load a student in evaluation mode from a checkpoint of a training run or a folder of shipped weights.

    Raises:
        ModelFileError: there is nothing at the path, or it is neither of the two.
    """
    if path.is_dir():
        return load_shipped(path / WEIGHTS_FILE)[0]
    return load_checkpoint(path)


class StudentTeacher:
    """Runs a trained student over clips and writes the ground truth masks to its memory.

    Its attention depends on keys alone and stays its own; its readout is that of a student that never erred.
    """

    name = "student"

    def __init__(self, student: Student, pooled: bool = True, budget: int | None = None) -> None:
        """Take a student over.

        Args:
            student: on the device of the clips; it is frozen.
            pooled: if its tokens cover 2x2 patches.
            budget: B in tokens of a robot's memory, which the student fills with its own masks; None keeps every token,
                written with the ground truth.
        """
        self._student = student.eval().requires_grad_(False)
        self._pooled = pooled
        self._budget = budget
        self.readout_width = student.variant.key_width

    def play(self, clip: dict[str, Tensor]) -> Iterator[tuple[int, StepResult]]:
        """Track a batch of clips with the teacher's memory."""
        clips = encode_clips(self._student, clip)
        bounded = self._budget is not None
        patches = clips.key.shape[-2] * clips.key.shape[-1]
        return play(
            self._student, clips, clip["flow"], clip["motion"], self._budget or clips.key.shape[1] * patches,
            pooled=self._pooled, memory=ROBOT if bounded else UnboundedMemory(), ground_truth=not bounded,
            raw_readout=True,
        )  # fmt: skip

    @torch.no_grad()
    def targets(self, clip: dict[str, Tensor]) -> TeacherTargets:
        """See `Teacher.targets`."""
        batch, frames, rows, columns = clip["motion"].shape
        device, patches = clip["images"].device, rows * columns
        attention = torch.zeros(batch, frames, patches, frames, CELLS, device=device)
        held = torch.zeros(batch, frames, frames, CELLS, dtype=torch.bool, device=device)
        readouts = torch.zeros(batch, frames, patches, self.readout_width, device=device)
        window = torch.full((batch,), WINDOW, device=device)
        predicted = []
        for t, result in self.play(clip):
            if t == 0:
                # The first frame has nothing to read; its masks are given.
                predicted.append(result.masks)
                continue
            bank = result.held
            source, cell = bank.column("birth"), cell_of(bank.column("x"), bank.column("y"))
            attention[:, t] = into_bins(result.readout.attention, source, cell, frames)
            held[:, t] = occupied(readable(bank, window), source, cell, frames)
            readouts[:, t] = result.readout.feature
            predicted.append(result.decoded.probability)
        known = torch.ones(batch, frames, patches, dtype=torch.bool, device=device)
        known[:, 0] = False
        lost = torch.zeros(batch, frames, patches, device=device)
        return TeacherTargets(attention, held, known, lost, readouts, torch.stack(predicted, dim=1))
