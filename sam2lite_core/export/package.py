"""Write the graphs and the weights with the same description in each, all files or none."""

import hashlib
import json
import shutil
import tempfile
from pathlib import Path
from typing import Any

import onnx

from sam2lite_core.backends.model_files import ENGINES, FORMAT, INFO_KEY, PROMPT_FILE, STEP_FILE, WEIGHTS_FILE
from sam2lite_core.errors import ModelFileError
from sam2lite_core.model.cost import count_variant
from sam2lite_core.model.student import Student

OURS = frozenset({STEP_FILE, PROMPT_FILE, WEIGHTS_FILE, "MODEL_CARD.md", ENGINES})
"""What an export may find in its folder: an earlier one, somebody's card about it, and engines built from it."""


def describe(
    student: Student, note: str = "", max_objects: int | None = None, precision: str = "fp32"
) -> dict[str, Any]:
    """Describe a model for its files, but for the weights' hash.

    Args:
        student: any variant, in floating point.
        note: where the weights come from.
        max_objects: objects that the graphs hold at once; the student's own when None.
        precision: of the graphs: fp32, fp16 or int8.
    """
    parameters, flops = count_variant(student.variant)
    return {
        "format": FORMAT,
        "variant": student.variant.name,
        "max_objects": max_objects or student.variant.max_objects,
        "memory_budget": student.variant.memory_budget,
        # Of the variant: a student whose batch norms are folded already has fewer.
        "parameters": parameters,
        "flops_per_frame": flops,
        "note": note,
        "precision": precision,
    }


def stamp(models: dict[str, onnx.ModelProto], weights: bytes, info: dict[str, Any]) -> dict[str, bytes]:
    """Make the files of a model: both graphs name the weights that they were exported with.

    Args:
        models: the graphs by file name; their description is replaced.
        weights: contents of the weights file.
        info: as `describe` gives it.

    Returns:
        Contents by file name.
    """
    text = json.dumps({**info, "weights_sha256": hashlib.sha256(weights).hexdigest()})
    contents = {WEIGHTS_FILE: weights}
    for name, model in models.items():
        del model.metadata_props[:]
        entry = model.metadata_props.add()
        entry.key, entry.value = INFO_KEY, text
        contents[name] = model.SerializeToString()
    return contents


def check_folder(folder: Path) -> None:
    """Refuse to export into a folder that holds anything but an earlier export.

    Raises:
        ModelFileError: naming the other files.
    """
    if folder.is_file():
        raise ModelFileError(f"{folder} is a file; name a folder for the model")
    foreign = {path.name for path in folder.iterdir()} - OURS if folder.is_dir() else set()
    if foreign:
        raise ModelFileError(f"{folder} holds {', '.join(sorted(foreign))}; export into a folder of its own")


def replace_files(folder: Path, contents: dict[str, bytes]) -> None:
    """Write files into a folder under other names first, so that a failure leaves what was there."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    try:
        for name, content in contents.items():
            (partial / name).write_bytes(content)
        folder.mkdir(exist_ok=True)
        for name in contents:
            (partial / name).replace(folder / name)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
