"""Load a checkpoint into a student."""

from pathlib import Path
from typing import Any

from sam2lite_core.errors import ModelFileError
from sam2lite_core.export.checkpoint import load_checkpoint
from sam2lite_core.model.student import Student
from sam2lite_core.variants import get_variant
from training import checkpoint


def load_average(path: Path) -> tuple[dict[str, Any], Student]:
    """A checkpoint, and the student with its averaged weights, in evaluation mode.

    Raises:
        ModelFileError: it cannot be read or fits no variant.
    """
    state = checkpoint.load(path)
    student = Student(get_variant(state["variant"]))
    _fill(student, state, path)
    return state, student.eval()


def _fill(student: Student, state: dict[str, Any], path: Path) -> None:
    try:
        # Parts that are newer than the checkpoint keep their initial values.
        missing, unknown = student.load_state_dict(state["average"], strict=False)
    except RuntimeError as error:
        raise ModelFileError(f"{path}: does not fit variant {state['variant']}: {error}") from None
    if unknown or len(missing) == len(student.state_dict()):
        raise ModelFileError(f"{path}: holds {(unknown or ['nothing'])[0]}, which the student has not")


def load_averaged(path: Path) -> tuple[Student, bool]:
    """The averaged weights of a checkpoint, in evaluation mode. Nothing in the file is executed.

    Returns:
        The student, and whether it simulates INT8.

    Raises:
        ModelFileError: the file is missing, cut short or no checkpoint.
    """
    state = checkpoint.load(path)
    if not state.get("int8", False):
        return load_checkpoint(path), False
    from training.students.quantization import prepare

    student = prepare(Student(get_variant(state["variant"])))
    try:
        student.load_state_dict(state["average"])
    except (KeyError, RuntimeError) as error:
        raise ModelFileError(f"{path}: holds no student of variant {state['variant']}: {error}") from None
    return student.eval(), True
