"""Export a checkpoint to the folder that the tracker loads."""

from pathlib import Path

from sam2lite_core.export.onnx import export_student
from training.students.load import load_average


def export_checkpoint(path: Path, folder: Path, note: str = "") -> None:
    """Write the files that the tracker loads: INT8 graphs for a checkpoint of stage 3, else floating point.

    Raises:
        ModelFileError: the checkpoint cannot be read, or the folder holds something else.
    """
    state, student = load_average(path)
    if state.get("int8", False):
        from training.students.quantized_export import export_int8

        export_int8(student, folder, note)
    else:
        export_student(student, folder, note)
