"""Write bags that appear whole or not at all."""

import contextlib
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from sam2lite_core.errors import ConfigurationError, SourceError
from sam2lite_core.files import partial_name
from sam2lite_core.media.bags.store import COMPRESSED_TYPE, RAW_TYPE, STORAGE_FILES, message_types
from sam2lite_core.media.source import FrameSource

if TYPE_CHECKING:
    from rosbags.interfaces import Connection
    from rosbags.rosbag2 import Writer

STORAGES = tuple(STORAGE_FILES.values())

BAG_VERSION: Literal[8] = 8
"""Layout of the metadata: the newest that Humble reads as well."""

FRAME_ID = "camera"

JPEG_QUALITY = 95


class BagWriter:
    """Adds messages to an open bag; made by `new_bag`."""

    def __init__(self, writer: "Writer") -> None:
        self._writer = writer
        self._connections: dict[str, Connection] = {}

    def add(self, topic: str, kind: str, message: Any, recorded_ns: int) -> None:
        """Write a message made of `message_types().types[kind]`, with its time of recording in nanoseconds."""
        types = message_types()
        if topic not in self._connections:
            self._connections[topic] = self._writer.add_connection(topic, kind, typestore=types)
        self._writer.write(self._connections[topic], recorded_ns, types.serialize_cdr(message, kind))


def check_new_bag(path: str | Path, storage: str) -> None:
    """Raise before long work starts if `new_bag` may not write here; see its errors."""
    if storage not in STORAGES:
        raise ConfigurationError(f"unknown storage {storage!r}; choose one of {', '.join(STORAGES)}")
    if Path(path).exists():
        raise SourceError(f"{path}: exists already, not overwriting; name a new bag")
    message_types()


@contextlib.contextmanager
def new_bag(path: str | Path, storage: str = "sqlite3") -> Iterator[BagWriter]:
    """Write a bag of sqlite3 or mcap, which takes its place when the block ends, and vanishes when the block fails.

    Raises:
        SourceError: something is there already, or the place cannot be written.
        ConfigurationError: an unknown storage, or `rosbags` is not installed.
    """
    check_new_bag(path, storage)
    from rosbags.rosbag2 import StoragePlugin, Writer

    path = Path(path).absolute()
    # The bag's files are named after its folder, so it gets its name inside a temporary folder.
    partial = partial_name(path)
    try:
        writer = Writer(partial / path.name, version=BAG_VERSION, storage_plugin=StoragePlugin[storage.upper()])
        with writer:
            yield BagWriter(writer)
        (partial / path.name).rename(path)
    except OSError as error:
        raise SourceError(f"{path}: cannot be written: {error.strerror or error}") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def make_bag(
    frames: FrameSource,
    path: str | Path,
    *,
    topic: str = "/camera/image_raw",
    compressed: bool = False,
    storage: str = "sqlite3",
    start_ns: int | None = None,
    on_frame: Callable[[], None] | None = None,
) -> int:
    """Write the frames of a source as a bag.

    Args:
        frames: an open source with an end.
        path: the bag's folder, which must not exist.
        topic: of raw images; compressed ones get `/compressed` added, as image_transport names them.
        compressed: JPEG of quality 95 instead of raw bgr8.
        storage: sqlite3 or mcap.
        start_ns: stamp of the first frame, nanoseconds; now by default.
        on_frame: called after every frame.

    Returns:
        The number of frames.

    Raises:
        SourceError: the source cannot be read, something is at `path` already, or it cannot be written.
        ConfigurationError: an unknown storage, a topic that is no name in ROS, or `rosbags` is not installed.
    """
    name = check_topic(topic) + ("/compressed" if compressed else "")
    kind = COMPRESSED_TYPE if compressed else RAW_TYPE
    start = time.time_ns() if start_ns is None else start_ns
    make = jpeg_message if compressed else image_message
    count = 0
    with new_bag(path, storage) as bag:
        for frame in frames:
            stamp = start + round(frame.stamp * 1e9)
            bag.add(name, kind, make(frame.image, stamp), stamp)
            count += 1
            if on_frame is not None:
                on_frame()
    return count


def check_topic(name: str) -> str:
    """Return a topic's full name; raise ConfigurationError if ROS would not take it."""
    parts = name.split("/")
    if parts[0] or len(parts) < 2 or not all(part.isascii() and part.isidentifier() for part in parts[1:]):
        raise ConfigurationError(f"topic {name!r} is not a full name such as /camera/image_raw")
    return name


def header(stamp_ns: int, frame_id: str = FRAME_ID) -> Any:
    """Make a std_msgs/Header."""
    types = message_types().types
    seconds, rest = divmod(stamp_ns, 1_000_000_000)
    stamp = types["builtin_interfaces/msg/Time"](sec=seconds, nanosec=rest)
    return types["std_msgs/msg/Header"](stamp=stamp, frame_id=frame_id)


def image_message(image: NDArray[np.uint8], stamp_ns: int) -> Any:
    """Make a sensor_msgs/Image, bgr8, of an (H, W, 3) uint8 RGB frame."""
    return packed_message(np.ascontiguousarray(image[..., ::-1]), "bgr8", stamp_ns)


def packed_message(pixels: NDArray[Any], encoding: str, stamp_ns: int, frame_id: str = FRAME_ID) -> Any:
    """Make a sensor_msgs/Image of a contiguous, little-endian (H, W) or (H, W, channels) array, with ROS's encoding."""
    height, width = pixels.shape[:2]
    data = pixels.view(np.uint8).reshape(-1)
    return message_types().types[RAW_TYPE](
        header=header(stamp_ns, frame_id),
        height=height,
        width=width,
        encoding=encoding,
        is_bigendian=0,
        step=data.size // height,
        data=data,
    )


def jpeg_message(image: NDArray[np.uint8], stamp_ns: int) -> Any:
    """Make a sensor_msgs/CompressedImage, JPEG, of an (H, W, 3) uint8 RGB frame."""
    bgr = cv2.cvtColor(image, cv2.COLOR_RGB2BGR)
    _, data = cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
    return message_types().types[COMPRESSED_TYPE](
        header=header(stamp_ns), format="bgr8; jpeg compressed bgr8", data=np.asarray(data, np.uint8).reshape(-1)
    )
