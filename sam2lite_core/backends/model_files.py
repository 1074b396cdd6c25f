"""Find a model's files and check that they are ours."""

import json
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from sam2lite_core.errors import ModelFileError
from sam2lite_core.variants import Variant

STEP_FILE = "step.onnx"
PROMPT_FILE = "prompt.onnx"
WEIGHTS_FILE = "weights.safetensors"
SHIPPED = Path(__file__).parents[1] / "weights"
ENGINES = "engines"
"""Folder beside the graphs that holds what TensorRT built from them."""

INFO_KEY = "sam2lite_info"
FORMAT = 3
MAX_HEADER = 1 << 20  # ours is 20 kB; a foreign file must not make us read gigabytes
TRANSPOSED = ".T"
"""Ends the name of a tensor that the weights file holds transposed, as the graphs multiply by it."""


@dataclass(frozen=True)
class ModelInfo:
    """Metadata of a model's files.

    Attributes:
        variant: its name.
        max_objects: object slots M of the graphs.
        memory_budget: the variant's default B.
        parameters: counts by part, with "total".
        flops_per_frame: operations of a frame of a 480x854 source by resolution scale, one object, full bank.
        weights_sha256: of the weights file.
        note: where the weights come from.
        precision: of the graphs: fp32, fp16 or int8.
    """

    variant: str
    max_objects: int
    memory_budget: int
    parameters: dict[str, int] = field(default_factory=dict)
    flops_per_frame: dict[str, int] = field(default_factory=dict)
    weights_sha256: str = ""
    note: str = ""
    precision: str = "fp32"


def parse_info(text: str | None, path: Path) -> ModelInfo:
    """Read the metadata entry of a model's file.

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
            raise ModelFileError(f"{path} has format {version}, this version reads {FORMAT}; export the model again")
        return ModelInfo(**values)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ModelFileError(f"{path} has unreadable {INFO_KEY} metadata ({error}); export the model again") from error


def find_model(variant: Variant, model_path: str | Path | None) -> Path:
    """Find the folder of a model's files: model_path or its step.onnx, else the variant's shipped weights.

    Raises:
        ModelFileError: the folder or one of the three files is missing.
    """
    if model_path is None:
        folder = SHIPPED / variant.name
        hint = f"no weights ship for {variant.name}; give model_path or train and export it"
    else:
        folder = Path(model_path).expanduser()
        folder = folder.parent if folder.name == STEP_FILE else folder
        hint = "give the folder that the exporter wrote"
        if not folder.is_dir():
            raise ModelFileError(f"{folder} is not a folder; {hint}")
    missing = [name for name in (STEP_FILE, PROMPT_FILE, WEIGHTS_FILE) if not (folder / name).is_file()]
    if missing:
        raise ModelFileError(f"{folder} lacks {', '.join(missing)}; {hint}")
    return folder


def foreign_folder(backend: str, model_path: str | Path | None) -> Path:
    """Return model_path as the folder of a model that is not ours.

    Raises:
        ModelFileError: none was given; `backend` is named.
    """
    if model_path is None:
        raise ModelFileError(
            f"backend {backend} ships no weights; give model_path, a folder of SAM 2.1 or EdgeTAM in Hugging Face's "
            "layout"
        )
    return Path(model_path).expanduser()


def foreign_weights(backend: str, model_path: str | Path | None) -> list[Path]:
    """List the weights files of a model that is not ours; errors as for `foreign_folder`."""
    folder = foreign_folder(backend, model_path)
    return sorted(path for ending in ("safetensors", "bin") for path in folder.glob(f"*.{ending}"))


def read_weights_info(path: Path) -> ModelInfo:
    """Read the header of a weights file, and hash the file.

    Raises:
        ModelFileError: it is missing, not a safetensors file, cut short, or not ours.
    """
    try:
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            header: dict[str, Any] = json.loads(file.read(min(length, MAX_HEADER)))
        metadata = header.pop("__metadata__", {})
        end = 8 + length + max((entry["data_offsets"][1] for entry in header.values()), default=0)
        size = path.stat().st_size
    except OSError as error:
        raise ModelFileError(f"{path} cannot be read: {error}") from error
    except (ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
        raise ModelFileError(f"{path} is not a safetensors file ({error}); copy it again") from error
    if size != end:
        raise ModelFileError(f"{path} has {size} bytes and should have {end}; copy it again")
    return replace(parse_info(metadata.get(INFO_KEY), path), weights_sha256=sha256(path))


def check_weights(folder: Path, weights: ModelInfo, graph: ModelInfo, name: str) -> None:
    """Check that a graph was exported with the weights file beside it; else runtimes would compute nonsense.

    Raises:
        ModelFileError: they are not of one export; folder and `name` of the graph are named.
    """
    if graph.weights_sha256 != weights.weights_sha256:
        raise ModelFileError(
            f"{folder / WEIGHTS_FILE} is not what {name} was exported with: damaged, or of another model; "
            "copy all files of one export"
        )


def sha256(path: Path) -> str:
    """Compute the SHA-256 of a file, as hexadecimal digits."""
    import hashlib  # loads OpenSSL, which importing a tracker need not pay for

    digest = hashlib.sha256()
    with path.open("rb") as file:
        for block in iter(lambda: file.read(1 << 20), b""):
            digest.update(block)
    return digest.hexdigest()
