"""Draw clips from filmed, labelled videos, varied as methodology section 4.2 says."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

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
"""Random starts in a video before one is taken that is known to show an object."""


@dataclass(frozen=True)
class Crop:
    """A rectangle of a frame, px, mirrored with `flip`."""

    x: int
    y: int
    width: int
    height: int
    flip: bool

    def apply(self, image: LabelMap, shape: SynthesisConfig) -> NDArray[Any]:
        """Cut, scale and mirror one picture or label map to the clip's size."""
        part = image[self.y : self.y + self.height, self.x : self.x + self.width]
        # Ids must not mix.
        method = cv2.INTER_NEAREST if image.ndim == 2 else cv2.INTER_AREA
        out = cv2.resize(part, (shape.width, shape.height), interpolation=method)
        return np.ascontiguousarray(out[:, ::-1] if self.flip else out, image.dtype)


def draw_crop(
    rng: np.random.Generator, height: int, width: int, shape: SynthesisConfig, augmentation: Augmentation
) -> Crop:
    """Draw a crop of the clip's aspect, between `augmentation.crop` and all of the largest one that fits."""
    largest = min(width / shape.width, height / shape.height)
    side = float(rng.uniform(augmentation.crop, 1.0)) * largest
    w, h = min(width, max(1, round(side * shape.width))), min(height, max(1, round(side * shape.height)))
    x, y = int(rng.integers(width - w + 1)), int(rng.integers(height - h + 1))
    return Crop(x, y, w, h, bool(rng.random() < augmentation.flip))


