"""Read frames from folders of images, video files and cameras."""

import time
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from sam2lite_core.errors import SourceError
from sam2lite_core.media.pictures import IMAGE_SUFFIXES, list_images, read_image, to_rgb
from sam2lite_core.media.source import NOMINAL_FPS, FrameSource
from sam2lite_core.types import Frame


class FolderFrames(FrameSource):
    """Images of a folder."""

    def __init__(self, path: Path, fps: float | None, limit: int | None) -> None:
        """Open a folder; see `open_source`."""
        self._paths = list_images(path)[:limit]
        if not self._paths:
            raise SourceError(f"{path}: no image in this folder; expected {', '.join(IMAGE_SUFFIXES)}")
        self.fps, self.length = fps, len(self._paths)
        self._first = read_image(self._paths[0])
        self.size = self._first.shape[0], self._first.shape[1]

    def __iter__(self) -> Iterator[Frame]:
        for index, path in enumerate(self._paths):
            image = self._first if index == 0 else read_image(path)
            yield Frame(image, index / (self.fps or NOMINAL_FPS), index, path.stem)


class _Capture(FrameSource):
    """Frames of OpenCV's `VideoCapture`; the first is read at once."""

    def __init__(self, source: str | int, fps: float | None, refusal: str) -> None:
        self._capture = cv2.VideoCapture(source)
        first = self._read() if self._capture.isOpened() else None
        if first is None:
            self._capture.release()
            raise SourceError(refusal)
        self._first = first
        self.size = first.shape[0], first.shape[1]
        reported = self._capture.get(cv2.CAP_PROP_FPS)
        self.fps = fps or (reported if reported > 0 else None)

    def _read(self) -> NDArray[np.uint8] | None:
        read, bgr = self._capture.read()
        return to_rgb(bgr) if read and bgr is not None else None

    def close(self) -> None:
        self._capture.release()


class VideoFrames(_Capture):
    """Frames of a video file."""

    def __init__(self, path: Path, fps: float | None, limit: int | None) -> None:
        """Open a file; see `open_source`."""
        if path.suffix.lower() in IMAGE_SUFFIXES:
            raise SourceError(f"{path}: a single image; give the folder that holds the frames")
        self._path, self._limit = path, limit
        refusal = f"{path}: not a video that can be opened; it is damaged, empty or of an unknown codec"
        super().__init__(str(path), fps, refusal)
        self._promised = max(0, int(self._capture.get(cv2.CAP_PROP_FRAME_COUNT)))
        counts = [count for count in (self._promised, limit) if count]
        self.length = min(counts) if self._promised else None

    def __iter__(self) -> Iterator[Frame]:
        image: NDArray[np.uint8] | None = self._first
        index = 0
        while image is not None and index != self._limit:
            yield Frame(image, index / (self.fps or NOMINAL_FPS), index, f"{index:05d}")
            index += 1
            if index != self._limit:
                image = self._read()
        # Many headers are off by a frame or two.
        if image is None and self._promised - index > max(2, 0.05 * self._promised):
            raise SourceError(
                f"{self._path}: ends after {index} of {self._promised} frames; the file is cut short or damaged"
            )


class CameraFrames(_Capture):
    """Frames of a camera, stamped when they arrive."""

    def __init__(self, index: int, fps: float | None, limit: int | None) -> None:
        """Open a camera; see `open_source`."""
        super().__init__(index, fps, f"camera {index}: not there, in use, or not permitted")
        self._index, self.length = index, limit

    def __iter__(self) -> Iterator[Frame]:
        started, index = time.monotonic(), 0
        while index != self.length:
            image = self._read()
            if image is None:
                raise SourceError(f"camera {self._index}: stopped delivering after {index} frames")
            yield Frame(image, time.monotonic() - started, index, f"{index:05d}")
            index += 1
