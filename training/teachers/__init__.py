"""Teachers by name: who shows the student where to look and what to read (paper section 3.2)."""

from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn

from sam2lite_core.model.student import Student
from training.teachers.base import Teacher, TeacherError, TeacherTargets
from training.teachers.oracle import OracleTeacher

__all__ = ["TEACHERS", "Teacher", "TeacherError", "TeacherTargets", "open_teacher", "readout_projection"]


def _student(path: Path, device: torch.device | str) -> Teacher:
    from training.teachers.student import StudentTeacher, load

    return StudentTeacher(load(path).to(device))


def _sam2(path: Path, device: torch.device | str) -> Teacher:
    # transformers takes seconds to import; only who asks for these teachers pays.
    from training.teachers.sam2 import Sam2Teacher, load

    return Sam2Teacher("sam2", load("sam2", path, device))


def _edgetam(path: Path, device: torch.device | str) -> Teacher:
    from training.teachers.sam2 import Sam2Teacher, load

    return Sam2Teacher("edgetam", load("edgetam", path, device))


_FROM_PATH: dict[str, Callable[[Path, torch.device | str], Teacher]] = {
    "student": _student,
    "sam2": _sam2,
    "edgetam": _edgetam,
}

TEACHERS = ("oracle", *_FROM_PATH)
"""Names that `open_teacher` knows."""


def open_teacher(name: str, path: Path | None, device: torch.device | str) -> Teacher:
    """Open a teacher.

    Args:
        name: one of `TEACHERS`.
        path: of the checkpoint or folder; None for the oracle, which needs none.
        device: that clips will be on.

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
    return _FROM_PATH[name](path, device)


def readout_projection(student: Student, teacher: Teacher) -> nn.Linear | None:
    """Make the projection of the student's readout to the teacher's width; None for a teacher without readout.

    It starts at zero, a loss of 1 with every teacher: with torch's own start, a teacher whose values are small would be
    missed a thousandfold at first.
    """
    if not teacher.readout_width:
        return None
    projection = nn.Linear(student.variant.key_width, teacher.readout_width)
    nn.init.zeros_(projection.weight)
    nn.init.zeros_(projection.bias)
    return projection
