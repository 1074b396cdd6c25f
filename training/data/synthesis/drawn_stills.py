"""Draw masked stills, to try training without data."""

import numpy as np

from sam2lite_core.scenes.clip import MAX_OBJECTS, render_clip
from training.data.synthesis.stills import Still, Stills, usable


def rendered_stills(count: int, seed: int = 0) -> Stills:
    """Draw stills of textured bodies on textured ground, about 30 ms each; repeatable by seed."""
    rng = np.random.default_rng([seed, 7])
    made: list[Still] = []
    while len(made) < count:
        # One frame of a clip is used, somewhere along its paths.
        seed_of_clip, objects_of_clip = int(rng.integers(2**31)), int(rng.integers(1, MAX_OBJECTS))
        clip = render_clip(seed_of_clip, height=144, width=192, frames=3, objects=objects_of_clip)
        index = int(rng.integers(3))
        labels = clip.label_maps[index]
        objects = tuple(int(value) for value in np.unique(labels) if value and usable(labels, int(value)))
        if objects:
            made.append(Still(np.ascontiguousarray(clip.frames[index]), labels, objects, "instances"))
    return Stills.of(made)
