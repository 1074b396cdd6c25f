"""Render the situations in which trackers differ, with ground truth; each seed of a set gives another video."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sam2lite_core.errors import ConfigurationError
from sam2lite_core.scenes.bodies import (
    POST_HALF_WIDTH,
    Actor,
    Body,
    Colour,
    Floats,
    draw_scene,
    make_ground,
    mix,
    pattern,
    shape_body,
)

HEIGHT, WIDTH, FRAMES = 480, 640, 90

SHUTTER = 0.6
"""Exposure of a blurred frame, share of the time of a frame."""

Path = Callable[[float], tuple[float, float]]
Light = Callable[[float], tuple[float, float, float]]


@dataclass(frozen=True, eq=False)  # hashed by identity: its ground is an array
class Scene:
    """A video that is drawn frame by frame.

    Attributes:
        ground: as `make_ground` makes it.
        actors: back to front.
        light: gains of red, green and blue by time.
        exposures: pictures that are averaged into a frame; 1 is sharp.
        seed: of the grain.
    """

    ground: Floats
    actors: tuple[Actor, ...]
    seed: int
    light: Light = lambda time: (1.0, 1.0, 1.0)
    exposures: int = 1

    def draw(self, index: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        """Draw the frame at an index, 0..89, and its truth.

        Returns:
            (480, 640, 3) uint8 RGB, and (480, 640) uint8 ids of what is visible half way through the exposure.
        """
        spread = (np.arange(self.exposures) - (self.exposures - 1) / 2) * SHUTTER / self.exposures
        times = [(index + offset) / (FRAMES - 1) for offset in spread]
        drawn = [draw_scene(self.ground, self.actors, time, HEIGHT, WIDTH) for time in times]
        picture = np.mean([image for image, _ in drawn], axis=0, dtype=np.float32)
        gains = np.array(self.light(index / (FRAMES - 1)), np.float32)
        grain = np.random.default_rng((self.seed, index)).normal(0, 2.0, (HEIGHT, WIDTH, 1))
        image = np.clip(picture * gains + grain, 0, 255).round().astype(np.uint8)
        return image, drawn[len(drawn) // 2][1]


def _body(rng: np.random.Generator, radius: float, kind: int | None = None) -> Body:
    """Make a body in two colours of its own."""
    return _painted(rng, radius, float(rng.uniform(0, 2 * math.pi)), kind)


def _painted(rng: np.random.Generator, radius: float, hue: float, kind: int | None = None) -> Body:
    """Make a body in two colours: a dark one of this hue and a light one of a distant hue."""
    texture = pattern(rng, int(rng.integers(4)) if kind is None else kind)
    texture = mix(texture, _colour(hue, 70), _colour(hue + 2.2, 215))
    return shape_body(rng, texture, radius * float(rng.uniform(0.92, 1.08)), 1 if rng.random() < 0.5 else -1)


def _colour(hue: float, level: int) -> Colour:
    """Return a saturated colour of about this brightness."""
    red, green, blue = (int(np.clip(level + 60 * math.cos(hue - k * 2.094), 0, 255)) for k in range(3))
    return red, green, blue


def _through(points: Sequence[tuple[float, float, float]]) -> Path:
    """Make a path through (time, x, y), x and y as shares of the frame; slow at every point, fast between."""
    times = [time for time, _, _ in points]

    def path(time: float) -> tuple[float, float]:
        time = min(max(time, times[0]), times[-1])
        step = min(int(np.searchsorted(times, time, side="right")) - 1, len(points) - 2)
        start, x0, y0 = points[step]
        end, x1, y1 = points[step + 1]
        share = (time - start) / (end - start)
        eased = share * share * (3 - 2 * share)
        return WIDTH * (x0 + eased * (x1 - x0)), HEIGHT * (y0 + eased * (y1 - y0))

    return path


def _orbit(centre: tuple[float, float], size: tuple[float, float], turns: float, phase: float) -> Path:
    """Make an elliptic path around a centre, all in shares of the frame."""

    def path(time: float) -> tuple[float, float]:
        angle = phase + 2 * math.pi * turns * time
        return (WIDTH * (centre[0] + size[0] * math.cos(angle)), HEIGHT * (centre[1] + size[1] * math.sin(angle)))

    return path


def _long_occlusion(rng: np.random.Generator, seed: int) -> Scene:
    """Hide an object behind a broad post for about half of the video."""
    y = rng.uniform(0.35, 0.65, 3)
    flip = rng.random() < 0.5
    points = [(0.0, 0.14, y[0]), (0.26, 0.47, y[1]), (0.5, 0.53, y[1]), (0.8, 0.86, y[2]), (1.0, 0.84, y[2])]
    path = _through([(t, 1 - x if flip else x, float(row)) for t, x, row in points])
    ground = make_ground(rng, HEIGHT, WIDTH, 2.1 * POST_HALF_WIDTH)
    return Scene(ground, (Actor(_body(rng, 44), path, 1, behind=True),), seed)


def _exit_return(rng: np.random.Generator, seed: int) -> Scene:
    """Let an object leave over an edge for about half of the video and return elsewhere."""
    y = rng.uniform(0.25, 0.75, 3)
    edge = 1.25 if rng.random() < 0.5 else -0.25
    other = edge if rng.random() < 0.5 else 1 - edge
    path = _through(
        [(0.0, 0.5, y[0]), (0.32, edge, y[1]), (0.33, edge, y[1]), (0.56, other, y[2]), (0.57, other, y[2]),
         (1.0, 0.5, y[0])]
    )  # fmt: skip

    def hidden(time: float) -> tuple[float, float]:
        """Pass from edge to edge far above the picture."""
        return (path(time)[0], -HEIGHT) if 0.33 < time < 0.57 else path(time)

    return Scene(make_ground(rng, HEIGHT, WIDTH), (Actor(_body(rng, 52), hidden, 1),), seed)


def _look_alikes(rng: np.random.Generator, seed: int) -> Scene:
    """Let two distractors of the object's own colours and pattern cross its way, one below and one above it."""
    hue, kind = float(rng.uniform(0, 2 * math.pi)), int(rng.integers(4))
    bodies = [_painted(rng, 58, hue, kind) for _ in range(3)]
    phase = float(rng.uniform(0, 2 * math.pi))
    paths = [_orbit((0.5, 0.5), (0.28, 0.26), turns, phase + 2.1 * k) for k, turns in enumerate((0.8, -0.9, -0.7))]
    actors = tuple(Actor(bodies[k], paths[k], int(k == 0)) for k in (1, 0, 2))
    return Scene(make_ground(rng, HEIGHT, WIDTH), actors, seed)


