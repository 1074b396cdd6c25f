"""Training checkpoints, as the exporter reads them."""

from pathlib import Path

import torch

from sam2lite_core.errors import ModelFileError
from sam2lite_core.model.student import Student
from sam2lite_core.variants import get_variant


def load_checkpoint(path: Path) -> Student:
    """The averaged weights of a checkpoint, in evaluation mode. Nothing in the file is executed.

    Raises:
        ModelFileError: the file is missing, damaged, no checkpoint of ours, or does not fit its variant.
        UnknownVariantError: a variant that this version does not have.
    """
    if not path.is_file():
        raise ModelFileError(f"{path} does not exist; give a checkpoint that the trainer wrote")
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises several unrelated types for a damaged file
        raise ModelFileError(f"{path} cannot be read as a checkpoint: {error}") from error
    if not isinstance(state, dict) or not {"variant", "average"} <= state.keys():
        raise ModelFileError(f"{path} is no checkpoint of ours: it has no 'variant' and 'average'")
    student = Student(get_variant(str(state["variant"])))
    try:
        student.load_state_dict({name: tensor.float() for name, tensor in state["average"].items()})
    except RuntimeError as error:
        raise ModelFileError(f"{path} does not fit variant {state['variant']}: {error}") from error
    return student.eval()
