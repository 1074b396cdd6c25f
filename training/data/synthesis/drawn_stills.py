"""Masked stills that are drawn, not photographed: training can be tried where no data is."""

import numpy as np

from sam2lite_core.scenes.clip import MAX_OBJECTS, render_clip
from training.data.synthesis.stills import Still, Stills, usable

HEIGHT, WIDTH = 144, 192


def rendered_stills(count: int, seed: int = 0) -> Stills:
    """Stills of textured bodies on textured ground; the same arguments give the same stills.

    Args:
        count: stills to draw, about 30 ms each.
        seed: chooses textures, outlines and places.
    """
    rng = np.random.default_rng([seed, 7])
    made: list[Still] = []
    while len(made) < count:
        # One frame of a clip somewhere along its paths; the others are thrown away.
        frames = 3
        clip = render_clip(
            int(rng.integers(2**31)),
            height=HEIGHT,
            width=WIDTH,
            frames=frames,
            objects=int(rng.integers(1, MAX_OBJECTS)),
        )
        index = int(rng.integers(frames))
        labels = clip.label_maps[index]
        objects = tuple(int(value) for value in np.unique(labels) if value and usable(labels, int(value)))
        if objects:
            made.append(Still(np.ascontiguousarray(clip.frames[index]), labels, objects, "instances"))
    return Stills.of(made)
