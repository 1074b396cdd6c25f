"""Where frames come from: folders of images, video files, bags, cameras."""

import re
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from sam2lite_core.bags.store import is_bag
from sam2lite_core.errors import SourceError
from sam2lite_core.types import Frame

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png")

NOMINAL_FPS = 30.0
"""Rate at which frames are stamped where a source does not know its own."""

_TRUNCATION_SHARE = 0.05


class FrameSource(ABC):
    """Frames of one source, in order; a context manager, iterable once.

    Attributes:
        fps: frames per second, None when unknown.
        length: number of frames, None for cameras and files that do not say.
        size: (height, width) of the first frame, pixels; later frames may differ.
    """

    fps: float | None
    length: int | None
    size: tuple[int, int]

    @abstractmethod
    def __iter__(self) -> Iterator[Frame]:
        """Yield the frames."""

    def close(self) -> None:  # noqa: B027 - folders hold nothing open
        """Release the file or device."""

    def __enter__(self) -> "FrameSource":
        """Return the source itself; opening happened before."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Release the file or device."""
        self.close()


def open_source(
    source: str | Path | int,
    *,
    fps: float | None = None,
    limit: int | None = None,
    topic: str | None = None,
) -> FrameSource:
    """Open a folder of images, a video file, a bag or a camera.

    Args:
        source: a folder's or file's path, or a camera index (`0` or `"0"`); a path that exists wins over an
            index.
        fps: frames per second to stamp with, in place of the source's own.
        limit: stop after that many frames.
        topic: which images of a bag; None takes the only topic that holds some.

    Raises:
        SourceError: nothing there, nothing readable in it, `fps` or `limit` not positive, or a topic for what is no
            bag. While iterating: an image that cannot be decoded, a video that ends early, a camera that stops.
        ConfigurationError: a bag, and `rosbags` is not installed.
    """
    if fps is not None and not fps > 0:
        raise SourceError(f"{source}: fps {fps} is not positive")
    if limit is not None and limit < 1:
        raise SourceError(f"{source}: limit {limit} is not positive")
    path = Path(str(source))
    if is_bag(path):
        # Robots that read no bags need not have the library.
        from sam2lite_core.bags.reader import BagFrames

        return BagFrames(path, topic, fps, limit)
    if topic is not None:
        raise SourceError(f"{source}: no bag, so it has no topic {topic!r}; leave the topic out")
    if path.is_dir():
        return _Folder(path, fps, limit)
    if path.is_file():
        return _Video(path, fps, limit)
    if str(source).isdecimal():
        return _Camera(int(str(source)), fps, limit)
    raise SourceError(f"{source}: no such folder, video file, bag or camera index")


def list_images(folder: Path) -> list[Path]:
    """The images of a folder in natural order (`2.jpg` before `10.jpg`); hidden files are left out."""
    images = (entry for entry in folder.iterdir() if entry.suffix.lower() in IMAGE_SUFFIXES)
    return sorted(
        (entry for entry in images if not entry.name.startswith(".")),
        key=lambda entry: natural_key(entry.name),
    )


def read_image(path: str | Path) -> NDArray[np.uint8]:
    """Read a JPEG or PNG picture, turned upright as its EXIF entry says.

    Returns:
        (H, W, 3) uint8 RGB.

    Raises:
        SourceError: the file is missing, cut short or no picture.
    """
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise SourceError(f"{path}: cannot be read: {error.strerror}") from None
    # Older OpenCV fills the missing part of a cut JPEG with grey instead of failing.
    cut = data.startswith(b"\xff\xd8") and data.rfind(b"\xff\xd9") < data.rfind(b"\xff\xda")
    decoded = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR) if data and not cut else None
    if decoded is None:
        raise SourceError(f"{path}: not a readable image; it is empty, cut short or of another format")
    return _to_rgb(decoded)


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


def natural_key(name: str) -> tuple[tuple[int, str], ...]:
    """Sort key that orders numbers inside names by their value."""
    return tuple((int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d+)", name))


def _to_rgb(bgr: NDArray[Any]) -> NDArray[np.uint8]:
    """OpenCV's (H, W, 3) BGR as RGB."""
    rgb: NDArray[np.uint8] = cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB).astype(np.uint8, copy=False)
    return rgb
