"""Clips of filmed, labelled videos, varied as methodology section 4.2 says."""

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from sam2lite_core.datasets.base import FolderDataset, LabelledVideo
from sam2lite_core.errors import SourceError
from sam2lite_core.media.label_map import LabelMap
from sam2lite_core.media.pictures import read_image
from sam2lite_core.variants import PATCH
from training.config.data import Augmentation
from training.data.clip import Clip, SynthesisConfig, flows, unknown_places
from training.data.synthesis.camera import jitter, motion_kernel
from training.data.synthesis.compose import SMALLEST_SHARE

TRIES = 4
"""Starts that are tried in a video before its masks count as empty."""


@dataclass(frozen=True)
class Crop:
    """A window of a frame, pixels, and whether it is seen in a mirror."""

    x: int
    y: int
    width: int
    height: int
    flip: bool

    def apply(self, image: NDArray[np.generic], shape: SynthesisConfig) -> NDArray[np.generic]:
        """Cut, scale and mirror one picture or label map to the clip's size."""
        window = image[self.y : self.y + self.height, self.x : self.x + self.width]
        # Ids must not mix.
        method = cv2.INTER_NEAREST if image.ndim == 2 else cv2.INTER_AREA
        out = cv2.resize(window, (shape.width, shape.height), interpolation=method)
        return np.ascontiguousarray(out[:, ::-1] if self.flip else out)


def draw_crop(
    rng: np.random.Generator, height: int, width: int, shape: SynthesisConfig, augmentation: Augmentation
) -> Crop:
    """A window of the clip's aspect, between `augmentation.crop` and all of the largest one that fits."""
    largest = min(width / shape.width, height / shape.height)
    side = float(rng.uniform(augmentation.crop, 1.0)) * largest
    w, h = max(1, round(side * shape.width)), max(1, round(side * shape.height))
    w, h = min(w, width), min(h, height)
    x, y = int(rng.integers(width - w + 1)), int(rng.integers(height - h + 1))
    return Crop(x, y, w, h, bool(rng.random() < augmentation.flip))


def draw_frames(rng: np.random.Generator, length: int, frames: int, augmentation: Augmentation) -> list[int]:
    """Frame numbers of a clip out of a video of `length` frames; a short video runs back and forth."""
    gap = int(rng.integers(1, augmentation.max_gap + 1))
    gap = max(1, min(gap, (length - 1) // max(1, frames - 1)))
    start = int(rng.integers(max(1, length - gap * (frames - 1))))
    turn = 2 * (length - 1)
    numbers = [(start + gap * t) % turn for t in range(frames)]
    numbers = [n if n < length else turn - n for n in numbers]
    return numbers[::-1] if rng.random() < augmentation.reverse else numbers


def vary(
    rng: np.random.Generator, images: NDArray[np.uint8], augmentation: Augmentation
) -> NDArray[np.uint8]:
    """Colours and motion blur, the same for all of the clip's (T, H, W, 3) frames."""
    frames, height, width = images.shape[:3]
    if augmentation.jitter:
        images = jitter(rng, images.reshape(frames * height, width, 3), augmentation.jitter)
        images = images.reshape(frames, height, width, 3)
    if rng.random() < augmentation.blur:
        kernel = motion_kernel(rng, int(rng.choice(augmentation.blur_kernels)))
        images = np.stack([cv2.filter2D(image, -1, kernel) for image in images])
    return images


class FilmedClips:
    """Random clips of one dataset."""

    def __init__(
        self, videos: list[LabelledVideo], layout: FolderDataset, augmentation: Augmentation, root: Path
    ) -> None:
        """Check that there is something to draw from.

        Raises:
            SourceError: the dataset has no video.
        """
        if not videos:
            raise SourceError(f"{root}: no video in this dataset")
        self.videos = videos
        self._layout = layout
        self._augmentation = augmentation

    def __len__(self) -> int:
        return len(self.videos)

    def clip(self, rng: np.random.Generator, shape: SynthesisConfig) -> Clip:
        """Draw a clip whose first frame shows at least one object.

        Raises:
            SourceError: a file cannot be read, a mask fits its image's size not, or the masks of the video are empty.
        """
        video = self.videos[int(rng.integers(len(self.videos)))]
        for _ in range(TRIES):
            numbers = draw_frames(rng, len(video.images), shape.frames, self._augmentation)
            first = self._layout.read_mask(video.masks[numbers[0]])
            crop = draw_crop(rng, *first.shape, shape, self._augmentation)
            seen = visible(np.asarray(crop.apply(first, shape)))
            if len(seen):
                break
        else:
            raise SourceError(
                f"{video.masks[numbers[0]]}: empty mask, as are others of this video; nothing to follow"
            )
        followed = np.sort(rng.permutation(seen)[: shape.objects])
        images, labels = [], []
        for number in numbers:
            image, label_map = self._read(video, number)
            if image.shape[:2] != first.shape:
                raise SourceError(f"{video.images[number]}: frame size changes within the video")
            images.append(np.asarray(crop.apply(image, shape), np.uint8))
            labels.append(relabel(np.asarray(crop.apply(label_map, shape)), followed))
        return finish(vary(rng, np.stack(images), self._augmentation), np.stack(labels), len(followed))

    def _read(self, video: LabelledVideo, number: int) -> tuple[NDArray[np.uint8], LabelMap]:
        image = read_image(video.images[number])
        label_map = self._layout.read_mask(video.masks[number])
        if label_map.shape != image.shape[:2]:
            height, width = label_map.shape
            raise SourceError(
                f"{video.masks[number]}: mask is {width}x{height}, its frame {image.shape[1]}x{image.shape[0]}"
            )
        return image, label_map


def visible(label_map: NDArray[np.generic]) -> NDArray[np.int64]:
    """Ids that cover at least `SMALLEST_SHARE` of the map."""
    ids, counts = np.unique(label_map, return_counts=True)
    return np.asarray(ids[(ids != 0) & (counts > SMALLEST_SHARE * label_map.size)], dtype=np.int64)


def relabel(label_map: NDArray[np.generic], followed: NDArray[np.int64]) -> NDArray[np.uint8]:
    """The followed ids as 1..K, everything else as background."""
    out = np.zeros(label_map.shape, np.uint8)
    for number, value in enumerate(followed, start=1):
        out[label_map == value] = number
    return out


def finish(images: NDArray[np.uint8], labels: NDArray[np.uint8], count: int) -> Clip:
    """Add what the robot measures on the same frames; what corresponds to what, nobody knows."""
    flow, motion = flows(images)
    frames, height, width = labels.shape
    places = np.stack([unknown_places(t, height // PATCH, width // PATCH) for t in range(frames)])
    return Clip(images, labels, count, flow, motion, places)
