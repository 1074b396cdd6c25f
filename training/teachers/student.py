"""One of our own checkpoints as teacher, with a memory that forgets nothing."""

from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from sam2lite_core.backends.model_files import WEIGHTS_FILE
from sam2lite_core.backends.torch import load_shipped
from sam2lite_core.export.checkpoint import load_checkpoint
from sam2lite_core.model import bank as memory
from sam2lite_core.model.bank import Bank
from sam2lite_core.model.student import Student
from training.data.tensors import frame_features, one_hot, token_pool, warp
from training.teachers.attention_bins import CELLS, cell_of, into_bins, occupied
from training.teachers.base import TeacherTargets


def load(path: Path) -> Student:
    """A student in evaluation mode from a checkpoint of a training run or a folder of shipped weights.

    Raises:
        ModelFileError: there is nothing at the path, or it is neither of the two.
    """
    if path.is_dir():
        return load_shipped(path / WEIGHTS_FILE)[0]
    return load_checkpoint(path)


class StudentTeacher:
    """Runs a trained student over clips; what it remembers of each frame is the true masks.

    Its attention depends on keys alone, so that true masks cost nothing of its own opinion, and its readout is then
    what a student would read that never erred.
    """

    name = "student"

    def __init__(self, student: Student, pooled: bool = True) -> None:
        """Take a student over.

        Args:
            student: on the device of the clips; it is frozen.
            pooled: whether its tokens cover 2x2 patches.
        """
        self._student = student.eval().requires_grad_(False)
        self._pooled = pooled
        self.readout_width = student.variant.key_width

    @torch.no_grad()
    def targets(self, clip: dict[str, Tensor]) -> TeacherTargets:
        """See `Teacher.targets`."""
        student = self._student
        images = clip["images"].permute(0, 1, 4, 2, 3).float()
        batch, frames = images.shape[:2]
        device = images.device
        features, key = student.encode(images.flatten(0, 1))
        key = key.reshape(batch, frames, *key.shape[1:])
        rows, columns = key.shape[-2:]
        patches = rows * columns
        count = int(clip["count"].max())
        truth = one_hot(clip["labels"], count)
        slots = torch.eye(count, device=device).expand(batch, -1, -1)
        pool = token_pool(rows, columns, self._pooled, device)
        active = torch.ones(batch, count, device=device)
        window = torch.full((batch,), 8.0, device=device)
        attention = torch.zeros(batch, frames, patches, frames, CELLS, device=device)
        held = torch.zeros(batch, frames, frames, CELLS, dtype=torch.bool, device=device)
        readouts = torch.zeros(batch, frames, patches, self.readout_width, device=device)
        masks = F.avg_pool2d(truth.flatten(0, 1), 4).unflatten(0, (batch, frames))
        predicted = masks.clone()
        bank: Bank | None = None
        for t in range(frames):
            current = frame_features(features, batch, t)
            if bank is not None:
                bank = memory.begin_frame(bank, active)
                logits = student.attention_logits(key[:, t], bank, window, pool)
                read = student.read(key[:, t], bank, slots, logits)
                source, cell = bank.column("birth"), cell_of(bank.column("x"), bank.column("y"))
                attention[:, t] = into_bins(read.attention, source, cell, frames)
                held[:, t] = occupied(memory.readable(bank, window), source, cell, frames)
                readouts[:, t] = read.feature
                warped = warp(predicted[:, t - 1], clip["flow"][:, t]) * 2.0 - 1.0
                predicted[:, t] = student.decode(current, read, warped).probability
            present = (truth[:, t].flatten(2).sum(-1) > 0).float()
            birth = torch.full((batch,), float(t), device=device)
            motion = clip["motion"][:, t].unsqueeze(1)
            fresh = student.tokens(current, key[:, t], masks[:, t], present, slots, motion, birth, pool)
            bank = fresh if bank is None else memory.concat(bank, fresh)
        known = torch.ones(batch, frames, patches, dtype=torch.bool, device=device)
        known[:, 0] = False
        lost = torch.zeros(batch, frames, patches, device=device)
        return TeacherTargets(attention, held, known, lost, readouts, predicted)
