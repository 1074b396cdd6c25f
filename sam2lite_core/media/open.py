"""Open a source of frames by its path or number."""

from pathlib import Path

from sam2lite_core.errors import SourceError
from sam2lite_core.media.bags.store import is_bag
from sam2lite_core.media.readers import CameraFrames, FolderFrames, VideoFrames
from sam2lite_core.media.source import FrameSource


def open_source(
    source: str | Path | int, *, fps: float | None = None, limit: int | None = None, topic: str | None = None
) -> FrameSource:
    """Open a folder of images, a video file, a bag or a camera.

    Args:
        source: a folder's or file's path, or a camera index (`0` or `"0"`) where no such path exists.
        fps: frames per second to stamp with, in place of the source's own.
        limit: stop after that many frames.
        topic: of the images in a bag; None takes the only topic that holds some.

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
        from sam2lite_core.media.bags.reader import BagFrames

        return BagFrames(path, topic, fps, limit)
    if topic is not None:
        raise SourceError(f"{source}: no bag, so it has no topic {topic!r}; leave the topic out")
    if path.is_dir():
        return FolderFrames(path, fps, limit)
    if path.is_file():
        return VideoFrames(path, fps, limit)
    if str(source).isdecimal():
        return CameraFrames(int(str(source)), fps, limit)
    raise SourceError(f"{source}: no such folder, video file, bag or camera index")
