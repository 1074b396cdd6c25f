"""What the player and the demo read frames from, beyond what `sam2lite_core.video` opens."""

from collections.abc import Iterator
from functools import cache
from pathlib import Path
from types import TracebackType

from sam2lite_core.media.source import NOMINAL_FPS
from sam2lite_core.scenes.clip import RenderedClip, render_clip
from sam2lite_core.types import Frame

__all__ = ["NOMINAL_FPS", "RenderedSource", "is_camera", "rendered_clip"]


def is_camera(source: str) -> bool:
    """Say whether a source is a camera index: a number that is not the name of a file or folder."""
    return source.isdecimal() and not Path(source).exists()


@cache
def rendered_clip() -> RenderedClip:
    """Render the clip that plays when there is no source: always the same one, 60 MB of it; not to be changed."""
    return render_clip()


class RenderedSource:
    """The rendered clip as a source of frames, named by their index.

    Attributes:
        fps: frames per second.
        length: number of frames.
        size: (height, width), pixels.
    """

    def __init__(self, limit: int | None = None) -> None:
        self._clip = rendered_clip()
        self.fps: float | None = self._clip.fps
        self.length: int | None = len(self._clip.frames[:limit])
        self.size = (self._clip.frames.shape[1], self._clip.frames.shape[2])

    def __enter__(self) -> "RenderedSource":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        return None

    def __iter__(self) -> Iterator[Frame]:
        for index in range(self.length or 0):
            yield Frame(self._clip.frames[index], index / (self.fps or NOMINAL_FPS), index, f"{index:05d}")
