"""Export a checkpoint to the folder that the tracker loads: `python -m training.export --checkpoint F --out DIR`."""

import argparse
from pathlib import Path

from sam2lite_core.errors import ModelFileError
from sam2lite_core.export.onnx import export_student
from sam2lite_core.model.student import Student
from sam2lite_core.variants import get_variant
from training import checkpoint


def load_student(path: Path) -> Student:
    """The averaged weights of a checkpoint, in evaluation mode. Nothing in the file is executed.

    Raises:
        ModelFileError: the file is missing, cut short, no checkpoint, or of a stage that simulates INT8.
    """
    state = checkpoint.load(path)
    if state.get("int8", False):
        raise ModelFileError(f"{path}: simulates INT8; export it with training.quantization")
    student = Student(get_variant(state["variant"]))
    try:
        student.load_state_dict(state["average"])
    except (KeyError, RuntimeError) as error:
        raise ModelFileError(f"{path}: holds no student of variant {state['variant']}: {error}") from None
    return student.eval()


def export_checkpoint(path: Path, folder: Path, note: str = "") -> None:
    """Write the files that the tracker loads; see `export_student`.

    Raises:
        ModelFileError: the checkpoint cannot be read, or the folder holds something else.
    """
    export_student(load_student(path), folder, note)


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
