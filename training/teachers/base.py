"""Define a teacher, and what it says about a clip (paper section 3.2, design section 4)."""

from dataclasses import dataclass, fields, replace
from typing import Protocol

import torch
from torch import Tensor

from sam2lite_core.errors import Sam2LiteError
from training.teachers.attention_bins import CELLS


class TeacherError(Sam2LiteError):
    """A teacher that does not exist, cannot be loaded, or does not fit its student."""


@dataclass(frozen=True)
class TeacherTargets:
    """Attention and readout of a teacher on N clips of T frames; P queries, the patches of the student's grid.

    Attributes:
        attention: (N, T, P, T, 64) float, how much query p of frame t attends to each cell of each earlier frame;
            every known row sums to 1 over the bins that the teacher holds, others are 0.
        held: (N, T, T, 64) bool, bins in which the teacher has something at frame t.
        known: (N, T, P) bool, rows that say something; nothing of frame 0.
        lost: (N, T, P) float, share of the attention that was on no bin (object pointers), before it was renormalised.
        readout: (N, T, P, D) float, attention times values (equation 6), or None.
        masks: (N, T, K, H/4, W/4) float 0..1, the teacher's own masks, or None.
    """

    attention: Tensor
    held: Tensor
    known: Tensor
    lost: Tensor
    readout: Tensor | None = None
    masks: Tensor | None = None

    def to(self, device: torch.device | str) -> "TeacherTargets":
        """Return the same on a device, in float32."""
        return replace(
            self,
            **{
                name: tensor.to(device, torch.float32 if tensor.is_floating_point() else tensor.dtype)
                for name, tensor in self._tensors().items()
            },
        )

    def state(self) -> dict[str, Tensor]:
        """Return contiguous CPU tensors by name to save, floats as half, without those that are None."""
        return {
            name: (tensor.half() if tensor.is_floating_point() else tensor).cpu().contiguous()
            for name, tensor in self._tensors().items()
        }

    @classmethod
    def from_state(cls, state: dict[str, Tensor]) -> "TeacherTargets":
        """Read `state` back, in float32.

        Raises:
            TeacherError: a tensor is missing, unknown, or of a shape that does not fit the others.
        """
        if unknown := sorted(set(state) - {field.name for field in fields(cls)}):
            raise TeacherError(f"teacher targets have no {', '.join(unknown)}; cache them anew")
        if missing := sorted({"attention", "held", "known", "lost"} - set(state)):
            raise TeacherError(f"teacher targets lack {', '.join(missing)}; cache them anew")
        shape = state["attention"].shape
        if len(shape) != 5 or shape[1] != shape[3] or shape[4] != CELLS:
            raise TeacherError(f"teacher attention has shape {tuple(shape)}, not (N, T, P, T, {CELLS}); cache it anew")
        wanted = {"held": (shape[0], shape[1], shape[1], CELLS), "known": shape[:3], "lost": shape[:3]}
        for name, sides in wanted.items():
            if (found := tuple(state[name].shape)) != tuple(sides):
                raise TeacherError(f"teacher targets: {name} has shape {found}, not {tuple(sides)}; cache them anew")
        return cls(**state).to("cpu")

    def _tensors(self) -> dict[str, Tensor]:
        return {name: value for name, value in vars(self).items() if value is not None}


class Teacher(Protocol):
    """Source of attention and readout for a student; `readout_width` is D, 0 where it has no readout."""

    name: str
    readout_width: int

    def targets(self, clip: dict[str, Tensor]) -> TeacherTargets:
        """Watch a batch of clips of `training.data`; on the clip's device, without gradients."""
        ...
