"""A short clip that is drawn, not filmed: its true masks are known to the pixel, and it needs no download.

Soft bodies with textures of their own turn, breathe and change their outline over a moving ground; a post
that stands on the ground hides the first of them for a while.
"""

import math
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from sam2lite_core.errors import ConfigurationError

Floats = NDArray[np.float32]

MAX_OBJECTS = 6
MIN_SIDE = 64

_TEXTURE_SIDE = 256
_OUTLINE_WAVES = (2, 3, 5)

# Where each object starts and ends and how far it swerves, as shares of the image; apart from one another at
# the start.
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
_GROUND_COLOURS = ((74, 82, 66), (128, 126, 98), (176, 164, 132))
_POST_COLOURS = ((92, 62, 44), (170, 128, 92))


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


@dataclass(frozen=True)
class _Body:
    """One object: how it looks, and the path that it takes in screen coordinates.

    Attributes:
        texture: (256, 256, 3) float32, 0..255.
        radius: mean radius, pixels.
        start: (x, y) at the first frame, pixels.
        end: (x, y) at the last frame, pixels.
        bend: how far the path leaves the straight line half way, pixels downwards.
        turn: rotation over the whole clip, radians.
        waves: (3,) amplitudes of the outline's waves, share of the radius.
        phases: (3,) their phases, radians.
    """

    texture: Floats
    radius: float
    start: tuple[float, float]
    end: tuple[float, float]
    bend: float
    turn: float
    waves: Floats
    phases: Floats


def render_clip(
    seed: int = 0, *, height: int = 480, width: int = 640, frames: int = 60, objects: int = 2
) -> RenderedClip:
    """Render a clip; the same arguments give the same clip.

    Args:
        seed: chooses textures, outlines and small variations of the paths.
        height: of a frame, pixels, at least 64.
        width: of a frame, pixels, at least 64.
        frames: number of frames, at least 1.
        objects: number of objects, 1..6; their ids are 1 to this number, and object 1 passes behind the post.

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
    ground = _ground(rng, height, width)
    bodies = [_body(rng, index, height, width) for index in range(objects)]
    images = np.empty((frames, height, width, 3), np.uint8)
    label_maps = np.zeros((frames, height, width), np.uint8)
    for index in range(frames):
        time = index / max(frames - 1, 1)
        canvas, post = _draw_ground(ground, time, height, width)
        scene = canvas.copy()
        for object_id, body in enumerate(bodies, start=1):
            alpha = _draw_body(scene, body, time)
            if object_id == 1:
                # The post is part of the ground picture; putting it back over object 1 is what hides the
                # object.
                scene += post[..., None] * (canvas - scene)
                alpha *= 1 - post
            label_maps[index][alpha > 0.5] = object_id
        grain = rng.normal(0, 2.0, (height, width, 1)).astype(np.float32)
        images[index] = np.clip(scene + grain, 0, 255).round().astype(np.uint8)
    return RenderedClip(images, label_maps)


def _noise(rng: np.random.Generator, height: int, width: int, cells: int, octaves: int = 4) -> Floats:
    """(height, width) float32 fractal noise, 0..1; `cells` counts the coarsest bumps along the short side."""
    total = np.zeros((height, width), np.float32)
    for octave in range(octaves):
        count = cells * 2**octave
        short = min(height, width)
        shape = (max(2, count * height // short), max(2, count * width // short))
        grid = rng.random(shape, np.float32)
        total += cv2.resize(grid, (width, height), interpolation=cv2.INTER_CUBIC) * np.float32(0.5**octave)
    total -= total.min()
    return total / np.float32(max(float(total.max()), 1e-6))


def _mix(share: Floats, first: tuple[int, int, int], second: tuple[int, int, int]) -> Floats:
    """(H, W, 3) blend of two colours; share 0 gives the first."""
    low, high = np.array(first, np.float32), np.array(second, np.float32)
    return low + share[..., None] * (high - low)


def _pattern(rng: np.random.Generator, kind: int) -> Floats:
    """(256, 256) float32, 0..1: stripes, checks, spots or clouds, bent by noise so that no part repeats."""
    side = _TEXTURE_SIDE
    y, x = np.mgrid[0:side, 0:side].astype(np.float32) / side
    bend_x, bend_y = _noise(rng, side, side, 3), _noise(rng, side, side, 3)
    u, v = x + 0.22 * bend_x, y + 0.22 * bend_y
    if kind == 0:
        sharp = np.sin(2 * np.pi * 7 * u + 2.0 * bend_y)
    elif kind == 1:
        sharp = np.sin(2 * np.pi * 4 * u) * np.sin(2 * np.pi * 4 * v) * 3
    elif kind == 2:
        sharp = (_noise(rng, side, side, 12, 2) - 0.52) * 14
    else:
        sharp = (_noise(rng, side, side, 5, 5) - 0.5) * 6
    edges = 1 / (1 + np.exp(-3.0 * sharp))
    pattern: Floats = (0.85 * edges + 0.15 * _noise(rng, side, side, 16, 3)).astype(np.float32)
    return pattern


def _body(rng: np.random.Generator, index: int, height: int, width: int) -> _Body:
    """The index-th object; object 0 is larger and crosses the middle, where the post stands."""
    dark, light = _BODY_COLOURS[index]
    radius = min(height, width) * (0.15 if index == 0 else 0.12) * float(rng.uniform(0.92, 1.08))
    x0, y0, x1, y1, bend = _PATHS[index]
    return _Body(
        texture=_mix(_pattern(rng, index % 4), dark, light),
        radius=radius,
        start=(x0 * width, y0 * height),
        end=(x1 * width, y1 * height),
        bend=bend * height * float(rng.uniform(0.7, 1.3)),
        turn=float(rng.uniform(1.2, 2.4)) * (1 if index % 2 else -1),
        waves=np.array([0.16, 0.11, 0.05], np.float32) * rng.uniform(0.7, 1.2, 3).astype(np.float32),
        phases=rng.uniform(0, 2 * np.pi, 3).astype(np.float32),
    )


def _ground(rng: np.random.Generator, height: int, width: int) -> Floats:
    """(1.5 H, 1.5 W, 4) float32: the ground's colours, and in the last channel where the post stands."""
    tall, wide = round(1.5 * height), round(1.5 * width)
    coarse, fine = _noise(rng, tall, wide, 5, 5), _noise(rng, tall, wide, 40, 3)
    dark, middle, light = _GROUND_COLOURS
    colours = np.where(
        coarse[..., None] < 0.5, _mix(2 * coarse, dark, middle), _mix(2 * coarse - 1, middle, light)
    )
    colours = colours * (0.75 + 0.5 * fine[..., None])
    # Pebbles give motion something to hold on to.
    pebbles = np.clip((_noise(rng, tall, wide, 26, 2) - 0.68) * 12, 0, 1)
    colours += pebbles[..., None] * (np.array([206, 200, 188], np.float32) - colours) * 0.8

    across = np.arange(wide, dtype=np.float32) - wide / 2
    half = 0.12 * min(height, width)
    wobble = (_noise(rng, tall, wide, 4, 2) - 0.5) * 0.08 * half
    post = np.clip(half - np.abs(across[None] + wobble) + 0.5, 0, 1)
    rings = np.sin(np.linspace(0, 60, tall, dtype=np.float32)[:, None] + 7 * _noise(rng, tall, wide, 6, 3))
    bark = _mix(0.5 + 0.5 * rings * (0.4 + 0.6 * fine), *_POST_COLOURS)
    bark *= (1 - 0.55 * np.abs(across / half).clip(0, 1) ** 2)[
        None, :, None
    ]  # a round post: darker to the sides
    colours += post[..., None] * (bark - colours)
    return np.dstack([colours, post]).astype(np.float32)


