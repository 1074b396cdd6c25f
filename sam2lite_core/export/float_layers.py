"""Name the layers that stay in floating point under INT8, in training's simulation and in exports alike."""

from collections.abc import Sequence

KEEP = ("key", "gate", "presence", "similarity", "head.out", "prompt.out")
"""Layers that stay in floating point, by name or by the name of a part that holds them: what the memory's attention
compares, what ranks tokens or decides presence, and the last convolutions before a mask."""


def is_kept(layer: str, keep: Sequence[str]) -> bool:
    """Tell if a layer is one of those named, or lies in a part that is."""
    return any(layer == name or layer.startswith(f"{name}.") for name in keep)