def draw_frames(rng: np.random.Generator, length: int, frames: int, augmentation: Augmentation) -> list[int]:
    """Draw frame numbers of a clip from a video of `length` frames; a short video runs back and forth."""
    gap = int(rng.integers(1, augmentation.max_gap + 1))
    gap = max(1, min(gap, (length - 1) // max(1, frames - 1)))
    start = int(rng.integers(max(1, length - gap * (frames - 1))))
    numbers = back_and_forth(start, gap, length, frames)
    return numbers[::-1] if rng.random() < augmentation.reverse else numbers


def back_and_forth(start: int, gap: int, length: int, frames: int) -> list[int]:
    """Number frames from `start` on in steps of `gap`, back and forth in the video."""
    turn = 2 * (length - 1)
    numbers = [(start + gap * t) % turn for t in range(frames)]
    return [n if n < length else turn - n for n in numbers]


def vary(rng: np.random.Generator, images: NDArray[np.uint8], augmentation: Augmentation) -> NDArray[np.uint8]:
    """Vary colours and motion blur, the same for all of the clip's (T, H, W, 3) frames."""
    frames, height, width = images.shape[:3]
    if augmentation.jitter:
        images = jitter(rng, images.reshape(frames * height, width, 3), augmentation.jitter)
        images = images.reshape(frames, height, width, 3)
    if rng.random() < augmentation.blur:
        kernel = motion_kernel(rng, int(rng.choice(augmentation.blur_kernels)))
        images = np.stack([cv2.filter2D(image, -1, kernel) for image in images])
    return images


class FilmedClips:
    """Random clips of one dataset.

    Attributes:
        videos: that show an object at least once.
        skipped: number of videos that never do.
    """

    def __init__(
        self, videos: list[LabelledVideo], layout: FolderDataset, augmentation: Augmentation, root: Path, skip_bad: bool
    ) -> None:
        """Find a frame of each video that shows an object; `layout` reads the masks.

        Raises:
            SourceError: the dataset has no video, or the masks of one are all empty and `skip_bad` is not set.
        """
        self._layout = layout
        self._augmentation = augmentation
        self._shows = {video.name: self._first_seen(video) for video in videos}
        self.videos = [video for video in videos if self._shows[video.name] is not None]
        self.skipped = len(videos) - len(self.videos)
        if self.skipped and not skip_bad:
            empty = next(video for video in videos if self._shows[video.name] is None)
            raise SourceError(
                f"{empty.masks[0].parent}: all masks of this video are empty; leave it out, or set data.skip_bad"
            )
        if not self.videos:
            raise SourceError(f"{root}: no video in this dataset")

    def clip(self, rng: np.random.Generator, shape: SynthesisConfig) -> Clip:
        """Draw a clip whose first frame shows at least one object.

        Raises:
            SourceError: a file cannot be read, or a mask does not fit its image's size.
        """
        video = self.videos[int(rng.integers(len(self.videos)))]
        numbers, crop, seen = self._draw(rng, video, shape)
        followed = np.sort(rng.permutation(seen)[: shape.objects])
        images: list[NDArray[np.uint8]] = []
        labels: list[LabelMap] = []
        for number in numbers:
            image, label_map = read_image(video.images[number]), self._layout.read_mask(video.masks[number])
            if label_map.shape != image.shape[:2]:
                sizes = [f"{size[1]}x{size[0]}" for size in (label_map.shape, image.shape)]
                raise SourceError(f"{video.masks[number]}: mask is {sizes[0]}, its frame {sizes[1]}")
            if images and image.shape != images[0].shape:
                raise SourceError(f"{video.images[number]}: frame size changes within the video")
            images.append(image)
            labels.append(label_map)
        cut = vary(rng, np.stack([crop.apply(image, shape) for image in images]), self._augmentation)
        ids = np.stack([crop.apply(label_map, shape) for label_map in labels])
        numbered = np.where(np.isin(ids, followed), np.searchsorted(followed, ids) + 1, 0).astype(np.uint8)
        rows, columns = shape.height // PATCH, shape.width // PATCH
        places = np.stack([unknown_places(t, rows, columns) for t in range(shape.frames)])
        return Clip(cut, numbered, len(followed), *flows(cut), places)

    def _draw(
        self, rng: np.random.Generator, video: LabelledVideo, shape: SynthesisConfig
    ) -> tuple[list[int], Crop, NDArray[np.int64]]:
        """Draw frames, a crop of them, and the objects in the first one."""
        for _ in range(TRIES):
            numbers = draw_frames(rng, len(video.images), shape.frames, self._augmentation)
            first = self._layout.read_mask(video.masks[numbers[0]])
            crop = draw_crop(rng, first.shape[0], first.shape[1], shape, self._augmentation)
            seen = visible(crop.apply(first, shape))
            if len(seen):
                return numbers, crop, seen
        # Its object is absent most of the time, or at the edge.
        start = self._shows[video.name]
        assert start is not None  # others were left out
        numbers = back_and_forth(start, 1, len(video.images), shape.frames)
        first = self._layout.read_mask(video.masks[start])
        crop = crop_around(first, shape, flip=bool(rng.random() < self._augmentation.flip))
        seen = visible(crop.apply(first, shape), share=0.0)
        if not len(seen):
            raise SourceError(f"{video.masks[start]}: its objects are too thin for clips of {shape.width} px")
        return numbers, crop, seen

    def _first_seen(self, video: LabelledVideo) -> int | None:
        """Find the first frame that shows an object, large enough if there is one; None where all are empty."""
        small = None
        for number, path in enumerate(video.masks):
            try:
                label_map = self._layout.read_mask(path)
            except SourceError:
                return number  # a draw of it raises
            if len(visible(label_map)):
                return number
            if small is None and label_map.any():
                small = number
        return small


def crop_around(label_map: NDArray[np.generic], shape: SynthesisConfig, flip: bool) -> Crop:
    """Place the largest crop of the clip's aspect around a pixel of the largest object."""
    ids, counts = np.unique(label_map[label_map != 0], return_counts=True)
    rows, columns = np.nonzero(label_map == ids[counts.argmax()])
    height, width = label_map.shape
    scale = min(width / shape.width, height / shape.height)
    w, h = min(width, round(scale * shape.width)), min(height, round(scale * shape.height))
    x, y = (int(np.sort(places)[len(places) // 2]) for places in (columns, rows))
    return Crop(min(max(0, x - w // 2), width - w), min(max(0, y - h // 2), height - h), w, h, flip)


def visible(label_map: NDArray[np.generic], share: float = SMALLEST_SHARE) -> NDArray[np.int64]:
    """List the ids that cover more than a share of the map."""
    ids, counts = np.unique(label_map, return_counts=True)
    return np.asarray(ids[(ids != 0) & (counts > share * label_map.size)], dtype=np.int64)
