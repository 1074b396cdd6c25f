"""Frame sources beyond those of `sam2lite_core.media.open`: the rendered clip."""

from collections.abc import Iterator
from functools import cache
from pathlib import Path

from sam2lite_core.media.source import FrameSource
from sam2lite_core.scenes.clip import RenderedClip, render_clip
from sam2lite_core.types import Frame


def is_camera(source: str) -> bool:
    """Return True for a camera index: a number that is not the name of a file or folder."""
    return source.isdecimal() and not Path(source).exists()


@cache
def rendered_clip() -> RenderedClip:
    """Render the clip that plays when there is no source: always the same, 60 MB, not to be changed."""
    return render_clip()


class RenderedSource(FrameSource):
    """The rendered clip as a source of frames, named by their index."""

    def __init__(self, limit: int | None = None) -> None:
        clip = rendered_clip()
        self._frames = clip.frames[:limit]
        self.fps, self.length, self.size = clip.fps, len(self._frames), clip.frames.shape[1:3]

    def __iter__(self) -> Iterator[Frame]:
        """Yield the frames."""
        for index, image in enumerate(self._frames):
            yield Frame(image, index / rendered_clip().fps, index, f"{index:05d}")
