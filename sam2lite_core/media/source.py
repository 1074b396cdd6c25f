"""Abstract source of frames."""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from types import TracebackType

from sam2lite_core.types import Frame

NOMINAL_FPS = 30.0
"""Frames per second to stamp with where a source does not know its own."""


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
