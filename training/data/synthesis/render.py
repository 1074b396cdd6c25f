"""Render a composed scene frame by frame."""

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from sam2lite_core.variants import PATCH
from training.data.clip import FloatArray, SynthesisConfig, unknown_places
from training.data.synthesis.layers import Scene, _Layer

# Its type wants a second map, which a map of pairs lacks.
_remap: Any = cv2.remap


def _render_frame(
    layers: list[_Layer], t: int, grid: FloatArray, config: SynthesisConfig,
    filmed: NDArray[np.uint8] | None = None,
) -> tuple[NDArray[np.uint8], NDArray[np.uint8], FloatArray]:  # fmt: skip
    """Render a frame: picture, numbers of every layer's objects, and the places at patch centres."""
    height, width = config.height, config.width
    canvas = np.zeros((height, width, 3), np.uint8) if filmed is None else filmed[t]
    numbers = np.zeros((height, width), np.uint8)
    half = PATCH // 2
    places = unknown_places(t, height // PATCH, width // PATCH)
    for index, layer in enumerate(layers, start=0 if filmed is None else 1):
        inverse = layer.inverses[t]
        bend = cv2.resize(layer.bends[t], (width, height), interpolation=cv2.INTER_CUBIC)
        source = np.asarray(bend, np.float32)
        source[..., 0] += grid[..., 0] * inverse[0, 0] + grid[..., 1] * inverse[0, 1] + inverse[0, 2]
        source[..., 1] += grid[..., 0] * inverse[1, 0] + grid[..., 1] * inverse[1, 1] + inverse[1, 2]
        shown = _remap(layer.picture, source, None, cv2.INTER_LINEAR, borderMode=layer.border)
        label = _remap(layer.labels, source, None, cv2.INTER_NEAREST, borderMode=layer.border)
        if index == 0:
            canvas, numbers = np.ascontiguousarray(shown[..., :3]), label
            covered = np.ones(places.shape[:2], bool)
        else:
            alpha = shown[..., 3:]
            if not alpha.any():
                continue
            weight = alpha.astype(np.uint16)
            canvas = ((shown[..., :3] * weight + canvas * (255 - weight)) // 255).astype(np.uint8)
            numbers = np.where(alpha[..., 0] > 127, label, numbers)
            covered = alpha[half::PATCH, half::PATCH, 0] > 127
        centres = source[half::PATCH, half::PATCH] * layer.zoom
        places[covered] = np.concatenate([np.full((*centres.shape[:2], 1), index, np.float32), centres], -1)[covered]
    return canvas, numbers, places


def render_scene(
    scene: Scene, config: SynthesisConfig, filmed: NDArray[np.uint8] | None = None
) -> tuple[NDArray[np.uint8], NDArray[np.uint8], FloatArray]:
    """Render images, labels and places of all frames, without the camera's effects; see `Clip`."""
    grid = _grid(config)
    frames = [_render_frame(scene.layers, t, grid, config, filmed) for t in range(config.frames)]
    images, numbers, places = (np.stack(part) for part in zip(*frames, strict=True))
    return images, scene.table[numbers], places


def _grid(config: SynthesisConfig) -> FloatArray:
    """Return (H, W, 2) float32 pixel coordinates (x, y)."""
    axes = (np.arange(side, dtype=np.float32) for side in (config.width, config.height))
    return np.stack(np.meshgrid(*axes), axis=-1)
