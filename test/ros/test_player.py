"""The player: every frame in order, stamped, at its rate, and the clock when asked."""

import contextlib
import threading

import cv2
import numpy as np
import pytest
from rclpy.qos import QoSProfile, ReliabilityPolicy
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import Image

from sam2lite_core.errors import SourceError
from sam2lite_core.types import Frame
from sam2lite_ros.conversions import image_to_rgb
from sam2lite_ros.player.node import frames_of, read_ahead
from sam2lite_ros.sessions.processes import process
from sam2lite_ros.sessions.recorder import read_record
from sam2lite_ros.tracker.prompts import stamp_nanoseconds


@pytest.fixture
def folder(tmp_path, small_clip):
    frames = tmp_path / "frames"
    frames.mkdir()
    for index, image in enumerate(small_clip.frames):
        cv2.imwrite(str(frames / f"{index:03d}.png"), image[..., ::-1])
    return frames


@pytest.fixture
def listener(isolated_ros, make_operator):
    """An operator that also records what is played."""
    operator = make_operator()
    operator.played, operator.clocks = [], []

    def listen(reliability):
        qos = QoSProfile(depth=50, reliability=reliability)
        operator.node.create_subscription(Image, "/image", operator.played.append, qos)
        operator.node.create_subscription(Clock, "/clock", operator.clocks.append, 50)
        return operator

    yield listen
    # The next player must not take this subscription for the one that it waits for.
    operator.close()


@pytest.mark.parametrize("reliability", ["reliable", "best_effort"])
def test_every_frame_arrives_in_order_with_its_pixels(listener, folder, tmp_path, small_clip, reliability):
    operator = listener(ReliabilityPolicy[reliability.upper()])
    parameters = {"source": str(folder), "rate": 50.0, "reliability": reliability, "record_dir": str(tmp_path)}
    with process("player", parameters, tmp_path) as player:
        operator.until(lambda: player.exit_code is not None, "the player to end")
        assert player.exit_code == 0, player.log_tail()
    operator.until(lambda: len(operator.played) == 6, "six frames")
    for message, image in zip(operator.played, small_clip.frames, strict=True):
        assert np.array_equal(image_to_rgb(message), image)
        assert (message.encoding, message.header.frame_id) == ("bgr8", "camera")
    stamps = [stamp_nanoseconds(message.header.stamp) for message in operator.played]
    assert stamps == sorted(set(stamps))
    # The list that it keeps says which frame carries which stamp.
    record = read_record(tmp_path)
    assert [entry["stamp_ns"] for entry in record] == stamps
    assert [(entry["index"], entry["name"]) for entry in record] == [(i, f"{i:03d}") for i in range(6)]
    assert operator.clocks == []


def test_a_loop_plays_on_and_the_clock_is_that_of_the_headers(listener, folder, tmp_path):
    operator = listener(ReliabilityPolicy.RELIABLE)
    parameters = {"source": str(folder), "rate": 50.0, "loop": True, "max_frames": 14, "publish_clock": True}
    with process("player", parameters, tmp_path) as player:
        operator.until(lambda: player.exit_code is not None, "the player to end")
        assert player.exit_code == 0, player.log_tail()
    operator.until(lambda: len(operator.played) == 14, "two rounds and two frames")
    assert np.array_equal(image_to_rgb(operator.played[0]), image_to_rgb(operator.played[6]))
    stamps = [stamp_nanoseconds(message.header.stamp) for message in operator.played]
    assert {stamp_nanoseconds(clock.clock) for clock in operator.clocks} <= set(stamps)
    # Simulated time is the source's: 30 frames a second, whatever the rate of playing.
    assert np.diff(stamps[:6]) == pytest.approx(1e9 / 30, abs=1)
    assert stamps == sorted(stamps)


def frame(index):
    return Frame(np.zeros((16, 16, 3), np.uint8), index / 30, index, f"{index:05d}")


def test_reading_ahead_keeps_order_and_raises_where_the_source_does():
    def source():
        for index in range(20):
            yield frame(index)
        raise SourceError("the file is cut short")

    seen = []
    with pytest.raises(SourceError, match="cut short"):
        for one in read_ahead(source()):
            seen.append(one.index)
    assert seen == list(range(20))


def test_reading_ahead_stops_when_nobody_reads_on():
    endless = (frame(index) for index in iter(int, 1))
    reader = read_ahead(endless)
    assert next(reader).index == 0
    reader.close()


class SlowSource:
    """Its second frame takes a while; it notices when it is released in the middle of that."""

    def __init__(self):
        self.reading, self.second, self.released = False, threading.Event(), threading.Event()
        self.released_while_reading = None

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.released_while_reading = self.reading
        self.released.set()

    def __iter__(self):
        for index in range(3):
            self.reading = True
            if index == 1:
                self.second.set()
                self.released.wait(0.3)
            self.reading = False
            yield frame(index)


@pytest.mark.parametrize("error", [None, KeyboardInterrupt])
def test_the_source_is_released_once_its_reader_is_done(error):
    source = SlowSource()
    with (
        contextlib.nullcontext() if error is None else pytest.raises(error),
        source,
        frames_of(source, ahead=True) as frames,
    ):
        assert next(frames).index == 0
        assert source.second.wait(60)
        if error is not None:
            raise error
    assert source.released_while_reading is False


def test_a_camera_is_read_when_its_frame_is_wanted_and_not_before():
    source = SlowSource()
    with frames_of(source, ahead=False) as frames:
        assert next(frames).index == 0
        assert not source.second.is_set()
