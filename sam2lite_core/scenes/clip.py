"""Render a short clip with ground truth to the pixel: soft bodies over a moving ground; a post hides the first one."""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sam2lite_core.errors import ConfigurationError
from sam2lite_core.scenes.bodies import Actor, draw_scene, make_ground, mix, pattern, shape_body

MAX_OBJECTS = 6
MIN_SIDE = 64

# Start, end and swerve of each object, as shares of the image; apart from one another at the start.
_PATHS = (
    (0.17, 0.56, 0.84, 0.46, 0.10),
    (0.80, 0.22, 0.30, 0.26, 0.06),
    (0.24, 0.86, 0.70, 0.84, -0.05),
    (0.62, 0.86, 0.88, 0.66, 0.04),
    (0.36, 0.14, 0.12, 0.24, 0.05),
    (0.88, 0.58, 0.52, 0.84, -0.06),
)

_BODY_COLOURS = (
    ((214, 72, 48), (252, 214, 120)),
    ((32, 84, 178), (166, 226, 240)),
    ((96, 40, 132), (244, 168, 214)),
    ((24, 112, 84), (226, 240, 150)),
    ((40, 40, 48), (236, 232, 224)),
    ((150, 90, 30), (250, 240, 190)),
)


@dataclass(frozen=True)
class RenderedClip:
    """A clip with its truth.

    Attributes:
        frames: (T, H, W, 3) uint8 RGB.
        label_maps: (T, H, W) uint8 ids of what is visible, 0 = background.
        fps: frames per second it is meant to be played at.
    """

    frames: NDArray[np.uint8]
    label_maps: NDArray[np.uint8]
    fps: float = 30.0


def render_clip(
    seed: int = 0, *, height: int = 480, width: int = 640, frames: int = 60, objects: int = 2
) -> RenderedClip:
    """Render a clip; the same arguments give the same clip.

    Args:
        seed: of textures, outlines and small variations of the paths.
        height, width: of a frame, pixels, at least 64.
        frames: number of frames, at least 1.
        objects: number of objects, 1..6; ids count from 1, and object 1 passes behind the post.

    Raises:
        ConfigurationError: an argument is outside its range.
    """
    if not 1 <= objects <= MAX_OBJECTS:
        raise ConfigurationError(f"{objects} rendered objects; choose 1..{MAX_OBJECTS}")
    if height < MIN_SIDE or width < MIN_SIDE or frames < 1:
        raise ConfigurationError(
            f"{frames} rendered frames of {width}x{height}; choose at least 1 of {MIN_SIDE}x{MIN_SIDE}"
        )
    rng = np.random.default_rng(seed)
    ground = make_ground(rng, height, width)
    actors = [_actor(rng, index, height, width) for index in range(objects)]
    images = np.empty((frames, height, width, 3), np.uint8)
    label_maps = np.empty((frames, height, width), np.uint8)
    for index in range(frames):
        time = index / max(frames - 1, 1)
        scene, label_maps[index] = draw_scene(ground, actors, time, height, width)
        grain = rng.normal(0, 2.0, (height, width, 1)).astype(np.float32)
        images[index] = np.clip(scene + grain, 0, 255).round().astype(np.uint8)
    return RenderedClip(images, label_maps)


def _actor(rng: np.random.Generator, index: int, height: int, width: int) -> Actor:
    """Make the index-th object; object 0 is larger and crosses the middle, where the post stands."""
    dark, light = _BODY_COLOURS[index]
    radius = min(height, width) * (0.15 if index == 0 else 0.12) * float(rng.uniform(0.92, 1.08))
    x0, y0, x1, y1, bend = _PATHS[index]
    texture = mix(pattern(rng, index % 4), dark, light)
    swerve = bend * height * float(rng.uniform(0.7, 1.3))
    body = shape_body(rng, texture, radius, 1 if index % 2 else -1)

    def path(time: float) -> tuple[float, float]:
        eased = time - math.sin(4 * math.pi * time) / (8 * math.pi)  # never at rest, never at an even speed
        x = x0 * width + eased * (x1 * width - x0 * width)
        y = y0 * height + eased * (y1 * height - y0 * height) + swerve * math.sin(math.pi * time)
        return x, y

    return Actor(body, path, index + 1, behind=index == 0)
