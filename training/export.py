"""Export a checkpoint to the folder that the tracker loads: `python -m training.export --checkpoint F --out DIR`."""

import argparse
from pathlib import Path

import torch

from sam2lite_core.export.onnx import export_student
from sam2lite_core.model.student import Student
from sam2lite_core.variants import get_variant


def load_student(path: Path) -> Student:
    """The averaged weights of a checkpoint, in evaluation mode. Nothing in the file is executed."""
    state = torch.load(path, weights_only=True)
    student = Student(get_variant(state["variant"]))
    student.load_state_dict(state["average"])
    return student.eval()


def main() -> None:
    """Parse the arguments and export."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--checkpoint", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--note", default="")
    args = parser.parse_args()
    export_student(load_student(args.checkpoint), args.out, args.note)


if __name__ == "__main__":
    main()
