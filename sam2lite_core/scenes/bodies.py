"""Draw scenes: textured bodies that change their outline, and a ground with a post on it."""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Colour = tuple[int, int, int]

POST_HALF_WIDTH = 0.12
"""Default half width of the post, share of the short side."""

_TEXTURE_SIDE = 256
_OUTLINE_WAVES = (2, 3, 5)
_GROUND_COLOURS = ((74, 82, 66), (128, 126, 98), (176, 164, 132))
_POST_COLOURS = ((92, 62, 44), (170, 128, 92))


@dataclass(frozen=True)
class Body:
    """The looks of an object.

    Attributes:
        texture: (256, 256, 3) float32, 0..255.
        radius: mean radius, pixels.
        turn: rotation over the whole clip, radians.
        waves, phases: (3,) amplitudes of the outline's waves, share of the radius, and their phases, radians.
    """

    texture: Floats
    radius: float
    turn: float
    waves: Floats
    phases: Floats

    @property
    def reach(self) -> float:
        """Farthest from its centre that the body or its shadow is drawn, pixels."""
        return 1.12 * self.radius * (1 + float(np.abs(self.waves).sum()) + 0.14 + 0.25) + 4


def shape_body(rng: np.random.Generator, texture: Floats, radius: float, turn_sign: int) -> Body:
    """Make a body with a random outline and turn; see `Body`. `turn_sign` is 1 or -1."""
    return Body(
        texture=texture,
        radius=radius,
        turn=float(rng.uniform(1.2, 2.4)) * turn_sign,
        waves=np.array([0.16, 0.11, 0.05], np.float32) * rng.uniform(0.7, 1.2, 3).astype(np.float32),
        phases=rng.uniform(0, 2 * np.pi, 3).astype(np.float32),
    )


