"""Make the layers of a scene: cutouts and backgrounds with their paths and deformations."""

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from training.data.clip import FloatArray, SynthesisConfig
from training.data.synthesis.camera import jitter
from training.data.synthesis.stills import Still

FEW_FRAMES = 6
"""In longer clips most objects stay in the picture, and turns and growth stay small."""


@dataclass(frozen=True)
class _Layer:
    """A picture with alpha and labels, and its path: inverse maps from the frame to the picture."""

    picture: NDArray[np.uint8]  # (h, w, 4) RGBA
    labels: NDArray[np.uint8]
    inverses: FloatArray  # (T, 2, 3)
    bends: FloatArray  # (T, 5, 5, 2) displacement in source px
    zoom: float  # frame px per source px at frame 0
    border: int


def _path(
    rng: np.random.Generator, config: SynthesisConfig, centre: NDArray[np.floating], size: tuple[int, int], zoom: float,
    speed: float, spin: float,
) -> FloatArray:  # fmt: skip
    """Draw inverse affine maps of a picture of size (w, h) that starts at `centre` and moves by `speed` px a frame."""
    heading = rng.uniform(0, 2 * np.pi)
    velocity = np.array([np.cos(heading), np.sin(heading)]) * speed
    turn = rng.normal(0, 0.5) / config.frames
    # Steady turns and growth add up over a long clip.
    calm = min(1.0, FEW_FRAMES / config.frames)
    angle, spin_rate = rng.normal(0, 0.2), rng.normal(0, spin) * calm
    growth = np.exp(rng.normal(0, 0.05) * calm)
    stretch = np.exp(rng.normal(0, 0.1))
    flip = -1.0 if rng.random() < 0.5 else 1.0
    shear = rng.normal(0, 0.08)
    out = np.empty((config.frames, 2, 3), np.float32)
    position = np.array(centre, np.float64)
    low, high = (np.array([config.width, config.height]) * share for share in (0.1, 0.9))
    held = config.frames > FEW_FRAMES and rng.random() < 0.8
    for t in range(config.frames):
        cos, sin = np.cos(angle), np.sin(angle)
        linear = zoom * np.array([[cos, -sin], [sin, cos]]) @ np.array([[flip * stretch, shear], [0.0, 1.0 / stretch]])
        inverse = np.linalg.inv(linear)
        out[t, :, :2] = inverse
        out[t, :, 2] = np.array(size) / 2.0 - inverse @ position
        position = position + velocity + rng.normal(0, 0.1, 2) * speed
        x, y = velocity
        velocity = np.array([x * np.cos(turn) - y * np.sin(turn), x * np.sin(turn) + y * np.cos(turn)])
        if held:
            # Objects turn round at the frame's edge, as if the camera followed them.
            outward = np.where(position < low, velocity < 0, (position > high) & (velocity > 0))
            velocity = np.where(outward, -velocity, velocity)
        angle += spin_rate
        zoom *= growth
    return out


def _bends(rng: np.random.Generator, frames: int, amplitude: float) -> FloatArray:
    """Make a smooth deformation that swings between two random fields, (T, 5, 5, 2) source px."""
    first, second = rng.normal(0, amplitude, (2, 5, 5, 2))
    phase = np.cumsum(rng.uniform(0.1, 0.6, frames))
    swing = np.cos(phase)[:, None, None, None] * first + np.sin(phase)[:, None, None, None] * second
    return np.asarray(swing, np.float32)


def _speed(rng: np.random.Generator, config: SynthesisConfig) -> float:
    """Draw a speed, px a frame: log-uniform 1 to 12 % of the width; 0 for a fifth of the layers."""
    if rng.random() < 0.2:
        return 0.0
    return float(np.exp(rng.uniform(np.log(0.01), np.log(0.12)))) * config.width


def _background(rng: np.random.Generator, still: Still, config: SynthesisConfig, keep: tuple[int, ...]) -> _Layer:
    """Lay the whole photograph over the frame; its objects keep their labels 1..len(keep)."""
    height, width = still.labels.shape
    zoom = max(config.width / width, config.height / height) * rng.uniform(1.0, 1.5)
    slack = np.maximum(np.array([width, height]) * zoom - (config.width, config.height), 0) / 2
    centre = np.array([config.width, config.height]) / 2 + rng.uniform(-1, 1, 2) * slack
    labels = np.zeros_like(still.labels)
    for number, label in enumerate(keep, start=1):
        labels[still.labels == label] = number
    picture = np.dstack([jitter(rng, still.image, 0.2), np.full((height, width), 255, np.uint8)])
    inverses = _path(rng, config, centre, (width, height), zoom, _speed(rng, config) * 0.4, 0.03)
    bend = rng.uniform(0, 0.03) * width if rng.random() < 0.7 else 0.0
    return _Layer(picture, labels, inverses, _bends(rng, config.frames, bend), zoom, cv2.BORDER_REFLECT_101)


def _cutout(
    rng: np.random.Generator, still: Still, label: int, config: SynthesisConfig, number: int, scale: float
) -> _Layer:
    """Cut an object from a photograph with a soft edge, sized to `scale` of the frame."""
    mask = still.labels == label
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    pad = 6
    y0, y1 = max(rows[0] - pad, 0), min(rows[-1] + pad + 1, mask.shape[0])
    x0, x1 = max(columns[0] - pad, 0), min(columns[-1] + pad + 1, mask.shape[1])
    crop = jitter(rng, np.ascontiguousarray(still.image[y0:y1, x0:x1]), 0.3)
    alpha = cv2.GaussianBlur(mask[y0:y1, x0:x1].astype(np.uint8) * 255, (3, 3), 0)
    picture = np.pad(np.dstack([crop, alpha]), ((2, 2), (2, 2), (0, 0)))
    labels = np.where(picture[..., 3] > 127, np.uint8(number), np.uint8(0))
    height, width = labels.shape
    zoom = scale * np.sqrt(config.height * config.width) / np.sqrt(height * width)
    centre = rng.uniform(0.15, 0.85, 2) * (config.width, config.height)
    inverses = _path(rng, config, centre, (width, height), zoom, _speed(rng, config), 0.08)
    # Some bend as limbs do.
    bend = (rng.uniform(0.0, 0.08) if rng.random() < 0.7 else rng.uniform(0.08, 0.16)) * np.sqrt(height * width)
    return _Layer(picture, labels, inverses, _bends(rng, config.frames, bend), zoom, cv2.BORDER_CONSTANT)


@dataclass(frozen=True)
class Scene:
    """Layers of a clip, bottom first, and the followed objects' numbers in the order of their labels."""

    layers: list[_Layer]
    followed: list[int]

    @property
    def table(self) -> NDArray[np.uint8]:
        """(256,) labels by number."""
        table = np.zeros(256, np.uint8)
        table[self.followed] = np.arange(1, len(self.followed) + 1)
        return table
