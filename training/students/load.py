"""Load the student of a checkpoint."""

from pathlib import Path
from typing import Any

from sam2lite_core.export.checkpoint import fill_student, read_checkpoint
from sam2lite_core.model.student import Student
from sam2lite_core.variants import get_variant


def load_average(path: Path) -> tuple[dict[str, Any], Student]:
    """Load a checkpoint and the student with its averaged weights, in evaluation mode, INT8 as its `int8` says.

    Raises:
        ModelFileError: the file cannot be read, or does not fit its variant.
    """
    state = read_checkpoint(path)
    student = Student(get_variant(state["variant"]))
    if state.get("int8", False):
        from training.students.quantization import prepare

        student = prepare(student)
    return state, fill_student(student, state, path)
