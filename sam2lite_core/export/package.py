"""Write the graphs and the weights with the same description in each, all files or none."""

import contextlib
import hashlib
import json
import logging
import shutil
import tempfile
from collections.abc import Iterator
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
    """Describe a model in floating point for its files, but for the weights' hash.

    `note` says where the weights come from; the graphs hold `max_objects` at once, the student's own when None.
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
    """Return contents by file name; both graphs are changed to carry `info`, of `describe`, and the weights' hash."""
    text = json.dumps({**info, "weights_sha256": hashlib.sha256(weights).hexdigest()})
    contents = {WEIGHTS_FILE: weights}
    for name, model in models.items():
        del model.metadata_props[:]
        entry = model.metadata_props.add()
        entry.key, entry.value = INFO_KEY, text
        contents[name] = model.SerializeToString()
    return contents


def check_folder(folder: Path) -> None:
    """Raise ModelFileError for a folder that holds anything but an earlier export."""
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


@contextlib.contextmanager
def errors_only(name: str) -> Iterator[None]:
    """Silence a logger, the root's for an empty name, but for errors."""
    logger = logging.getLogger(name)
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)
