"""Wrap student, teacher and losses into one module, so that Accelerate can distribute it."""

from typing import Any

import torch
from torch import Tensor, nn

from sam2lite_core.model.student import Student
from training.config.objective import UnrollConfig
from training.objective.unroll import Unroller
from training.teachers.image_features import ImageTeacher


class ClipLoss(nn.Module):
    """A student, and the projections of its readout and features to teachers', as a module whose forward is the loss.

    Parallel training and mixed precision hook into forward, and only into that of the outermost module.
    """

    def __init__(
        self, student: Student, teacher: Any = None, projection: nn.Module | None = None,
        images: ImageTeacher | None = None, image_projection: nn.Module | None = None,
    ) -> None:  # fmt: skip
        """Take a student; the teachers, as in `training.teachers`, are kept out of the parameters."""
        super().__init__()
        self.student = student
        self.projection = projection
        self.image_projection = image_projection
        self._teacher = (teacher,)
        self._images = (images,)

    def forward(
        self, clip: dict[str, Tensor], config: UnrollConfig, progress: float, generator: torch.Generator
    ) -> tuple[Tensor, dict[str, float]]:
        """Loss of a batch of clips and its parts; see `Unroller`."""
        (teacher,), (images,) = self._teacher, self._images
        seen = None if images is None or self.image_projection is None else (images, self.image_projection)
        return Unroller(self.student, config, generator, teacher, self.projection, seen)(clip, progress)
