"""Define the abstract source of frames."""

from abc import abstractmethod
from collections.abc import Iterator
from contextlib import AbstractContextManager
from types import TracebackType

from sam2lite_core.types import Frame

NOMINAL_FPS = 30.0
"""Frames per second to stamp with where a source does not know its own."""


class FrameSource(AbstractContextManager["FrameSource"]):
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

    def close(self) -> None:
        """Release the file or device."""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Release the file or device."""
        self.close()
