"""Where a model's files are and whether they are ours."""

import json
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any

from sam2lite_core.errors import ModelFileError
from sam2lite_core.variants import Variant

STEP_FILE = "step.onnx"
PROMPT_FILE = "prompt.onnx"
WEIGHTS_FILE = "weights.bin"
INFO_KEY = "sam2lite_info"
FORMAT = 1


@dataclass(frozen=True)
class ModelInfo:
    """What a model's files say about themselves.

    Attributes:
        variant: its name.
        max_objects: slots M of the graphs.
        memory_budget: the variant's default B.
        parameters: counts by part, with "total".
        weights_sha256: of the weights file.
        note: where the weights come from.
    """

    variant: str
    max_objects: int
    memory_budget: int
    parameters: dict[str, int] = field(default_factory=dict)
    weights_sha256: str = ""
    note: str = ""


def parse_info(text: str | None, path: Path) -> ModelInfo:
    """Read the metadata entry of an ONNX file.

    Raises:
        ModelFileError: the entry is missing (a foreign file), unreadable or of another format.
    """
    if text is None:
        raise ModelFileError(
            f"{path} is not a SAM2-Lite model: it has no {INFO_KEY} metadata; make one with the exporter"
        )
    try:
        values: dict[str, Any] = json.loads(text)
        version = values.pop("format")
        if version != FORMAT:
            raise ModelFileError(
                f"{path} has format {version}, this version reads {FORMAT}; export the model again"
            )
        return ModelInfo(**values)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ModelFileError(
            f"{path} has unreadable {INFO_KEY} metadata ({error}); export the model again"
        ) from error


def find_model(variant: Variant, model_path: str | Path | None) -> Path:
    """Folder of a model's files: the given one, or the weights that ship with the package.

    Args:
        variant: whose shipped weights to use when no path is given.
        model_path: the folder, or its step.onnx.

    Raises:
        ModelFileError: the folder or one of the three files is missing.
    """
    if model_path is None:
        folder = Path(str(resources.files("sam2lite_core"))) / "weights" / variant.name
        hint = f"no weights ship for {variant.name}; give model_path or train and export it"
    else:
        folder = Path(model_path).expanduser()
        folder = folder.parent if folder.name == STEP_FILE else folder
        hint = "give the folder that the exporter wrote"
    missing = [name for name in (STEP_FILE, PROMPT_FILE, WEIGHTS_FILE) if not (folder / name).is_file()]
    if missing:
        raise ModelFileError(f"{folder} lacks {', '.join(missing)}; {hint}")
    return folder
