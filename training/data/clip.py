"""A training clip and its conversion to tensors."""

from dataclasses import dataclass

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
        absence: share of clips in which one object is out of sight for a while.
        lookalike: share of pasted objects that get a rival with the same picture.
        smallest: smallest side of a pasted object as a share of the frame's; sizes are log-uniform up to 0.65.
        pasted: most objects that are pasted; with 0 a photograph moves as a whole, and its own objects are followed.
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
"""Layer of a place whose correspondence nobody knows, as in filmed frames."""


@dataclass(frozen=True)
class Clip:
    """A clip of T frames.

    Attributes:
        images: (T, H, W, 3) uint8 RGB.
        labels: (T, H, W) uint8, 0 = background, 1..K.
        count: number of objects that frame 0 shows.
        flow: (T, H/4, W/4, 2) float32 backward DIS flow in units of width and height, zeros for frame 0.
        motion: (T, H/16, W/16) float32 relative magnitude in patch widths.
        places: (T, H/16, W/16, 3) float32 (layer, x, y): which layer shows at a patch's centre, and which point of it
            in frame-0 pixels; two patches that show the same point correspond, unless their layer is UNKNOWN.
    """

    images: NDArray[np.uint8]
    labels: NDArray[np.uint8]
    count: int
    flow: FloatArray
    motion: FloatArray
    places: FloatArray


def unknown_places(t: int, rows: int, columns: int) -> FloatArray:
    """Make (rows, columns, 3) places of a filmed frame: of no layer, and far from those of every other frame."""
    places = np.zeros((rows, columns, 3), np.float32)
    places[..., 0], places[..., 1] = UNKNOWN, 1e5 * (t + 1)
    return places


def flows(images: NDArray[np.uint8]) -> tuple[FloatArray, FloatArray]:
    """Estimate the flow that the robot will have: the same estimator on the clip's (T, H, W, 3) frames."""
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
    """Turn a clip's arrays into tensors, uint8 kept, float32 otherwise."""
    return {
        "images": torch.from_numpy(clip.images),
        "labels": torch.from_numpy(clip.labels),
        "count": torch.tensor(clip.count),
        "flow": torch.from_numpy(clip.flow),
        "motion": torch.from_numpy(clip.motion),
        "places": torch.from_numpy(clip.places),
    }
