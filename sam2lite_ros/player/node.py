"""Node `player`: publish a folder, a video, a bag, a camera or the rendered clip as `image`."""

import contextlib
import json
import sys
import threading
import time
from collections import deque
from collections.abc import Generator, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TextIO

import cv2
import rclpy
from rcl_interfaces.msg import ParameterDescriptor
from rclpy.duration import Duration
from rclpy.exceptions import InvalidParameterTypeException
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.node import Node
from rclpy.qos import HistoryPolicy, QoSProfile, ReliabilityPolicy
from rclpy.time import Time
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import Image

from sam2lite_core.errors import ConfigurationError, Sam2LiteError
from sam2lite_core.media.open import open_source
from sam2lite_core.media.source import NOMINAL_FPS
from sam2lite_core.types import Frame
from sam2lite_ros.conversions import rgb_to_image
from sam2lite_ros.player.sources import RenderedSource, is_camera
from sam2lite_ros.spinning import spin_until_shutdown

FRAMES_AHEAD = 8
"""Frames decoded before they are due, so that a slow JPEG does not delay its frame."""

HISTORY_DEPTH = 60
"""Frames kept for a reliable subscriber that is behind: two seconds at 30 Hz."""

LINGER_S = 1.0
"""Pause after the last frame, which a best-effort subscriber never acknowledges."""

RECORD_FILE = "frames.jsonl"
"""File in `record_dir` with a line for each frame sent: its index, name and stamp."""

_PARAMETERS: dict[str, tuple[Any, str]] = {
    "source": ("", "Folder of images, video file, bag or camera index; empty plays the rendered clip."),
    "topic": ("", "Which images of a bag; empty takes the only topic that holds some."),
    "rate": (0.0, "Frames per second; 0.0 takes the source's own times."),
    "speed": (1.0, "With rate 0.0: how many times as fast as in its own time the source is played."),
    "loop": (False, "Start over at the end."),
    "max_frames": (0, "Stop after so many frames; 0 plays all."),
    "frame_id": ("camera", "Frame id in the headers."),
    "encoding": ("bgr8", "rgb8 or bgr8."),
    "reliability": ("reliable", "reliable or best_effort."),
    "publish_clock": (False, "Publish /clock with every frame, for nodes that use_sim_time."),
    "wait_for_subscribers": (1, "Start once so many subscriptions are matched; 0 starts at once."),
    "start_delay_s": (1.0, "Pause before the first frame, in which the subscribers match too."),
    "hold_first_s": (0.0, "Pause after the first frame, in which an operator can point at something."),
    "record_dir": ("", "Folder that gets a list of the frames sent, and a camera's frames themselves."),
}