def _draw_ground(ground: Floats, time: float, height: int, width: int) -> tuple[Floats, Floats]:
    """What a slowly moving camera sees of the ground: (H, W, 3) colours and (H, W) post coverage."""
    tall, wide = ground.shape[:2]
    swing = math.sin(2 * math.pi * time)
    matrix = cv2.getRotationMatrix2D((wide / 2, tall / 2), 2.5 * swing, 1 + 0.06 * time)
    matrix[0, 2] += (width - wide) / 2 + 0.05 * width * np.cos(2 * np.pi * 0.7 * time)
    matrix[1, 2] += (height - tall) / 2 + 0.05 * height * swing
    seen = cv2.warpAffine(
        ground, matrix, (width, height), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT
    )
    return np.ascontiguousarray(seen[..., :3], np.float32), np.ascontiguousarray(seen[..., 3], np.float32)


def _draw_body(scene: Floats, body: _Body, time: float) -> Floats:
    """Draw a body and its shadow into the scene, in place; return its (H, W) coverage, 0..1."""
    height, width = scene.shape[:2]
    eased = time - math.sin(4 * math.pi * time) / (8 * math.pi)  # never stands still, never runs evenly
    x = body.start[0] + eased * (body.end[0] - body.start[0])
    y = body.start[1] + eased * (body.end[1] - body.start[1]) + body.bend * math.sin(math.pi * time)
    radius = body.radius * (1 + 0.12 * math.sin(2 * math.pi * time + float(body.phases[0])))
    rows, columns = np.mgrid[0:height, 0:width].astype(np.float32)

    offset = 0.14 * radius
    shadow = _coverage(columns - x - offset, rows - y - offset, body, radius, time)[0]
    scene *= 1 - 0.4 * cv2.GaussianBlur(shadow, (0, 0), max(0.05 * radius, 0.5))[..., None]

    alpha, u, v = _coverage(columns - x, rows - y, body, radius, time)
    texture = cv2.remap(
        body.texture, *_texture_position(u, v), cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT
    )
    light = 1.08 - 0.45 * (u * u + v * v) ** 2
    scene += alpha[..., None] * (texture * light[..., None] - scene)
    return alpha


def _texture_position(u: Floats, v: Floats) -> tuple[Floats, Floats]:
    """Texture pixels for body coordinates -1..1."""
    scale = np.float32((_TEXTURE_SIDE - 1) / 2)
    return (u + 1) * scale, (v + 1) * scale


def _coverage(
    dx: Floats, dy: Floats, body: _Body, radius: float, time: float
) -> tuple[Floats, Floats, Floats]:
    """How far pixels at offset (dx, dy) are covered by the body, and where on it they lie.

    The outline is a circle with waves that run around it, and the body's coordinates stretch with it, so that
    the texture deforms together with the outline.

    Returns:
        (H, W) coverage 0..1, and (H, W) body coordinates u, v with u² + v² = 1 on the outline.
    """
    turn = body.turn * time
    cos, sin = np.float32(np.cos(turn)), np.float32(np.sin(turn))
    across, down = cos * dx + sin * dy, cos * dy - sin * dx
    distance, angle = np.hypot(across, down), np.arctan2(down, across)
    outline = np.ones_like(distance)
    for waves, amplitude, phase in zip(_OUTLINE_WAVES, body.waves, body.phases, strict=True):
        run = np.float32(2 * np.pi * time * (1 if waves % 2 else -1))
        outline += amplitude * np.cos(waves * angle + phase + run)
    edge = (radius * outline).astype(np.float32)
    alpha = np.clip(edge - distance + 0.5, 0, 1).astype(np.float32)
    return alpha, (across / edge).clip(-1.2, 1.2), (down / edge).clip(-1.2, 1.2)
