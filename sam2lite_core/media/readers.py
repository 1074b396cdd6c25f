"""Where frames come from: folders of images, video files, bags, cameras."""

import time
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from sam2lite_core.errors import SourceError
from sam2lite_core.media.pictures import IMAGE_SUFFIXES, _to_rgb, list_images, read_image
from sam2lite_core.media.source import NOMINAL_FPS, FrameSource
from sam2lite_core.types import Frame

_TRUNCATION_SHARE = 0.05


class _Folder(FrameSource):
    """Images of a folder."""

    def __init__(self, path: Path, fps: float | None, limit: int | None) -> None:
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


class _Video(FrameSource):
    """Frames of a video file."""

    def __init__(self, path: Path, fps: float | None, limit: int | None) -> None:
        if path.suffix.lower() in IMAGE_SUFFIXES:
            raise SourceError(f"{path}: a single image; give the folder that holds the frames")
        self._path, self._limit = path, limit
        self._capture = cv2.VideoCapture(str(path))
        read, first = self._capture.read() if self._capture.isOpened() else (False, None)
        if not read or first is None:
            self._capture.release()
            raise SourceError(
                f"{path}: not a video that can be opened; it is damaged, empty or of an unknown codec"
            )
        self._first = _to_rgb(first)
        self.size = self._first.shape[0], self._first.shape[1]
        reported = self._capture.get(cv2.CAP_PROP_FPS)
        self.fps = fps or (reported if reported > 0 else None)
        count = int(self._capture.get(cv2.CAP_PROP_FRAME_COUNT))
        self._promised = count if count > 0 else None
        self.length = (
            self._promised if limit is None or self._promised is None else min(limit, self._promised)
        )

    def close(self) -> None:
        self._capture.release()

    def __iter__(self) -> Iterator[Frame]:
        image: NDArray[np.uint8] | None = self._first
        index = 0
        while image is not None and index != self._limit:
            yield Frame(image, index / (self.fps or NOMINAL_FPS), index, f"{index:05d}")
            index += 1
            if index != self._limit:
                read, bgr = self._capture.read()
                image = _to_rgb(bgr) if read else None
        if image is None:
            self._check_end(index)

    def _check_end(self, frames: int) -> None:
        """Refuse a file that was cut; a header that is off by a frame or two, as many are, is let pass."""
        promised = self._promised or 0
        if promised - frames > max(2, _TRUNCATION_SHARE * promised):
            raise SourceError(
                f"{self._path}: ends after {frames} of {promised} frames; the file is cut short or damaged"
            )


class _Camera(FrameSource):
    """Frames of a camera, stamped when they arrive."""

    def __init__(self, index: int, fps: float | None, limit: int | None) -> None:
        self._index, self._limit = index, limit
        self._capture = cv2.VideoCapture(index)
        read, first = self._capture.read() if self._capture.isOpened() else (False, None)
        if not read or first is None:
            self._capture.release()
            raise SourceError(f"camera {index}: not there, in use, or not permitted")
        self.size = first.shape[0], first.shape[1]
        reported = self._capture.get(cv2.CAP_PROP_FPS)
        self.fps = fps or (reported if reported > 0 else None)
        self.length = limit

    def close(self) -> None:
        self._capture.release()

    def __iter__(self) -> Iterator[Frame]:
        started, index = time.monotonic(), 0
        while index != self._limit:
            read, bgr = self._capture.read()
            if not read:
                raise SourceError(f"camera {self._index}: stopped delivering after {index} frames")
            yield Frame(_to_rgb(bgr), time.monotonic() - started, index, f"{index:05d}")
            index += 1
