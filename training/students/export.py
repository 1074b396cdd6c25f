"""Export a checkpoint to the folder that the tracker loads."""

import argparse
from pathlib import Path

from sam2lite_core.export.onnx import export_student
from sam2lite_core.model.student import Student
from training.students.load import load_averaged


def load_student(path: Path) -> Student:
    """The averaged weights of a checkpoint in floating point, in evaluation mode.

    Raises:
        ModelFileError: the file is missing, cut short or no checkpoint.
    """
    student, int8 = load_averaged(path)
    if not int8:
        return student
    from training.students.quantized_export import in_floating_point

    return in_floating_point(student)


def export_checkpoint(path: Path, folder: Path, note: str = "") -> None:
    """Write the files that the tracker loads: INT8 graphs for a checkpoint of stage 3, else floating point.

    Raises:
        ModelFileError: the checkpoint cannot be read, or the folder holds something else.
    """
    student, int8 = load_averaged(path)
    if not int8:
        export_student(student, folder, note)
        return
    from training.students.quantized_export import export_int8

    export_int8(student, folder, note)


def main() -> None:
    """Parse the arguments and export."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--checkpoint", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--note", default="")
    args = parser.parse_args()
    export_checkpoint(args.checkpoint, args.out, args.note)


if __name__ == "__main__":
    main()
