"""Clips with true masks and true correspondence, rendered from masked stills (design section 7).

A clip is a photograph as moving background, its own labelled objects left in place, and cut-outs of other photographs
that move over it. Every layer follows its own affine path and a slowly changing smooth deformation.
"""

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from sam2lite_core.motion import MotionEstimator
from sam2lite_core.variants import PATCH
from training.stills import Still, Stills

FloatArray = NDArray[np.float32]

SMALLEST_SHARE = 0.003
"""Share of frame 0 from which an object is followed; smaller ones are a few patches of noise."""


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


FEW_FRAMES = 6
"""Clips of more frames are held together: most objects stay in the picture, turns and growth stay small."""

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
    rng: np.random.Generator, config: SynthesisConfig, centre: FloatArray, size: tuple[int, int], zoom: float,
    speed: float, spin: float,
) -> FloatArray:  # fmt: skip
    """Inverse affine maps of a picture of this size (w, h) that starts at centre and moves by speed px a frame."""
    heading = rng.uniform(0, 2 * np.pi)
    velocity = np.array([np.cos(heading), np.sin(heading)]) * speed
    turn = rng.normal(0, 0.5) / config.frames
    # Steady turns and growth add up over a clip: long ones would end upside down, or with nothing but one object.
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
        linear = (
            zoom
            * np.array([[cos, -sin], [sin, cos]])
            @ np.array([[flip * stretch, shear], [0.0, 1.0 / stretch]])
        )
        inverse = np.linalg.inv(linear)
        out[t, :, :2] = inverse
        out[t, :, 2] = np.array(size) / 2.0 - inverse @ position
        position = position + velocity + rng.normal(0, 0.1, 2) * speed
        velocity = np.array(
            [
                velocity[0] * np.cos(turn) - velocity[1] * np.sin(turn),
                velocity[0] * np.sin(turn) + velocity[1] * np.cos(turn),
            ]
        )
        if held:
            # As when whoever films follows: what would leave the frame turns round.
            outward = np.where(position < low, velocity < 0, (position > high) & (velocity > 0))
            velocity = np.where(outward, -velocity, velocity)
        angle += spin_rate
        zoom *= growth
    return out


def _bends(rng: np.random.Generator, frames: int, amplitude: float) -> FloatArray:
    """A smooth deformation that swings between two random fields, (T, 5, 5, 2) source px."""
    first, second = rng.normal(0, amplitude, (2, 5, 5, 2))
    phase = np.cumsum(rng.uniform(0.1, 0.6, frames))
    return (np.cos(phase)[:, None, None, None] * first + np.sin(phase)[:, None, None, None] * second).astype(
        np.float32
    )