class Player(Node):
    """Node that publishes frames at their rate; none is skipped, a late one goes out at once."""

    def __init__(self, **options: Any) -> None:
        super().__init__("player", **options)
        for name, (default, description) in _PARAMETERS.items():
            self.declare_parameter(name, default, ParameterDescriptor(description=description, read_only=True))
        reliability = str(self._value("reliability"))
        if reliability not in ("reliable", "best_effort"):
            raise ConfigurationError(f"reliability is {reliability!r}; choose reliable or best_effort")
        if self._value("encoding") not in ("rgb8", "bgr8"):
            raise ConfigurationError(f"encoding is {self._value('encoding')!r}; choose rgb8 or bgr8")
        if self._value("rate") < 0:
            raise ConfigurationError(f"rate is {self._value('rate')}; give frames per second, or 0.0")
        if not self._value("speed") > 0:
            raise ConfigurationError(f"speed is {self._value('speed')}; give a number above 0.0")
        if self._value("topic") and not self._value("source"):
            raise ConfigurationError(f"topic is {self._value('topic')!r}, but source names no bag")
        qos = QoSProfile(
            history=HistoryPolicy.KEEP_LAST, depth=HISTORY_DEPTH, reliability=ReliabilityPolicy[reliability.upper()]
        )
        self._image_publisher = self.create_publisher(Image, "image", qos)
        self._clock_publisher = self.create_publisher(Clock, "/clock", 10) if self._value("publish_clock") else None
        self._round_start_ns = self._last_stamp_ns = self.get_clock().now().nanoseconds

    def _value(self, name: str) -> Any:
        return self.get_parameter(name).value

    def play(self) -> int:
        """Play the source to its end, or until the context is shut down; return the number of frames sent.

        Raises:
            SourceError: the source cannot be read.
        """
        self._open().__exit__(None, None, None)
        self._wait_for_subscribers()
        folder = str(self._value("record_dir"))
        sent, started = 0, time.monotonic()
        with (Path(folder) / RECORD_FILE).open("w") if folder else contextlib.nullcontext() as record:
            while self._running():
                sent = self._play_once(sent, record)
                if not self._value("loop") or sent == self._value("max_frames") or is_camera(self._value("source")):
                    break
        elapsed = time.monotonic() - started
        # Leaving at once would take frames back that are still on their way.
        if hasattr(self._image_publisher, "wait_for_all_acked") and self._running():
            self._image_publisher.wait_for_all_acked(Duration(seconds=2))
        self._sleep_until(time.monotonic() + LINGER_S)
        self.get_logger().info(f"sent {sent} frames in {elapsed:.1f} s")
        return sent

    def _running(self) -> bool:
        return bool(self.context.ok())

    def _open(self) -> Any:
        limit = self._value("max_frames") or None
        source = str(self._value("source"))
        if not source:
            return RenderedSource(limit=limit)
        return open_source(source, limit=limit, topic=str(self._value("topic")) or None)

    def _wait_for_subscribers(self) -> None:
        wanted = int(self._value("wait_for_subscribers"))
        if wanted > 0:
            self.get_logger().info(f"waiting for {wanted} subscription(s) of {self._image_publisher.topic_name}")
        while self._running() and self._image_publisher.get_subscription_count() < wanted:
            time.sleep(0.02)
        # The other side may match later, and best effort does not repeat the frames that it missed.
        self._sleep_until(time.monotonic() + float(self._value("start_delay_s")))

    def _sleep_until(self, due: float) -> None:
        while self._running() and (left := due - time.monotonic()) > 0:
            time.sleep(min(left, 0.1))

    def _play_once(self, sent: int, record: TextIO | None) -> int:
        live = is_camera(self._value("source"))
        with self._open() as source, frames_of(source, ahead=not live) as frames:
            due = time.monotonic()
            previous: Frame | None = None
            for frame in frames:
                if previous is not None:
                    due = self._due(due, previous, frame, sent)
                if not live:
                    self._sleep_until(due)
                if not self._running() or 0 < self._value("max_frames") <= sent:
                    break
                self._send(frame, record)
                sent += 1
                previous = frame
                if sent == 1 and self._value("hold_first_s") > 0:
                    due = time.monotonic() + float(self._value("hold_first_s"))
            # The next round's simulated time starts a frame after this one's end: it never goes back.
            self._round_start_ns = self._last_stamp_ns + round(1e9 / (source.fps or NOMINAL_FPS))
        return sent

    def _due(self, due: float, previous: Frame, frame: Frame, sent: int) -> float:
        """Return when a frame goes out, given when the one before was due."""
        if sent == 1 and self._value("hold_first_s") > 0:
            return due
        rate = float(self._value("rate"))
        gap = 1.0 / rate if rate else max(0.0, frame.stamp - previous.stamp) / float(self._value("speed"))
        # A frame that was late does not make the ones after it bunch up.
        return max(due + gap, time.monotonic() - gap)

    def _send(self, frame: Frame, record: TextIO | None) -> None:
        message = rgb_to_image(frame.image, self._value("encoding"))
        now = self.get_clock().now()
        if self._clock_publisher is not None:
            now = Time(nanoseconds=self._round_start_ns + round(frame.stamp * 1e9))
            self._clock_publisher.publish(Clock(clock=now.to_msg()))
        self._last_stamp_ns = now.nanoseconds
        message.header.stamp = now.to_msg()
        message.header.frame_id = self._value("frame_id")
        self._image_publisher.publish(message)
        if record is not None:
            entry = {"index": frame.index, "name": frame.name, "stamp_ns": now.nanoseconds}
            record.write(json.dumps(entry) + "\n")
            record.flush()
            if is_camera(self._value("source")):
                path = Path(self._value("record_dir")) / f"{frame.name}.jpg"
                cv2.imwrite(str(path), cv2.cvtColor(frame.image, cv2.COLOR_RGB2BGR))


def frames_of(source: Iterable[Frame], *, ahead: bool) -> contextlib.closing[Generator[Frame, None, None]]:
    """Give a source's frames to a block; nothing reads the source after the block, however it ends."""
    return contextlib.closing(read_ahead(source) if ahead else (frame for frame in source))


def read_ahead(source: Iterable[Frame]) -> Generator[Frame, None, None]:
    """Iterate over a source that a thread of its own decodes, a few frames ahead.

    An error of the source is raised at its frame. Closing the generator waits for the running read.
    """
    decoder = ThreadPoolExecutor(1, thread_name_prefix="decoder")
    frames = iter(source)
    try:
        reads = deque(decoder.submit(next, frames, None) for _ in range(FRAMES_AHEAD))
        while (frame := reads.popleft().result()) is not None:
            reads.append(decoder.submit(next, frames, None))
            yield frame
    finally:
        decoder.shutdown(cancel_futures=True)


def main(arguments: Sequence[str] | None = None) -> int:
    """Play; return 0 at the end or after an ordinary stop, 2 when the source or a parameter is wrong."""
    rclpy.init(args=None if arguments is None else list(arguments))
    try:
        node = Player()
        executor = SingleThreadedExecutor()
        executor.add_node(node)
        # Parameter services answer while the frames are played from this thread.
        spinner = threading.Thread(target=spin_until_shutdown, args=(executor,), daemon=True)
        spinner.start()
        try:
            node.play()
        finally:
            rclpy.try_shutdown()
            spinner.join()
            node.destroy_node()
        return 0
    except (KeyboardInterrupt, ExternalShutdownException):
        return 0
    except (Sam2LiteError, InvalidParameterTypeException) as error:
        print(f"player: {error}", file=sys.stderr)
        return 2
    finally:
        rclpy.try_shutdown()


if __name__ == "__main__":
    sys.exit(main())
