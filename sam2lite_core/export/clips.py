"""Read the clips that an export is calibrated and checked on: frames, prompts and ground truth."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sam2lite_core.errors import ConfigurationError, InvalidPromptError, SourceError
from sam2lite_core.media.label_map import LabelMap, read_label_map
from sam2lite_core.media.open import open_source
from sam2lite_core.media.pictures import list_images
from sam2lite_core.scenes.clip import render_clip
from sam2lite_core.types import Prompt

DRAWN = "a drawn clip"


@dataclass(frozen=True)
class Clip:
    """A clip to track through: (H, W, 3) uint8 RGB frames, the first one's prompts, (H, W) true label maps or none."""

    name: str
    frames: tuple[NDArray[np.uint8], ...]
    prompts: tuple[Prompt, ...]
    truths: tuple[LabelMap, ...] = ()


def load_clip(frames: Path, mask: Path, truth: Path | None = None, limit: int | None = None) -> Clip:
    """Read a clip, at most `limit` frames.

    Args:
        frames: folder of pictures, or a video file.
        mask: label map of the first frame; every id in it is followed.
        truth: folder of label maps, one for each frame, in the frames' order.

    Raises:
        SourceError: a file that is missing or unreadable, or fewer label maps than frames.
        InvalidPromptError: the mask is empty or has another size than the frames.
    """
    shown = read_label_map(mask)
    ids = [int(value) for value in np.unique(shown) if value]
    if not ids:
        raise InvalidPromptError(f"{mask}: mask is empty; mark at least one pixel")
    with open_source(frames, limit=limit) as source:
        images = tuple(frame.image for frame in source)
    if shown.shape != images[0].shape[:2]:
        raise InvalidPromptError(
            f"{mask}: {shown.shape[1]}x{shown.shape[0]} pixels, but {frames} has "
            f"{images[0].shape[1]}x{images[0].shape[0]}; give the first frame's mask"
        )
    truths: tuple[LabelMap, ...] = ()
    if truth is not None:
        paths = list_images(truth) if truth.is_dir() else []
        if len(paths) < len(images):
            raise SourceError(f"{truth}: {len(paths)} label maps for {len(images)} frames; give one for each")
        truths = tuple(read_label_map(path) for path in paths[: len(images)])
    return Clip(frames.name, images, tuple(Prompt(object_id=i, mask=shown == i) for i in ids), truths)


def pair_clips(frames: Sequence[Path], masks: Sequence[Path], limit: int) -> list[Clip]:
    """Read calibration clips as `load_clip`; raise ConfigurationError for another number of masks than of sources."""
    if len(frames) != len(masks):
        raise ConfigurationError(
            f"{len(frames)} calibration clips and {len(masks)} masks; give each --calibration its --calibration-mask"
        )
    return [load_clip(source, mask, limit=limit) for source, mask in zip(frames, masks, strict=True)]


def drawn_clip(frames: int, seed: int = 0) -> Clip:
    """Draw a clip with ground truth, for exports without a real one."""
    drawn = render_clip(seed, height=480, width=640, frames=frames)
    first = drawn.label_maps[0]
    prompts = tuple(Prompt(object_id=int(i), mask=first == i) for i in np.unique(first) if i)
    return Clip(DRAWN, tuple(drawn.frames), prompts, tuple(drawn.label_maps))
