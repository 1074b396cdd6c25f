"""What a model is: the numbers of its variant, what its files say of themselves, and the files' hashes."""

import hashlib
from dataclasses import asdict
from pathlib import Path
from typing import Any

from sam2lite_core.backends.files import (
    INFO_KEY,
    PROMPT_FILE,
    STEP_FILE,
    WEIGHTS_FILE,
    find_model,
    parse_info,
)
from sam2lite_core.variants import get_variant


def describe_model(variant: str, model_path: str | Path | None = None) -> dict[str, Any]:
    """Describe a model without running it.

    Args:
        variant: tiny, small or base.
        model_path: folder of an exported model; the shipped weights when None.

    Returns:
        `variant` (its numbers), `model` (its folder, and what its files say of themselves) and `files`
        (bytes and SHA-256 by name).

    Raises:
        UnknownVariantError: no such variant.
        ModelFileError: a file is missing or not one of ours.
    """
    from sam2lite_core.backends.onnxruntime import open_session

    definition = get_variant(variant)
    folder = find_model(definition, model_path)
    metadata = open_session(folder / STEP_FILE, threads=1).get_modelmeta().custom_metadata_map
    model = parse_info(metadata.get(INFO_KEY), folder / STEP_FILE)
    return {
        "variant": asdict(definition),
        "model": {"folder": str(folder), **asdict(model)},
        "files": {
            name: {"bytes": (folder / name).stat().st_size, "sha256": sha256(folder / name)}
            for name in (STEP_FILE, PROMPT_FILE, WEIGHTS_FILE)
        },
    }


def sha256(path: Path) -> str:
    """The SHA-256 of a file, as hexadecimal digits."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        for block in iter(lambda: file.read(1 << 20), b""):
            digest.update(block)
    return digest.hexdigest()
