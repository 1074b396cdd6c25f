"""Read training checkpoints, one rule for training and export: every weight must be there and fit."""

from pathlib import Path
from typing import Any

import torch

from sam2lite_core.errors import ModelFileError
from sam2lite_core.model.student import Student
from sam2lite_core.variants import get_variant


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Read a checkpoint onto the CPU, or raise ModelFileError. Nothing in the file is executed."""
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise ModelFileError(f"{path}: no such checkpoint; the file does not exist") from None
    except Exception as error:  # torch raises several unrelated types for a damaged file
        raise ModelFileError(
            f"{path}: cut short, damaged or not a checkpoint: it cannot be read; delete it to go on from the one "
            "before it"
        ) from error
    if not isinstance(content, dict) or "variant" not in content:
        raise ModelFileError(f"{path}: not a checkpoint of a student: it has no 'variant'")
    return content


def fill_student(student: Student, state: dict[str, Any], path: Path) -> Student:
    """Give a student a checkpoint's averaged weights, in evaluation mode, or raise ModelFileError."""
    if "average" not in state:
        raise ModelFileError(f"{path}: not a checkpoint of a student: it has no 'average'")
    try:
        student.load_state_dict({name: tensor.float() for name, tensor in state["average"].items()})
    except RuntimeError as error:
        raise ModelFileError(f"{path}: does not fit variant {state['variant']}: {error}") from error
    return student.eval()


def load_checkpoint(path: Path) -> Student:
    """Load a checkpoint's averaged weights, in evaluation mode, or raise ModelFileError or UnknownVariantError."""
    state = read_checkpoint(path)
    return fill_student(Student(get_variant(str(state["variant"]))), state, path)
