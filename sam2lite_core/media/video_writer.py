"""Write video files."""

from contextlib import AbstractContextManager, suppress
from pathlib import Path
from types import TracebackType

import cv2
import numpy as np
from numpy.typing import NDArray

from sam2lite_core.errors import SourceError
from sam2lite_core.files import partial_name
from sam2lite_core.media.overlay import fit_image
from sam2lite_core.media.source import NOMINAL_FPS


class VideoWriter(AbstractContextManager["VideoWriter"]):
    """Writes an MP4 file, as a context manager; the file appears once the block ends without an error.

    MPEG-4 part 2 is the codec that every OpenCV wheel can encode. It drops the last row or column of odd sizes.
    """

    def __init__(self, path: str | Path, fps: float | None = None) -> None:
        """Prepare the file; the first frame's size becomes the video's.

        Args:
            path: the `.mp4` file to write.
            fps: frames per second; 30 when None.

        Raises:
            SourceError: another suffix, or a folder that does not exist; at the end of the block, that no frame was
                written or the file cannot be.
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
        """Append an (H, W, 3) uint8 RGB frame, fitted into the first one's size; raise SourceError if it cannot be."""
        if self._writer is None:
            self._size = image.shape[0], image.shape[1]
            fourcc = cv2.VideoWriter.fourcc(*"mp4v")
            self._writer = cv2.VideoWriter(str(self._partial), fourcc, self._fps, self._size[::-1])
            if not self._writer.isOpened():
                raise SourceError(f"{self._path}: no MP4 video of {self._size[1]}x{self._size[0]} can be written here")
        self._writer.write(cv2.cvtColor(fit_image(image, *self._size), cv2.COLOR_RGB2BGR))

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Finish the file and give it its name, or drop it when the block failed."""
        if self._writer is not None:
            self._writer.release()
        if kind is not None:
            with suppress(OSError):
                self._partial.unlink()
            return
        if self._writer is None:
            raise SourceError(f"{self._path}: no frame was written")
        try:
            self._partial.replace(self._path)
        except OSError as failure:
            raise SourceError(f"{self._path}: cannot be written: {failure.strerror}") from None
