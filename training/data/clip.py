"""Define a training clip, and convert it to tensors."""

from dataclasses import dataclass, fields

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sam2lite_core.frame.motion import MotionEstimator
from sam2lite_core.variants import PATCH

FloatArray = NDArray[np.float32]


@dataclass(frozen=True)
class SynthesisConfig:
    """Shape and difficulty of rendered clips.

    Attributes:
        height, width: frame size in px, multiples of 16.
        frames: frames per clip.
        objects: most objects that are followed in a clip.
        absence: share of clips with an occlusion of one object.
        lookalike: share of pasted objects that get a distractor with the same picture.
        smallest: smallest side of a pasted object as a share of the frame's; sizes are log-uniform up to 0.65.
        pasted: most objects that are pasted; 0 follows the objects of a photograph that moves as a whole.
    """

    height: int = 224
    width: int = 224
    frames: int = 4
    objects: int = 3
    absence: float = 0.2
    lookalike: float = 0.25
    smallest: float = 0.12
    pasted: int = 3


UNKNOWN = -1.0
"""Layer of a place without known correspondence, as in filmed frames."""


@dataclass(frozen=True)
class Clip:
    """A clip of T frames.

    Attributes:
        images: (T, H, W, 3) uint8 RGB.
        labels: (T, H, W) uint8, 0 = background, 1..K.
        count: number of objects that frame 0 shows.
        flow: (T, H/4, W/4, 2) float32 backward DIS flow in units of width and height, zeros for frame 0.
        motion: (T, H/16, W/16) float32 relative magnitude in patch widths.
        places: (T, H/16, W/16, 3) float32 (layer, x, y) at a patch's centre, the layer's point in frame-0 pixels;
            equal points correspond, unless their layer is UNKNOWN.
    """

    images: NDArray[np.uint8]
    labels: NDArray[np.uint8]
    count: int
    flow: FloatArray
    motion: FloatArray
    places: FloatArray


def unknown_places(t: int, rows: int, columns: int) -> FloatArray:
    """Make (rows, columns, 3) places of a filmed frame, far from those of every other frame."""
    places = np.zeros((rows, columns, 3), np.float32)
    places[..., 0], places[..., 1] = UNKNOWN, 1e5 * (t + 1)
    return places


def flows(images: NDArray[np.uint8]) -> tuple[FloatArray, FloatArray]:
    """Estimate flow and motion of (T, H, W, 3) frames as the tracker does; see `Clip`."""
    count, height, width = images.shape[:3]
    estimator = MotionEstimator()
    flow = np.zeros((count, height // 4, width // 4, 2), np.float32)
    magnitude = np.zeros((count, height // PATCH, width // PATCH), np.float32)
    for t, image in enumerate(images):
        motion = estimator.update(image)
        if motion is not None:
            flow[t] = cv2.resize(motion.flow, (width // 4, height // 4), interpolation=cv2.INTER_LINEAR)
            magnitude[t] = motion.magnitude(height // PATCH, width // PATCH)
    return flow, magnitude


def to_tensors(clip: Clip) -> dict[str, Tensor]:
    """Turn a clip's fields into tensors of the same types."""
    return {field.name: torch.as_tensor(getattr(clip, field.name)) for field in fields(clip)}
