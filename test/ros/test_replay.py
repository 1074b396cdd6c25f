"""Bags over DDS: the player keeps their times, and `eval bag` scores the real node."""

import contextlib
import importlib
import json
import sqlite3
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("rosbags", reason="needs rosbags: pip install 'sam2lite[bags]'")

from ament_index_python.packages import get_package_share_directory
from rclpy.qos import QoSProfile, ReliabilityPolicy
from rclpy.serialization import deserialize_message
from rosbags.highlevel import AnyReader
from rosgraph_msgs.msg import Clock
from sam2lite_ros.msg import TrackerStatus
from sensor_msgs.msg import Image

from sam2lite_core.cli import app
from sam2lite_core.evaluation.bag.record import write_bag as write_seen
from sam2lite_core.evaluation.bag.request import Request, check_request
from sam2lite_core.evaluation.bag.session import Recording
from sam2lite_core.evaluation.tracker_options import TrackerOptions
from sam2lite_core.media.bags.writer import image_message, jpeg_message, new_bag
from sam2lite_core.media.image_messages import compressed_to_rgb
from sam2lite_core.media.label_map import read_label_map, write_label_map
from sam2lite_ros.conversions import image_to_rgb
from sam2lite_ros.sessions import replay
from sam2lite_ros.sessions.processes import process
from sam2lite_ros.sessions.recorder import read_record, status_entry

START, STEP = 1_700_000_000_000_000_000, 50_000_000


def write_bag(path, clip, *, times=None, compressed=False, broken=None, storage="sqlite3"):
    """A bag of a clip, 50 ms between frames unless their times are given; the broken image does not decode."""
    topic, kind = "/left/image_raw", "sensor_msgs/msg/Image"
    if compressed:
        topic, kind = f"{topic}/compressed", "sensor_msgs/msg/CompressedImage"
    with new_bag(path, storage) as bag:
        for index, image in enumerate(clip.frames):
            recorded = START + (index * STEP if times is None else times[index])
            message = (jpeg_message if compressed else image_message)(image, recorded)
            if index == broken:
                message.data = message.data[:40]
            bag.add(topic, kind, message, recorded)
    return path


@pytest.fixture
def truth(tmp_path, small_clip):
    folder = tmp_path / "truth"
    folder.mkdir()
    for index, labels in enumerate(small_clip.label_maps):
        write_label_map(folder / f"{index:05d}.png", labels)
    return folder


def run(*arguments):
    """Exit code of the command."""
    try:
        app.main([str(argument) for argument in arguments])
    except SystemExit as end:
        return end.code or 0
    return 0


def test_the_player_keeps_a_bag_s_times_and_its_clock(isolated_ros, make_operator, tmp_path, small_clip):
    """Twice as fast as recorded; /clock and headers tell the bag's own time, gaps and all."""
    times = [0, 100_000_000, 140_000_000, 640_000_000, 680_000_000, 700_000_000]
    bag = write_bag(tmp_path / "bag", small_clip, times=times, storage="mcap")
    operator = make_operator()
    played, clocks = [], []
    qos = QoSProfile(depth=50, reliability=ReliabilityPolicy.RELIABLE)
    operator.node.create_subscription(Image, "/image", played.append, qos)
    operator.node.create_subscription(Clock, "/clock", clocks.append, 50)
    parameters = {
        "source": str(bag),
        "topic": "/left/image_raw",
        "speed": 2.0,
        "publish_clock": True,
        "record_dir": str(tmp_path),
    }
    with process("player", parameters, tmp_path) as player:
        operator.until(lambda: player.exit_code is not None, "the player to end")
        assert player.exit_code == 0, player.log_tail()
    operator.until(lambda: len(played) == 6, "six frames")
    stamps = [message.header.stamp.sec * 10**9 + message.header.stamp.nanosec for message in played]
    assert [stamp - stamps[0] for stamp in stamps] == times
    assert {clock.clock.sec * 10**9 + clock.clock.nanosec for clock in clocks} <= set(stamps)
    assert [entry["name"] for entry in read_record(tmp_path)] == [f"{index:05d}" for index in range(6)]
    for message, image in zip(played, small_clip.frames, strict=True):
        assert np.array_equal(image_to_rgb(message), image)
    operator.close()


@pytest.mark.slow
def test_a_replay_is_scored_and_explained(tmp_path, small_clip, truth, capsys, read_mcap):
    bag = write_bag(tmp_path / "bag", small_clip, compressed=True, storage="mcap")
    out, seen = tmp_path / "out", tmp_path / "seen"
    code = run(
        "eval", "bag", bag, "--truth", truth, "--rate", 0.25, "--deadline-ms", 5000, "--threads", 1,
        "--out", out, "--out-bag", seen, "--storage", "mcap", "--json", tmp_path / "result.json",
    )  # fmt: skip
    said = capsys.readouterr()
    assert code == 0, said.err
    assert "J&F, frames processed" in said.out
    result = json.loads((tmp_path / "result.json").read_text())
    assert result == json.loads((out / "bag.json").read_text())
    counts = result["frames"]
    assert counts["in_bag"] == counts["sent"] == counts["received"] == 6
    assert counts["processed"] + counts["dropped"] == 6
    assert counts["masks_recorded"] == counts["processed"]
    # The prompt landed on the first frame: its mask is the one that was given.
    assert np.array_equal(read_label_map(out / "masks" / "00000.png"), small_clip.label_maps[0])
    why, score = result["why"], result["score"]
    assert why["identical_masks"] == counts["processed"], "the node and the tracker are the same thing"
    assert score["offline_as_played"]["jf"] == score["processed"]["jf"]
    assert set(result["latency_ms"]["age"]) == {"p50", "p95", "p99", "max"}
    with AnyReader([seen]) as reader:
        topics = {c.topic: (c.msgtype, c.msgcount) for c in reader.connections}
        stamps = {
            message.header.stamp.sec * 10**9 + message.header.stamp.nanosec
            for connection, _, data in reader.messages()
            for message in [reader.deserialize(data, connection.msgtype)]
        }
    assert topics == {
        "/tracker/mask": ("sensor_msgs/msg/Image", counts["processed"]),
        "/tracker/status": ("sam2lite_ros/msg/TrackerStatus", counts["processed"]),
    }
    assert stamps <= {START + index * STEP for index in range(6)}
    masks = [entry for entry in read_mcap(seen) if entry.topic == "/tracker/mask"]
    assert len(masks) == counts["processed"]
    for entry in masks:
        written = read_label_map(out / "masks" / f"{(entry.stamp_ns - START) // STEP:05d}.png", keep_ids=True)
        assert np.array_equal(np.frombuffer(bytes(entry.message.data), np.uint8).reshape(96, 128), written)


