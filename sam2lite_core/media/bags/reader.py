"""Read frames from a rosbag2 recording, in sqlite3 or mcap, from a topic of raw or compressed images."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from sam2lite_core.errors import InvalidFrameError, SourceError
from sam2lite_core.media.bags.store import (
    COMPRESSED_TYPE,
    METADATA_FILE,
    RAW_TYPE,
    ROS1_SUFFIX,
    bag_errors,
    message_types,
)
from sam2lite_core.media.image_messages import compressed_to_rgb, raw_to_rgb
from sam2lite_core.media.source import FrameSource
from sam2lite_core.types import Frame

if TYPE_CHECKING:
    from rosbags.rosbag2 import Reader


@dataclass(frozen=True)
class ImageTopic:
    """A topic of Image or CompressedImage, and its number of messages as the bag says."""

    name: str
    compressed: bool
    messages: int

    def __str__(self) -> str:
        kind = "compressed" if self.compressed else "raw"
        return f"{self.name} ({kind}, {self.messages} messages)"


class BagFrames(FrameSource):
    """Images of one topic, in the order in which they were recorded.

    Opening reads the whole bag without decoding a picture, so that a bag that is cut short is refused at once.

    Attributes:
        topic: the source of the frames.
        recorded_ns: time of recording of each message, nanoseconds.
        stamps_ns: the stamp in each image's header, nanoseconds; it may fall, repeat, or be zero.
        stamps_back: number of headers with an earlier stamp than the one before.
        frame_id: that of the first image's header.
        recorded: number of images in the topic, regardless of a limit.
    """

    def __init__(
        self, path: str | Path, topic: str | None = None, fps: float | None = None, limit: int | None = None
    ) -> None:
        """Open a bag's folder, or a single .db3 or .mcap file; arguments as for `open_source`.

        Raises:
            SourceError: there is no bag, it is damaged, the topic is not in it, no topic holds images, several do and
                none was chosen, or the first image cannot be decoded.
            ConfigurationError: `rosbags` is not installed.
        """
        self._path, self._limit = Path(path), limit
        self._reader = _open(self._path)
        try:
            with bag_errors(self._path):
                self.topic = _choose(self._path, self._reader, topic)
                self.recorded = self.topic.messages
                self.frame_id = ""
                kind = COMPRESSED_TYPE if self.topic.compressed else RAW_TYPE
                of_topic = [entry for entry in self._reader.connections if entry.topic == self.topic.name]
                self._connections = [entry for entry in of_topic if entry.msgtype == kind]
                self.recorded_ns, self.stamps_ns = self._times()
            self.stamps_back = sum(later < earlier for earlier, later in pairwise(self.stamps_ns))
            self.length = len(self.recorded_ns)
            span = self.recorded_ns[-1] - self.recorded_ns[0]
            self._fps = fps
            self.fps = fps or ((self.length - 1) * 1e9 / span if span > 0 else None)
            height, width, _ = next(iter(self)).image.shape
            self.size = height, width
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> "BagFrames":
        """Return the bag itself; opening happened before."""
        return self

    def close(self) -> None:
        """Release the bag's files."""
        if self._reader.is_open:
            self._reader.close()

    def __iter__(self) -> Iterator[Frame]:
        """Yield the frames, named 00000, 00001 …; raise SourceError for an image that cannot be decoded."""
        for index, (recorded, message) in enumerate(self._messages()):
            image = self._decode(message, index)
            since = index / self._fps if self._fps else (recorded - self.recorded_ns[0]) / 1e9
            yield Frame(image, since, index, f"{index:05d}")

    def _messages(self) -> Iterator[tuple[int, Any]]:
        """Yield time of recording and message, from the first to the limit."""
        messages = self._reader.messages(self._connections)
        index = 0
        while index != self._limit:
            with bag_errors(self._path):
                found = next(messages, None)
                if found is None:
                    return
                connection, recorded, data = found
                message = message_types().deserialize_cdr(data, connection.msgtype)
            yield recorded, message
            index += 1

    def _times(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Read times of recording and header stamps, nanoseconds."""
        recorded: list[int] = []
        stamps: list[int] = []
        for time, message in self._messages():
            self.frame_id = self.frame_id if recorded else str(message.header.frame_id)
            recorded.append(time)
            stamps.append(message.header.stamp.sec * 1_000_000_000 + message.header.stamp.nanosec)
        promised = self.topic.messages if self._limit is None else min(self._limit, self.topic.messages)
        if len(recorded) < promised:
            raise SourceError(
                f"{self._path}: {self.topic.name} ends after {len(recorded)} of {promised} messages; "
                "the bag is cut short or damaged"
            )
        if not recorded:
            raise SourceError(f"{self._path}: {self.topic.name} holds no message")
        return tuple(recorded), tuple(stamps)

    def _decode(self, message: Any, index: int) -> NDArray[np.uint8]:
        try:
            return compressed_to_rgb(message) if self.topic.compressed else raw_to_rgb(message)
        except InvalidFrameError as error:
            raise SourceError(f"{self._path}: image {index} of {self.topic.name}: {error}") from None


def _open(path: Path) -> "Reader":
    """Open a reader; raise SourceError where there is no whole bag."""
    message_types()
    from rosbags.rosbag2 import Reader

    if not path.exists():
        raise SourceError(f"{path}: no such bag")
    if path.suffix == ROS1_SUFFIX and path.is_file():
        raise SourceError(f"{path}: a bag of ROS 1; rosbags-convert makes a rosbag2 of it")
    if path.is_dir() and not (path / METADATA_FILE).is_file():
        raise SourceError(
            f"{path}: no bag: it holds no {METADATA_FILE}; `ros2 bag reindex` makes it anew where a recorder was "
            "stopped hard"
        )
    with bag_errors(path):
        reader = Reader(path)
        reader.open()
        return reader


def _choose(path: Path, reader: "Reader", wanted: str | None) -> ImageTopic:
    """Choose the topic to read; raise SourceError with the topics there are if it is missing or ambiguous."""
    counts: dict[tuple[str, str], int] = {}
    for connection in reader.connections:
        if connection.msgtype in (RAW_TYPE, COMPRESSED_TYPE):
            key = connection.topic, connection.msgtype
            counts[key] = counts.get(key, 0) + connection.msgcount
    topics = [ImageTopic(name, kind == COMPRESSED_TYPE, n) for (name, kind), n in sorted(counts.items())]
    listed = ", ".join(map(str, topics))
    if not topics:
        others = sorted({f"{connection.topic} ({connection.msgtype})" for connection in reader.connections})
        raise SourceError(
            f"{path}: no topic of this bag holds images ({RAW_TYPE} or {COMPRESSED_TYPE}); "
            + (f"there are: {', '.join(others)}" if others else "it has no topic at all")
        )
    if wanted is not None:
        found = [topic for topic in topics if topic.name == wanted]
        if not found:
            raise SourceError(f"{path}: no images on topic {wanted!r}; there are: {listed}")
        return found[0]
    filled = [topic for topic in topics if topic.messages]
    if not filled:
        raise SourceError(f"{path}: its topics of images are empty: {listed}")
    if len(filled) > 1:
        raise SourceError(f"{path}: several topics hold images, choose one: {listed}")
    return filled[0]
