"""Export a checkpoint to the folder that the tracker loads: `python -m training.export --checkpoint F --out DIR`."""

import argparse
from pathlib import Path

from sam2lite_core.export.checkpoint import load_checkpoint
from sam2lite_core.export.onnx import export_student


def main() -> None:
    """Parse the arguments and export."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--checkpoint", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--note", default="")
    args = parser.parse_args()
    export_student(load_checkpoint(args.checkpoint), args.out, args.note)


if __name__ == "__main__":
    main()
