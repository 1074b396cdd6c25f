"""Compose clips with true masks and correspondence from masked stills (design section 7).

Cut-outs of stills move over a still as background; each layer has an affine path and a smooth deformation.
"""

import cv2
import numpy as np
from numpy.typing import NDArray

from training.data.clip import Clip, SynthesisConfig, flows
from training.data.synthesis.camera import _camera
from training.data.synthesis.layers import Scene, _background, _cutout, _Layer
from training.data.synthesis.render import _grid, _render_frame, render_scene
from training.data.synthesis.stills import Stills

SMALLEST_SHARE = 0.003
"""Share of frame 0 from which an object is followed."""


def _photograph(rng: np.random.Generator, stills: Stills, config: SynthesisConfig) -> tuple[_Layer, tuple[int, ...]]:
    """Take a photograph as background, and choose its followed objects."""
    base = stills.draw(rng)
    keep: tuple[int, ...] = ()
    if config.pasted == 0:
        most = min(config.objects, len(base.objects))
        keep = tuple(int(v) for v in rng.permutation(base.objects)[: int(rng.integers(1, most + 1))])
    elif rng.random() < 0.7:
        keep = tuple(int(v) for v in rng.permutation(base.objects)[: int(rng.integers(0, 3))])
    return _background(rng, base, config, keep), keep


def _compose_layers(
    rng: np.random.Generator, stills: Stills, config: SynthesisConfig, filmed: bool
) -> tuple[list[_Layer], set[int]]:
    """Make the layers, bottom first, with a background unless that is filmed; and the followed numbers."""
    layers: list[_Layer] = []
    keep: tuple[int, ...] = ()
    if not filmed:
        background, keep = _photograph(rng, stills, config)
        layers.append(background)
    followed = set(range(1, len(keep) + 1))
    pasted = int(rng.integers(0 if keep else 1, config.pasted + 1)) if config.pasted else 0
    number = len(keep)
    for _ in range(pasted):
        still = stills.draw(rng)
        label = int(rng.choice(still.objects))
        scale = float(np.exp(rng.uniform(np.log(config.smallest), np.log(0.65))))
        number += 1
        layers.append(_cutout(rng, still, label, config, number, scale))
        if rng.random() < 0.7 and len(followed) < config.objects:
            followed.add(number)
        if rng.random() < config.lookalike:
            number += 1
            layers.append(_cutout(rng, still, label, config, number, scale * rng.uniform(0.8, 1.25)))
    return layers, followed or {number}


def _hide(rng: np.random.Generator, layers: list[_Layer], followed: set[int], config: SynthesisConfig) -> None:
    """Move one pasted, followed layer out of the picture for some of the later frames."""
    pasted = [one for one in layers if one.border == cv2.BORDER_CONSTANT and int(one.labels.max()) in followed]
    if not pasted or config.frames < 3:
        return
    layer = pasted[int(rng.integers(len(pasted)))]
    first = int(rng.integers(1, config.frames))
    last = int(rng.integers(first + 1, config.frames + 1))
    layer.inverses[first:last, :, 2] += 1e5


def compose_scene(
    rng: np.random.Generator, stills: Stills, config: SynthesisConfig, filmed: NDArray[np.uint8] | None = None
) -> Scene:
    """Draw a scene whose frame 0 shows at least one followed object of at least `SMALLEST_SHARE` of the frame."""
    while True:
        layers, followed = _compose_layers(rng, stills, config, filmed is not None)
        if rng.random() < config.absence:
            _hide(rng, layers, followed, config)
        _, first, _ = _render_frame(layers, 0, _grid(config), config, filmed)
        seen = [n for n in sorted(followed) if (first == n).mean() > SMALLEST_SHARE][: config.objects]
        if seen:
            return Scene(layers, seen)


def render_clip(
    rng: np.random.Generator, stills: Stills, config: SynthesisConfig, filmed: NDArray[np.uint8] | None = None
) -> Clip:
    """Render a clip over a photograph, or over (T, H, W, 3) uint8 filmed frames; see `compose_scene`."""
    scene = compose_scene(rng, stills, config, filmed)
    images, labels, places = render_scene(scene, config, filmed)
    images = _camera(rng, images)
    return Clip(images, labels, len(scene.followed), *flows(images), places)
