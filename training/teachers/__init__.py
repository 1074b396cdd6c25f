"""Open teachers by name, who show the student where to look and what to read (paper section 3.2)."""

from pathlib import Path

import torch
from torch import nn

from sam2lite_core.model.student import Student
from training.teachers.base import Teacher, TeacherError, TeacherTargets
from training.teachers.oracle import OracleTeacher

__all__ = ["TEACHERS", "Teacher", "TeacherError", "TeacherTargets", "open_teacher", "readout_projection"]

TEACHERS = ("oracle", "student", "sam2", "edgetam")


def open_teacher(name: str, path: Path | None, device: torch.device | str) -> Teacher:
    """Open a teacher.

    Args:
        name: one of `TEACHERS`.
        path: of the checkpoint or folder; None for the oracle, which needs none.
        device: of the clips.

    Raises:
        TeacherError: the name is unknown, or the path is missing, needless, or not what the teacher needs.
    """
    if name not in TEACHERS:
        raise TeacherError(f"unknown teacher {name!r}; choose one of {', '.join(TEACHERS)}")
    if name == "oracle":
        if path is not None:
            raise TeacherError(f"the teacher oracle has no weights; leave its path {path} out")
        return OracleTeacher()
    if path is None:
        raise TeacherError(f"the teacher {name} needs the path of its weights")
    if name == "student":
        from training.teachers import student

        return student.StudentTeacher(student.load(path).to(device))
    # transformers takes seconds to import.
    from training.teachers import sam2

    return sam2.Sam2Teacher(name, sam2.load(name, path, device))


def readout_projection(student: Student, teacher: Teacher) -> nn.Linear | None:
    """Make the projection of the student's readout to the teacher's width; None for a teacher without readout.

    It starts at zero, so that the loss starts at 1 with every teacher.
    """
    if not teacher.readout_width:
        return None
    projection = nn.Linear(student.variant.key_width, teacher.readout_width)
    nn.init.zeros_(projection.weight)
    nn.init.zeros_(projection.bias)
    return projection
