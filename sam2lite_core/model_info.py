"""Describe a model: its variant, its memory in bytes, the cost of a frame, the hashes of its files."""

import importlib.util
from dataclasses import asdict
from pathlib import Path
from typing import Any

from sam2lite_core.backends.model_files import (
    PROMPT_FILE,
    STEP_FILE,
    WEIGHTS_FILE,
    find_model,
    read_weights_info,
    sha256,
)
from sam2lite_core.errors import ModelFileError
from sam2lite_core.frame.motion import MOTION_SHORT_SIDE
from sam2lite_core.frame.prompt_rasters import STRIDE
from sam2lite_core.frame.resolution import BASE_SHORT_SIDE, REFERENCE_SOURCE, network_size
from sam2lite_core.graph_io import META
from sam2lite_core.variants import Variant, get_variant

FLOAT_BYTES = 4


def describe_model(variant: str, model_path: str | Path | None = None) -> dict[str, Any]:
    """Describe a model without running it.

    Args:
        variant: tiny, small or base.
        model_path: folder of an exported model; the shipped weights when None.

    Returns:
        variant: its numbers.
        weights: `state`: shipped, given or none; with the reason, or with folder, note and hash.
        parameters: counts by part and `total`; None where neither files nor torch can tell.
        memory_budget: tokens B.
        memory_bytes: of every state that outlives a frame, and `total`; see `memory_bytes`.
        flops_per_frame: by resolution scale, for a 480x854 source, one object and a full bank; None as for parameters.
        files: bytes and SHA-256 by name; empty without weights.

    Raises:
        UnknownVariantError: no such variant.
        ModelFileError: a file of the given folder is missing or not one of ours, or the shipped ones are damaged.
    """
    definition = get_variant(variant)
    weights: dict[str, Any]
    try:
        folder = find_model(definition, model_path)
    except ModelFileError as error:
        if model_path is not None:
            raise
        weights = {"state": "none", "reason": str(error)}
        known, files = _count(definition), {}
    else:
        model = read_weights_info(folder / WEIGHTS_FILE)
        if model.variant != variant:
            raise ModelFileError(f"{folder} holds variant {model.variant}, not {variant}")
        weights = {
            "state": "shipped" if model_path is None else "given",
            "folder": str(folder),
            "max_objects": model.max_objects,
            "note": model.note,
            "sha256": model.weights_sha256,
        }
        known = {"parameters": model.parameters, "flops_per_frame": model.flops_per_frame}
        files = {
            name: {"bytes": (folder / name).stat().st_size, "sha256": sha256(folder / name)}
            for name in (STEP_FILE, PROMPT_FILE, WEIGHTS_FILE)
        }
    return {
        "variant": asdict(definition),
        "weights": weights,
        "parameters": known["parameters"],
        "memory_budget": definition.memory_budget,
        "memory_bytes": memory_bytes(definition),
        "flops_per_frame": known["flops_per_frame"],
        "files": files,
    }


def _count(variant: Variant) -> dict[str, dict[str, int] | None]:
    """Count parameters and operations on the model itself, where torch is there."""
    if importlib.util.find_spec("torch") is None:
        return {"parameters": None, "flops_per_frame": None}
    from sam2lite_core.model.cost import count_variant

    parameters, flops = count_variant(variant)
    return {"parameters": parameters, "flops_per_frame": flops}


def memory_bytes(variant: Variant) -> dict[str, int]:
    """Count the most bytes of every state that a tracker keeps from one frame to the next.

    The bank's five tensors lie on the backend's device. The previous masks at stride 4 and the previous small grey
    picture lie on the host; they are counted for a 480x854 source at scale 1 with every object slot in use.
    """
    widths = {"key": variant.key_width, "value": variant.key_width}
    widths |= {"identity": variant.max_objects, "known": variant.max_objects, "meta": len(META)}
    counts = {f"bank_{name}": variant.memory_budget * width * FLOAT_BYTES for name, width in widths.items()}
    counts["bank"] = sum(counts.values())
    height, width = network_size(*REFERENCE_SOURCE, 1.0, BASE_SHORT_SIDE)
    masks = variant.max_objects * (height // STRIDE) * (width // STRIDE) * FLOAT_BYTES
    grey = MOTION_SHORT_SIDE * round(REFERENCE_SOURCE[1] * MOTION_SHORT_SIDE / REFERENCE_SOURCE[0])
    host = {"previous_masks": masks, "previous_grey": grey}
    return {**counts, **host, "total": counts["bank"] + sum(host.values())}
