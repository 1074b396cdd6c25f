"""Write video files."""

import contextlib
from pathlib import Path
from types import TracebackType

import cv2
import numpy as np
from numpy.typing import NDArray

from sam2lite_core.errors import SourceError
from sam2lite_core.files import partial_name
from sam2lite_core.media.overlay import fit_image
from sam2lite_core.media.source import NOMINAL_FPS


class VideoWriter:
    """Writes an MP4 file; it appears under its name only once it is complete.

    MPEG-4 part 2 is the codec that every OpenCV wheel can encode. It drops the last row or column of odd sizes.
    """

    def __init__(self, path: str | Path, fps: float | None = None) -> None:
        """Prepare the file; it is opened with the first frame, whose size becomes the video's.

        Args:
            path: the `.mp4` file to write.
            fps: frames per second; 30 when None.

        Raises:
            SourceError: another suffix, or a folder that does not exist.
        """
        self._path = Path(path)
        if self._path.suffix.lower() != ".mp4":
            raise SourceError(f"{path}: videos are written as .mp4")
        if not self._path.parent.is_dir():
            raise SourceError(f"{path}: the folder {self._path.parent} does not exist")
        self._fps = fps or NOMINAL_FPS
        self._partial = partial_name(self._path)
        self._size = (0, 0)
        self._writer: cv2.VideoWriter | None = None

    def write(self, image: NDArray[np.uint8]) -> None:
        """Append a frame; one of another size is fitted into the first one's, proportions kept.

        Args:
            image: (H, W, 3) uint8 RGB.

        Raises:
            SourceError: the encoder does not open.
        """
        if self._writer is None:
            self._size = image.shape[0], image.shape[1]
            fourcc = cv2.VideoWriter.fourcc(*"mp4v")
            self._writer = cv2.VideoWriter(str(self._partial), fourcc, self._fps, self._size[::-1])
            if not self._writer.isOpened():
                self.discard()
                raise SourceError(f"{self._path}: no MP4 video of {self._size[1]}x{self._size[0]} can be written here")
        self._writer.write(cv2.cvtColor(fit_image(image, *self._size), cv2.COLOR_RGB2BGR))

    def close(self) -> None:
        """Finish the file and give it its name.

        Raises:
            SourceError: no frame was written, or the file could not be finished.
        """
        if self._writer is None:
            raise SourceError(f"{self._path}: no frame was written")
        self._writer.release()
        self._writer = None
        try:
            self._partial.replace(self._path)
        except OSError as error:
            raise SourceError(f"{self._path}: cannot be written: {error.strerror}") from None

    def discard(self) -> None:
        """Drop what was written so far."""
        if self._writer is not None:
            self._writer.release()
            self._writer = None
        with contextlib.suppress(OSError):
            self._partial.unlink()

    def __enter__(self) -> "VideoWriter":
        """Return the writer."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Finish the file, or drop it when the block failed."""
        if kind is None:
            self.close()
        else:
            self.discard()
