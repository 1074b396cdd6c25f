"""Distil a frame from a teacher (paper section 3.2)."""

from torch import Tensor, nn

from sam2lite_core.model.bank import Bank
from sam2lite_core.model.student import DecodedMasks, Readout
from training.objective import losses
from training.teachers.attention_bins import cell_of, into_bins, occupied
from training.teachers.base import TeacherTargets


def frame_distillation(
    targets: TeacherTargets, t: int, bank: Bank, kept: Tensor, readout: Readout, prediction: DecodedMasks,
    followed: Tensor, projection: nn.Module | None,
) -> dict[str, Tensor]:  # fmt: skip
    """Compute the unweighted distillation losses of frame t: attention, readout and output, as far as they exist.

    Args:
        targets: of the clip.
        t: the frame, at least 1.
        bank: what the student read, S tokens.
        kept: (N, S) bool, tokens that it could read and that its bounded bank holds.
        readout, prediction: of the student.
        followed: (N, K) 1 for objects that are followed.
        projection: from the student's readout to the teacher's width.

    Returns:
        The losses, and "attention_lost", the share of the teacher's attention on what the student does not hold.
    """
    frames = targets.attention.shape[1]
    source, cell = bank.column("birth"), cell_of(bank.column("x"), bank.column("y"))
    mine = into_bins(readout.attention * kept.unsqueeze(1), source, cell, frames).flatten(2)
    common = (occupied(kept, source, cell, frames) & targets.held[:, t]).flatten(1)
    known = targets.known[:, t]
    divergence, lost = losses.attention(mine, targets.attention[:, t].flatten(2), common, known)
    speaks = known.float()
    pointers = (targets.lost[:, t] * speaks).sum() / speaks.sum().clamp(min=1.0)
    parts = {"attention": divergence, "attention_lost": 1.0 - (1.0 - lost) * (1.0 - pointers)}
    if targets.readout is not None and projection is not None:
        parts["readout"] = losses.readout(projection(readout.feature), targets.readout[:, t], known)
    if targets.masks is not None:
        count = followed.shape[1]
        parts["output"] = losses.output(prediction.probability, targets.masks[:, t, :count], followed)
    return parts
