"""Build the student of a stage and open its teachers."""

from pathlib import Path

import torch
from torch import nn

from sam2lite_core.errors import ModelFileError
from sam2lite_core.export.checkpoint import fill_student, read_checkpoint
from sam2lite_core.model.student import Student
from sam2lite_core.variants import get_variant
from training.config.run import RunConfig
from training.config.stages import StageConfig
from training.seeds import seed_of
from training.students.pretrained import fill_trunk
from training.teachers import Teacher, image_features, readout_projection
from training.teachers import open_teacher as open_by_name
from training.teachers.cache import CachedTeacher
from training.teachers.image_features import ImageTeacher


def build_student(config: RunConfig, stage: StageConfig, start: Path | None, *, restored: bool = False) -> Student:
    """Build the student that a stage trains, with the averaged weights of `start`, or with the seed's.

    Published weights of the trunk are not read where it is `restored`: other weights replace them.

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
        fill_trunk(student, config.trunk)
    if stage.int8:
        # Only this stage pays for the import.
        from training.students.quantization import prepare

        student = prepare(student)
    return student


def open_image_teacher(
    config: RunConfig, student: Student, device: torch.device
) -> tuple[ImageTeacher | None, nn.Linear | None]:
    """Open the teacher of the encoder, and the projection to its features; none where the run has none.

    Raises:
        TeacherError: naming what is missing.
    """
    if config.teacher.images is None:
        return None, None
    teacher = image_features.load(config.teacher.images, device)
    return teacher, nn.Linear(student.variant.width, teacher.width)


def open_teacher(config: RunConfig, student: Student, device: torch.device) -> tuple[Teacher | None, nn.Linear | None]:
    """Open the teacher of a run, and the projection of the student's readout to its; none where the run has none.

    Raises:
        TeacherError: naming what is missing.
    """
    asked = config.teacher
    if asked.name == "none":
        return None, None
    teacher: Teacher = CachedTeacher(asked.cache) if asked.cache else open_by_name(asked.name, asked.path, device)
    return teacher, readout_projection(student, teacher)