def noise(rng: np.random.Generator, height: int, width: int, cells: int, octaves: int = 4) -> Floats:
    """Make (height, width) float32 fractal noise, 0..1; `cells` counts the coarsest bumps along the short side."""
    total, short = np.zeros((height, width), np.float32), min(height, width)
    for octave in range(octaves):
        count = cells * 2**octave
        shape = (max(2, count * height // short), max(2, count * width // short))
        grid = rng.random(shape, np.float32)
        total += cv2.resize(grid, (width, height), interpolation=cv2.INTER_CUBIC) * np.float32(0.5**octave)
    total -= total.min()
    return total / np.float32(max(float(total.max()), 1e-6))


def mix(share: Floats, first: Colour, second: Colour) -> Floats:
    """Blend two colours to (H, W, 3); share 0 gives the first."""
    low, high = np.array(first, np.float32), np.array(second, np.float32)
    return low + share[..., None] * (high - low)


def pattern(rng: np.random.Generator, kind: int) -> Floats:
    """Make (256, 256) float32 stripes, checks, spots or clouds, 0..1, bent by noise so that no part repeats."""
    side = _TEXTURE_SIDE
    y, x = np.mgrid[0:side, 0:side].astype(np.float32) / side
    bend_x, bend_y = noise(rng, side, side, 3), noise(rng, side, side, 3)
    u, v = x + 0.22 * bend_x, y + 0.22 * bend_y
    if kind == 0:
        sharp = np.sin(2 * np.pi * 7 * u + 2.0 * bend_y)
    elif kind == 1:
        sharp = np.sin(2 * np.pi * 4 * u) * np.sin(2 * np.pi * 4 * v) * 3
    elif kind == 2:
        sharp = (noise(rng, side, side, 12, 2) - 0.52) * 14
    else:
        sharp = (noise(rng, side, side, 5, 5) - 0.5) * 6
    edges = 1 / (1 + np.exp(-3.0 * sharp))
    return np.asarray(0.85 * edges + 0.15 * noise(rng, side, side, 16, 3), np.float32)


def make_ground(rng: np.random.Generator, height: int, width: int, post_half_width: float = POST_HALF_WIDTH) -> Floats:
    """Make (1.5 H, 1.5 W, 4) float32: the ground's colours, and the post's coverage in the last channel."""
    tall, wide = round(1.5 * height), round(1.5 * width)
    coarse, fine = noise(rng, tall, wide, 5, 5), noise(rng, tall, wide, 40, 3)
    dark, middle, light = _GROUND_COLOURS
    colours = np.where(coarse[..., None] < 0.5, mix(2 * coarse, dark, middle), mix(2 * coarse - 1, middle, light))
    colours = colours * (0.75 + 0.5 * fine[..., None])
    # Pebbles give motion something to hold on to.
    pebbles = np.clip((noise(rng, tall, wide, 26, 2) - 0.68) * 12, 0, 1)
    colours += pebbles[..., None] * (np.array([206, 200, 188], np.float32) - colours) * 0.8

    across = np.arange(wide, dtype=np.float32) - wide / 2
    half = post_half_width * min(height, width)
    wobble = (noise(rng, tall, wide, 4, 2) - 0.5) * 0.08 * half
    post = np.clip(half - np.abs(across[None] + wobble) + 0.5, 0, 1)
    rings = np.sin(np.linspace(0, 60, tall, dtype=np.float32)[:, None] + 7 * noise(rng, tall, wide, 6, 3))
    bark = mix(0.5 + 0.5 * rings * (0.4 + 0.6 * fine), *_POST_COLOURS)
    shade = 1 - 0.55 * np.abs(across / half).clip(0, 1) ** 2  # a round post: darker to the sides
    bark *= shade[None, :, None]
    colours += post[..., None] * (bark - colours)
    return np.dstack([colours, post]).astype(np.float32)


def _view_ground(ground: Floats, time: float, height: int, width: int) -> tuple[Floats, Floats]:
    """View the ground by a slowly moving camera: (H, W, 3) colours and (H, W) post coverage."""
    tall, wide = ground.shape[:2]
    swing = math.sin(2 * math.pi * time)
    matrix = cv2.getRotationMatrix2D((wide / 2, tall / 2), 2.5 * swing, 1 + 0.06 * time)
    matrix[0, 2] += (width - wide) / 2 + 0.05 * width * np.cos(2 * np.pi * 0.7 * time)
    matrix[1, 2] += (height - tall) / 2 + 0.05 * height * swing
    seen = cv2.warpAffine(ground, matrix, (width, height), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT)
    return np.ascontiguousarray(seen[..., :3], np.float32), np.ascontiguousarray(seen[..., 3], np.float32)


@dataclass(frozen=True)
class Actor:
    """A moving object.

    Attributes:
        body: its looks.
        path: its centre (x, y) px by time, the share of the video that is over, 0..1.
        object_id: 0 for a distractor, which is not to be followed.
        behind: passes behind the post.
    """

    body: Body
    path: Callable[[float], tuple[float, float]]
    object_id: int
    behind: bool = False


def draw_scene(
    ground: Floats, actors: Iterable[Actor], time: float, height: int, width: int
) -> tuple[Floats, NDArray[np.uint8]]:
    """Draw the ground and the actors on it, back to front.

    Returns:
        (H, W, 3) float32 colours, 0..255, and (H, W) uint8 ids of the visible actors.
    """
    canvas, post = _view_ground(ground, time, height, width)
    scene, labels = canvas.copy(), np.zeros((height, width), np.uint8)
    for actor in actors:
        alpha = draw_body(scene, actor.body, actor.path(time), time)
        if actor.behind:
            # The post is part of the ground: drawing it again over the actor hides the actor.
            scene += post[..., None] * (canvas - scene)
            alpha *= 1 - post
        labels[alpha > 0.5] = actor.object_id
    return scene, labels


def draw_body(scene: Floats, body: Body, centre: tuple[float, float], time: float) -> Floats:
    """Draw a body and its shadow into the (H, W, 3) float32 scene, in place, around a centre (x, y) px.

    Returns:
        (H, W) float32 coverage, 0..1.
    """
    height, width = scene.shape[:2]
    covered = np.zeros((height, width), np.float32)
    x, y = float(centre[0]), float(centre[1])  # a NumPy scalar would widen every array below
    left, right = max(0, math.floor(x - body.reach)), min(width, math.ceil(x + body.reach))
    top, bottom = max(0, math.floor(y - body.reach)), min(height, math.ceil(y + body.reach))
    if left >= right or top >= bottom:
        return covered
    part = scene[top:bottom, left:right]
    radius = body.radius * (1 + 0.12 * math.sin(2 * math.pi * time + float(body.phases[0])))
    rows, columns = np.mgrid[top:bottom, left:right].astype(np.float32)

    offset = 0.14 * radius
    shadow = _coverage(columns - x - offset, rows - y - offset, body, radius, time)[0]
    part *= 1 - 0.4 * cv2.GaussianBlur(shadow, (0, 0), max(0.05 * radius, 0.5))[..., None]

    alpha, u, v = _coverage(columns - x, rows - y, body, radius, time)
    pixel = np.float32((_TEXTURE_SIDE - 1) / 2)
    at = (u + 1) * pixel, (v + 1) * pixel
    texture = cv2.remap(body.texture, *at, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT)
    light = 1.08 - 0.45 * (u * u + v * v) ** 2
    part += alpha[..., None] * (texture * light[..., None] - part)
    covered[top:bottom, left:right] = alpha
    return covered


def _coverage(dx: Floats, dy: Floats, body: Body, radius: float, time: float) -> tuple[Floats, Floats, Floats]:
    """Compute the coverage 0..1 of pixels at offset (dx, dy), and their body coordinates u, v.

    Waves run around a circle; u² + v² = 1 on the outline, so that the texture deforms with it. All are (H, W).
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
