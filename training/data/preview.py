"""Draw training samples: a row per clip; per frame the image with its labels, and the flow."""

from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from sam2lite_core.errors import ConfigurationError
from sam2lite_core.files import write_atomically
from sam2lite_core.media.overlay import object_colour
from training.config.run import RunConfig
from training.data.mixture import Mixture, clip_shape
from training.data.stream import TRAINING, batches, checked, collate, rendered

FRAMES = 8
"""Most frames that are drawn of a clip, evenly spread."""

GAP = 4


def draw_samples(config: RunConfig, stage: int, phase: int, clips: int, out: Path) -> int:
    """Draw the first clips of a phase, numbered from 1 on within its stage, to a PNG file; return their number.

    Raises:
        ConfigurationError: no such stage or phase.
        SourceError: a dataset is bad, or `out` cannot be written.
    """
    stages = config.stages.numbered()
    if stage not in stages:
        raise ConfigurationError(f"--stage {stage}: choose one of {', '.join(map(str, stages))}")
    phases = stages[stage].phases
    if not 1 <= phase <= len(phases):
        raise ConfigurationError(f"--phase {phase}: stage {stage} has {len(phases)}")
    if out.suffix.lower() != ".png":
        raise ConfigurationError(f"--out {out}: name a .png file")
    key = (config.seed, TRAINING, stage, phase - 1)
    mixture = Mixture(config.data, config.seed)
    stream = batches(mixture, phases[phase - 1], key).dataset
    shape = clip_shape(mixture, phases[phase - 1])
    rows = []
    for index in range(clips):
        batch, _ = checked(collate([stream[index]]))
        clip = rendered(batch, shape, *key, index)
        rows.append(draw_clip({name: value[0] for name, value in clip.items()}))
    picture = cv2.cvtColor(np.concatenate(rows), cv2.COLOR_RGB2BGR)
    write_atomically(out, cv2.imencode(".png", picture)[1].tobytes())
    return len(rows)


def draw_clip(clip: dict[str, Tensor]) -> NDArray[np.uint8]:
    """Draw a row: frames with labels above, flow below; (2 H, T W, 3) uint8 RGB with gaps."""
    images, labels, flow = (clip[name].numpy() for name in ("images", "labels", "flow"))
    chosen = np.unique(np.linspace(0, len(images) - 1, min(FRAMES, len(images))).round().astype(int))
    columns = []
    for t in chosen:
        height, width = labels[t].shape
        moved = cv2.resize(draw_flow(flow[t]), (width, height), interpolation=cv2.INTER_NEAREST)
        column = np.concatenate([draw_labels(images[t], labels[t]), moved])
        columns.append(cv2.copyMakeBorder(column, 0, GAP, 0, GAP, cv2.BORDER_CONSTANT, value=(255,) * 3))
    return np.asarray(np.concatenate(columns, axis=1), dtype=np.uint8)


def draw_labels(image: NDArray[np.uint8], labels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Draw the image with each object tinted and outlined."""
    out = image.copy()
    for value in np.unique(labels[labels > 0]):
        mask = (labels == value).astype(np.uint8)
        colour = np.array(object_colour(int(value)), np.float32)
        out[mask > 0] = (0.65 * out[mask > 0] + 0.35 * colour).astype(np.uint8)
        outlines, _ = cv2.findContours(mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
        cv2.drawContours(out, outlines, -1, tuple(int(c) for c in colour), 1)
    return out


def draw_flow(flow: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Draw flow (h, w, 2) in shares of the frame: direction as hue, length as brightness, full at 5 %."""
    length, angle = cv2.cartToPolar(flow[..., 0].copy(), flow[..., 1].copy(), angleInDegrees=True)
    value = np.clip(length / 0.05, 0, 1) * 255
    hsv = np.dstack([angle / 2, np.full_like(angle, 200), value]).astype(np.uint8)
    return np.asarray(cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB), dtype=np.uint8)