def jitter(rng: np.random.Generator, image: NDArray[np.uint8], amount: float) -> NDArray[np.uint8]:
    """Brightness, contrast and saturation by up to `amount` (methodology section 4.2)."""
    gain, bias, saturation = rng.uniform(1 - amount, 1 + amount, 3)
    table = np.clip((np.arange(256) - 128) * gain + 128 * bias, 0, 255).astype(np.uint8)
    changed = cv2.LUT(image, table)
    grey = cv2.cvtColor(cv2.cvtColor(changed, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)
    return np.asarray(
        cv2.addWeighted(changed, float(saturation), grey, float(1 - saturation), 0), dtype=np.uint8
    )


def _speed(rng: np.random.Generator, config: SynthesisConfig) -> float:
    """Log-uniform 2 to 12 % of the width a frame; a fifth of the layers barely moves."""
    if rng.random() < 0.2:
        return 0.0
    return float(np.exp(rng.uniform(np.log(0.01), np.log(0.12)))) * config.width


def _background(
    rng: np.random.Generator, still: Still, config: SynthesisConfig, keep: tuple[int, ...]
) -> _Layer:
    """The whole photograph, covering the frame; its objects keep their labels 1..len(keep)."""
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
    """One object cut from a photograph with a soft edge, sized to `scale` of the frame."""
    mask = still.labels == label
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    pad = 6
    y0, y1 = max(rows[0] - pad, 0), min(rows[-1] + pad + 1, mask.shape[0])
    x0, x1 = max(columns[0] - pad, 0), min(columns[-1] + pad + 1, mask.shape[1])
    crop = jitter(rng, np.ascontiguousarray(still.image[y0:y1, x0:x1]), 0.3)
    alpha = cv2.GaussianBlur(mask[y0:y1, x0:x1].astype(np.uint8) * 255, (3, 3), 0)
    picture = cv2.copyMakeBorder(
        np.dstack([crop, alpha]), 2, 2, 2, 2, cv2.BORDER_CONSTANT, value=(0, 0, 0, 0)
    )
    labels = np.where(picture[..., 3] > 127, np.uint8(number), np.uint8(0))
    height, width = labels.shape
    zoom = scale * np.sqrt(config.height * config.width) / np.sqrt(height * width)
    centre = rng.uniform(0.15, 0.85, 2) * (config.width, config.height)
    inverses = _path(rng, config, centre, (width, height), zoom, _speed(rng, config), 0.08)
    # Some bend as limbs do.
    bend = (rng.uniform(0.0, 0.08) if rng.random() < 0.7 else rng.uniform(0.08, 0.16)) * np.sqrt(
        height * width
    )
    return _Layer(picture, labels, inverses, _bends(rng, config.frames, bend), zoom, cv2.BORDER_CONSTANT)


def _photograph(
    rng: np.random.Generator, stills: Stills, config: SynthesisConfig
) -> tuple[_Layer, tuple[int, ...]]:
    """A photograph as background, and which of its objects are followed."""
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
    """Background, unless that is filmed, and pasted layers, bottom first; and the numbers that are followed."""
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
    if len(followed) < 1:
        followed.add(number)
    return layers, followed


def _hide(
    rng: np.random.Generator, layers: list[_Layer], followed: set[int], config: SynthesisConfig
) -> None:
    """Move one pasted, followed layer out of the picture for some of the later frames."""
    cutouts = [layer for layer in layers if layer.border == cv2.BORDER_CONSTANT]
    pasted = [layer for layer in cutouts if int(layer.labels.max()) in followed]
    if not pasted or config.frames < 3:
        return
    layer = pasted[int(rng.integers(len(pasted)))]
    first = int(rng.integers(1, config.frames))
    last = int(rng.integers(first + 1, config.frames + 1))
    layer.inverses[first:last, :, 2] += 1e5


def unknown_places(t: int, rows: int, columns: int) -> FloatArray:
    """(rows, columns, 3) places of a filmed frame: of no layer, and far from those of every other frame."""
    places = np.zeros((rows, columns, 3), np.float32)
    places[..., 0], places[..., 1] = UNKNOWN, 1e5 * (t + 1)
    return places


def _render_frame(
    layers: list[_Layer], t: int, grid: FloatArray, config: SynthesisConfig,
    filmed: NDArray[np.uint8] | None = None,
) -> tuple[NDArray[np.uint8], NDArray[np.uint8], FloatArray]:  # fmt: skip
    """One frame: picture, numbers of every layer's objects, and the places at patch centres."""
    height, width = config.height, config.width
    canvas = np.zeros((height, width, 3), np.uint8) if filmed is None else filmed[t]
    numbers = np.zeros((height, width), np.uint8)
    half = PATCH // 2
    places = unknown_places(t, height // PATCH, width // PATCH)
    for index, layer in enumerate(layers, start=0 if filmed is None else 1):
        inverse = layer.inverses[t]
        bend = cv2.resize(layer.bends[t], (width, height), interpolation=cv2.INTER_CUBIC)
        source = bend
        source[..., 0] += grid[..., 0] * inverse[0, 0] + grid[..., 1] * inverse[0, 1] + inverse[0, 2]
        source[..., 1] += grid[..., 0] * inverse[1, 0] + grid[..., 1] * inverse[1, 1] + inverse[1, 2]
        shown = cv2.remap(layer.picture, source, None, cv2.INTER_LINEAR, borderMode=layer.border)
        label = cv2.remap(layer.labels, source, None, cv2.INTER_NEAREST, borderMode=layer.border)
        if index == 0:
            canvas, numbers = np.ascontiguousarray(shown[..., :3]), label
            covered = np.ones(places.shape[:2], bool)
        else:
            alpha = shown[..., 3:]
            if not alpha.any():
                continue
            weight = alpha.astype(np.uint16)
            canvas = ((shown[..., :3] * weight + canvas * (255 - weight)) // 255).astype(np.uint8)
            numbers = np.where(alpha[..., 0] > 127, label, numbers)
            covered = alpha[half::PATCH, half::PATCH, 0] > 127
        centres = source[half::PATCH, half::PATCH] * layer.zoom
        places[covered] = np.concatenate([np.full((*centres.shape[:2], 1), index, np.float32), centres], -1)[
            covered
        ]
    return canvas, numbers, places


def motion_kernel(rng: np.random.Generator, length: int) -> FloatArray:
    """(length, length) kernel of motion blur along a line from the left side to the right; sums to 1."""
    kernel = np.zeros((length, length), np.float32)
    cv2.line(kernel, (0, int(rng.integers(length))), (length - 1, int(rng.integers(length))), 1.0)
    return np.asarray(kernel / kernel.sum(), dtype=np.float32)


def _camera(rng: np.random.Generator, images: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """What a camera does to all frames of a clip: exposure drift, blur, grain, compression."""
    drift = rng.normal(0, 0.03, len(images)).cumsum() if rng.random() < 0.5 else np.zeros(len(images))
    blur = int(rng.choice([3, 5])) if rng.random() < 0.3 else 0
    kernel = motion_kernel(rng, blur) if blur else None
    grain = rng.uniform(2, 8) if rng.random() < 0.3 else 0.0
    quality = int(rng.integers(30, 90)) if rng.random() < 0.3 else 0
    grey = rng.random() < 0.03
    out = []
    for image, gain in zip(images, drift, strict=True):
        if gain:
            image = cv2.convertScaleAbs(image, alpha=float(np.clip(1 + gain, 0.6, 1.5)))
        if kernel is not None:
            image = cv2.filter2D(image, -1, kernel)
        if grain:
            noise = rng.integers(-int(grain) - 1, int(grain) + 2, image.shape, dtype=np.int16)
            image = np.clip(image + noise, 0, 255).astype(np.uint8)
        if quality:
            image = cv2.imdecode(
                cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, quality])[1], cv2.IMREAD_COLOR
            )
        if grey:
            image = cv2.cvtColor(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)
        out.append(image)
    return np.stack(out)


def flows(images: NDArray[np.uint8]) -> tuple[FloatArray, FloatArray]:
    """The flow that the robot will have: the same estimator on the clip's (T, H, W, 3) frames."""
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


@dataclass(frozen=True)
class Scene:
    """What a clip is rendered from.

    Attributes:
        layers: bottom first; the first is the background unless that is filmed.
        followed: numbers of the objects that are followed, in the order of their labels.
    """

    layers: list[_Layer]
    followed: list[int]


def compose_scene(
    rng: np.random.Generator,
    stills: Stills,
    config: SynthesisConfig,
    filmed: NDArray[np.uint8] | None = None,
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


def render_scene(
    scene: Scene, config: SynthesisConfig, filmed: NDArray[np.uint8] | None = None
) -> tuple[NDArray[np.uint8], NDArray[np.uint8], FloatArray]:
    """Images, labels and places of all frames, before the camera has its effect; see `Clip`."""
    table = np.zeros(256, np.uint8)
    table[scene.followed] = np.arange(1, len(scene.followed) + 1)
    grid = _grid(config)
    frames = [_render_frame(scene.layers, t, grid, config, filmed) for t in range(config.frames)]
    images, numbers, places = (np.stack(part) for part in zip(*frames, strict=True))
    return images, table[numbers], places


def _grid(config: SynthesisConfig) -> FloatArray:
    """(H, W, 2) float32 pixel coordinates (x, y)."""
    columns = np.arange(config.width, dtype=np.float32)
    rows = np.arange(config.height, dtype=np.float32)
    return np.stack(np.meshgrid(columns, rows), axis=-1)


def render_clip(
    rng: np.random.Generator,
    stills: Stills,
    config: SynthesisConfig,
    filmed: NDArray[np.uint8] | None = None,
) -> Clip:
    """Render one clip; see `compose_scene`.

    Args:
        rng: the same state gives the same clip.
        stills: photographs to cut from.
        config: shape and difficulty.
        filmed: (T, H, W, 3) uint8 frames to paste over, in place of a photograph.
    """
    scene = compose_scene(rng, stills, config, filmed)
    images, labels, places = render_scene(scene, config, filmed)
    images = _camera(rng, images)
    flow, motion = flows(images)
    return Clip(images, labels, len(scene.followed), flow, motion, places)
