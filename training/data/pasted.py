"""Paste cut-outs over unlabelled videos: real camera motion with known masks."""

from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from sam2lite_core.errors import SourceError
from sam2lite_core.media.pictures import list_images, read_image
from training.config.data import Augmentation
from training.data.clip import Clip, SynthesisConfig
from training.data.filmed import draw_crop, draw_frames, vary
from training.data.synthesis.compose import render_clip
from training.data.synthesis.stills import Stills

VIDEO_SUFFIXES = (".avi", ".m4v", ".mkv", ".mov", ".mp4", ".webm")


class VideoFile:
    """A video file with random access; raises SourceError where it cannot be read."""

    def __init__(self, path: Path) -> None:
        self.path = path
        capture = cv2.VideoCapture(str(path))
        self.length = int(capture.get(cv2.CAP_PROP_FRAME_COUNT)) if capture.isOpened() else 0
        capture.release()
        if self.length < 2:
            raise SourceError(f"{path}: not a readable video of at least two frames")

    def read(self, numbers: list[int]) -> list[NDArray[np.uint8]]:
        """Read frames (H, W, 3) uint8 RGB by number."""
        capture = cv2.VideoCapture(str(self.path))
        try:
            found: dict[int, NDArray[np.uint8]] = {}
            capture.set(cv2.CAP_PROP_POS_FRAMES, min(numbers))
            for number in range(min(numbers), max(numbers) + 1):
                read, frame = capture.read()
                if not read:
                    raise SourceError(f"{self.path}: ends at frame {number} of {self.length}")
                if number in numbers:
                    found[number] = np.asarray(cv2.cvtColor(frame, cv2.COLOR_BGR2RGB), np.uint8)
        finally:
            capture.release()
        return [found[number] for number in numbers]


class FrameFolder:
    """A video as a folder of images; raises SourceError where it cannot be read."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._images = list_images(path)
        self.length = len(self._images)
        if self.length < 2:
            raise SourceError(f"{path}: {self.length} images; a clip needs at least two")

    def read(self, numbers: list[int]) -> list[NDArray[np.uint8]]:
        """Read frames (H, W, 3) uint8 RGB by number."""
        return [read_image(self._images[number]) for number in numbers]


Video = VideoFile | FrameFolder


def open_videos(root: Path, limit: int | None = None) -> list[Video]:
    """Open the first `limit` videos of a folder, by name: video files, or folders of images.

    Raises:
        SourceError: the folder is missing, holds no video, or one of them cannot be opened.
    """
    if not root.is_dir():
        raise SourceError(f"{root}: no such folder; clips are video files, or folders of images, in it")
    entries = sorted(path for path in root.iterdir() if not path.name.startswith("."))
    videos = [path for path in entries if path.is_dir() or path.suffix.lower() in VIDEO_SUFFIXES][:limit]
    if not videos:
        raise SourceError(f"{root}: no video in this folder; expected {', '.join(VIDEO_SUFFIXES)}")
    return [FrameFolder(path) if path.is_dir() else VideoFile(path) for path in videos]


class PastedClips:
    """Random clips of unlabelled videos with cut-outs of stills over them."""

    def __init__(self, root: Path, stills: Stills, augmentation: Augmentation, limit: int | None) -> None:
        """Find the videos.

        Raises:
            SourceError: the folder is missing, holds no video, or one of them cannot be opened.
        """
        self.videos = open_videos(root, limit)
        self.stills, self.skipped = stills, stills.skipped
        self._augmentation = augmentation

    def clip(self, rng: np.random.Generator, shape: SynthesisConfig) -> Clip:
        """Draw frames and paste objects over them; raises SourceError where a file cannot be read."""
        video = self.videos[int(rng.integers(len(self.videos)))]
        frames = video.read(draw_frames(rng, video.length, shape.frames, self._augmentation))
        crop = draw_crop(rng, frames[0].shape[0], frames[0].shape[1], shape, self._augmentation)
        images = np.stack([crop.apply(frame, shape) for frame in frames])
        return render_clip(rng, self.stills, shape, vary(rng, images, self._augmentation))
