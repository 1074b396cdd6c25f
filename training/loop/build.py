"""Build what a stage consists of: the student that it trains, its teachers, and how clips run through it."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from sam2lite_core.errors import ModelFileError
from sam2lite_core.export.checkpoint import fill_student, read_checkpoint
from sam2lite_core.model.student import Student
from sam2lite_core.variants import get_variant
from training.config.objective import UnrollConfig
from training.config.run import PACKAGED, RunConfig
from training.config.stages import Phase, StageConfig
from training.seeds import seed_of
from training.students import pretrained
from training.teachers import image_features
from training.teachers.cache import CachedTeacher
from training.teachers.image_features import ImageTeacher


def phase_unroll(config: RunConfig, stage: StageConfig, phase: Phase) -> UnrollConfig:
    """Configure how clips of a phase run through the student."""
    unroll = config.unroll
    if phase.budgets is not None:
        unroll = replace(unroll, budgets=phase.budgets)
    if phase.pooled is not None:
        unroll = replace(unroll, pooled=phase.pooled)
    return unroll if stage.prune else replace(unroll, selection="unbounded")


def build_student(config: RunConfig, stage: StageConfig, start: Path | None, *, restored: bool = False) -> Student:
    """Build the student that a stage trains, with the averaged weights of `start`, or with the seed's.

    Args:
        config: the run.
        stage: this part of it.
        start: the checkpoint to start from, if any.
        restored: whether other weights will replace all of these.

    Raises:
        ModelFileError: the checkpoint cannot be read or is of another variant.
        TeacherError: the published weights of the trunk cannot be read.
    """
    torch.manual_seed(seed_of(config.seed))
    student = Student(get_variant(config.variant))
    if start is not None:
        state = read_checkpoint(start)
        if state["variant"] != config.variant:
            raise ModelFileError(f"{start}: is of variant {state['variant']}, the run of {config.variant}")
        fill_student(student, state, start).train()
    elif config.trunk is not None and not restored:
        pretrained.fill_trunk(student, config.trunk)
    if stage.int8:
        # Only this stage pays for the import.
        from training.students.quantization import prepare

        student = prepare(student)
    return student


def open_image_teacher(
    config: RunConfig, student: Student, device: torch.device
) -> tuple[ImageTeacher | None, nn.Module | None]:
    """Open the teacher of the encoder, and the projection to its features; none where the run has none.

    Raises:
        TeacherError: naming what is missing.
    """
    path = config.teacher.images
    if path is None:
        return None, None
    teacher = image_features.load(image_features.packaged_weights() if path == PACKAGED else path, device)
    return teacher, image_features.image_projection(student, teacher)


def open_teacher(config: RunConfig, student: Student, device: torch.device) -> tuple[Any, nn.Module | None]:
    """Open the teacher of a run, and the projection of the student's readout to its; none where the run has none.

    Raises:
        TeacherError: naming what is missing.
    """
    if config.teacher.name == "none":
        return None, None
    from training import teachers

    if config.teacher.cache is not None:
        teacher: Any = CachedTeacher(config.teacher.cache)
    else:
        teacher = teachers.open_teacher(config.teacher.name, config.teacher.path, device)
    return teacher, teachers.readout_projection(student, teacher)