def type_of(name):
    """The class of a message such as sensor_msgs/msg/Image."""
    package, _, kind = name.split("/")
    return getattr(importlib.import_module(f"{package}.msg"), kind)


def stored(bag):
    """Every message of an sqlite3 bag: (topic, type, time, bytes), as rosbag2 asks the database for them."""
    (file,) = bag.glob("*.db3")
    query = (
        "SELECT topics.name, topics.type, timestamp, data FROM messages JOIN topics "
        "ON messages.topic_id = topics.id ORDER BY timestamp"
    )
    with contextlib.closing(sqlite3.connect(f"file:{file}?mode=ro", uri=True)) as database:
        return database.execute(query).fetchall()


@pytest.mark.parametrize("compressed", [False, True])
def test_ros_reads_the_messages_of_a_bag_made_here(tmp_path, small_clip, compressed):
    rows = stored(write_bag(tmp_path / "bag", small_clip, compressed=compressed))
    assert [time for _, _, time, _ in rows] == [START + index * STEP for index in range(6)]
    for (_, kind, time, data), image in zip(rows, small_clip.frames, strict=True):
        message = deserialize_message(data, type_of(kind))
        assert message.header.stamp.sec * 10**9 + message.header.stamp.nanosec == time
        pixels = compressed_to_rgb(message) if compressed else image_to_rgb(message)
        error = np.abs(pixels.astype(int) - image)
        assert error.mean() < 3 if compressed else error.max() == 0


def test_ros_reads_the_messages_of_the_bag_that_is_left(tmp_path, small_clip, truth):
    """Statuses that ROS made come back from the bag as they were."""
    plan = check_request(Request(write_bag(tmp_path / "bag", small_clip), truth, tracker=TrackerOptions(threads=1)))
    made = [
        TrackerStatus(
            age_ms=10.0 + index, deadline_missed=index == 2, scale=0.75, memory_tokens=300, frames_dropped=2**40
        )
        for index in range(6)
    ]
    definition = Path(get_package_share_directory("sam2lite_ros")) / "msg" / "TrackerStatus.msg"
    recording = Recording(
        sent=tuple(range(6)),
        statuses=dict(enumerate(map(status_entry, made))),
        masks={index: truth / f"{index:05d}.png" for index in range(6)},
        definition=definition.read_text(),
    )
    assert write_seen(plan, recording, tmp_path / "seen", "sqlite3") == 12
    found = {}
    for topic, kind, time, data in stored(tmp_path / "seen"):
        message = deserialize_message(data, type_of(kind))
        found.setdefault(topic, []).append(message)
        stamp = message.header.stamp.sec * 10**9 + message.header.stamp.nanosec
        assert time == stamp + round(1e6 * (10 + (stamp - START) // STEP))
    for status, told in zip(found["/tracker/status"], made, strict=True):
        told.header = status.header
        assert status == told
    for mask, labels in zip(found["/tracker/mask"], small_clip.label_maps, strict=True):
        assert np.array_equal(np.frombuffer(mask.data, np.uint8).reshape(96, 128), labels)


PLAYER = {
    "speed": ({"speed": 0.0}, "speed is 0.0"),
    "a topic without a bag": ({"topic": "/image"}, "source names no bag"),
    "another topic": (
        {"topic": "/right", "source": "{bag}"},
        "there are: /left/image_raw/compressed (compressed, 6 messages)",
    ),
    "an image that does not decode": (
        {"source": "{bag}", "wait_for_subscribers": 0, "start_delay_s": 0.0},
        "image 3 of /left/image_raw/compressed: compressed image",
    ),
}


@pytest.mark.parametrize(("parameters", "said"), PLAYER.values(), ids=PLAYER)
def test_the_player_refuses_what_it_cannot_play(isolated_ros, tmp_path, small_clip, parameters, said, capsys):
    from sam2lite_ros.player.node import main

    bag = write_bag(tmp_path / "bag", small_clip, compressed=True, broken=3)
    arguments = ["player", "--ros-args"]
    for name, value in parameters.items():
        arguments += ["-p", f"{name}:={str(value).format(bag=bag)}"]
    assert main(arguments) == 2
    assert said in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [[], ["one", "two"]])
def test_the_replay_wants_one_folder(arguments, capsys):
    assert replay.main(arguments) == 2
    assert "request.json" in capsys.readouterr().err


def test_without_messages_the_replay_says_how_to_build_them(tmp_path, monkeypatch, capsys):
    def missing(folder):
        raise ModuleNotFoundError("No module named 'sam2lite_ros.msg'")

    monkeypatch.setattr(replay, "replay", missing)
    assert replay.main([str(tmp_path)]) == 2
    assert "'sam2lite_ros.msg'; build the package (scripts/setup.sh)" in capsys.readouterr().err