def _tiny(rng: np.random.Generator, seed: int) -> Scene:
    """Show three objects of 16 to 28 px."""
    actors = [
        Actor(_body(rng, radius), _orbit((x, 0.5), (0.1, 0.3), float(rng.uniform(0.4, 0.8)), 2.0 * k), k + 1)
        for k, (radius, x) in enumerate(((8, 0.2), (10, 0.42), (12, 0.8)))
    ]
    return Scene(make_ground(rng, HEIGHT, WIDTH), tuple(actors), seed)


def _fast(rng: np.random.Generator, seed: int) -> Scene:
    """Move an object by up to half its size from frame to frame, with motion blur."""
    phase = float(rng.uniform(0, 2 * math.pi))

    def path(time: float) -> tuple[float, float]:
        across, down = 2 * math.pi * 3.1 * time, 2 * math.pi * 2.3 * time + phase
        return WIDTH * (0.5 + 0.38 * math.sin(across)), HEIGHT * (0.5 + 0.33 * math.sin(down))

    return Scene(make_ground(rng, HEIGHT, WIDTH), (Actor(_body(rng, 46), path, 1),), seed, exposures=5)


def _light(rng: np.random.Generator, seed: int) -> Scene:
    """Let the light fade to a third, turn warm, and come back at once."""
    actors = (
        Actor(_body(rng, 60), _orbit((0.3, 0.5), (0.14, 0.2), 0.7, 0.0), 1),
        Actor(_body(rng, 52), _orbit((0.7, 0.5), (0.14, 0.22), -0.6, 1.0), 2),
    )
    switch = float(rng.uniform(0.6, 0.75))

    def light(time: float) -> tuple[float, float, float]:
        dim = 1 - 0.68 * time / switch if time < switch else 1.25
        warm = 0.25 * min(time / switch, 1.0)
        return dim * (1 + warm), dim, dim * (1 - warm)

    return Scene(make_ground(rng, HEIGHT, WIDTH), actors, seed, light)


def _many(rng: np.random.Generator, seed: int) -> Scene:
    """Show sixteen objects, as many as the shipped graphs hold."""
    actors = []
    for k in range(16):
        centre = (0.14 + 0.24 * (k % 4), 0.14 + 0.24 * (k // 4))
        size = float(rng.uniform(0.03, 0.06))
        path = _orbit(centre, (size, size), float(rng.uniform(0.5, 1.2)), float(rng.uniform(0, 6.28)))
        actors.append(Actor(_body(rng, 30, k % 4), path, k + 1))
    return Scene(make_ground(rng, HEIGHT, WIDTH), tuple(actors), seed)


SETS: dict[str, Callable[[np.random.Generator, int], Scene]] = {
    "long_occlusion": _long_occlusion,
    "exit_return": _exit_return,
    "look_alikes": _look_alikes,
    "tiny_objects": _tiny,
    "fast_motion": _fast,
    "light_change": _light,
    "sixteen_objects": _many,
}
"""From a set's name to the maker of its scenes."""


def make_scene(name: str, seed: int) -> Scene:
    """Make a scene of a set; the same seed gives the same scene.

    Raises:
        ConfigurationError: no such set.
    """
    if name not in SETS:
        raise ConfigurationError(f"unknown stress set {name!r}; choose from {', '.join(SETS)}")
    return SETS[name](np.random.default_rng((seed, *name.encode())), seed)
