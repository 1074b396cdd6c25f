"""Bags: written and read back in both storages, and what is said of those that cannot be read."""

import contextlib
import shutil
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

pytest.importorskip("rosbags", reason="needs rosbags: pip install 'sam2lite[bags]'")

from rosbags.highlevel import AnyReader
from rosbags.rosbag2 import Writer

from sam2lite_core.cli import app
from sam2lite_core.errors import ConfigurationError, SourceError
from sam2lite_core.media.bags import store, writer
from sam2lite_core.media.bags.reader import BagFrames, ImageTopic
from sam2lite_core.media.bags.store import COMPRESSED_TYPE, RAW_TYPE, message_types
from sam2lite_core.media.bags.writer import image_message, jpeg_message, make_bag, new_bag
from sam2lite_core.media.open import open_source

START = 1_700_000_000_000_000_000
STORAGES = {"sqlite3": ".db3", "mcap": ".mcap"}


@pytest.fixture
def folder(tmp_path, small_clip):
    """The small clip as pictures."""
    frames = tmp_path / "frames"
    frames.mkdir()
    for index, image in enumerate(small_clip.frames):
        cv2.imwrite(str(frames / f"shot{index}.png"), image[..., ::-1])
    return frames


def write(path, topics, storage="sqlite3"):
    """A bag from topic to [(kind, message, recorded_ns)]."""
    with new_bag(path, storage) as bag:
        for topic, messages in topics.items():
            for kind, message, recorded in messages:
                bag.add(topic, kind, message, recorded)
    return path


def raw(image, stamp=START, recorded=None):
    return RAW_TYPE, image_message(image, stamp), START if recorded is None else recorded


def jpeg(image, stamp=START, recorded=None):
    return COMPRESSED_TYPE, jpeg_message(image, stamp), START if recorded is None else recorded


def text(recorded=START):
    kind = "std_msgs/msg/String"
    return kind, message_types().types[kind](data="hello"), recorded


def storage_file(bag):
    return next(path for path in bag.iterdir() if path.suffix in STORAGES.values())


@pytest.mark.parametrize("storage", STORAGES)
@pytest.mark.parametrize("compressed", [False, True])
def test_frames_come_back_with_their_pixels_and_times(folder, tmp_path, small_clip, storage, compressed):
    path = tmp_path / "deep" / "bag"
    with open_source(folder, fps=20) as frames:
        made = make_bag(frames, path, topic="/left", compressed=compressed, storage=storage, start_ns=START)
    assert made == 6
    assert [entry.suffix for entry in sorted(path.iterdir())] == [STORAGES[storage], ".yaml"]
    assert [entry.name for entry in path.parent.iterdir()] == ["bag"]
    name = "/left/compressed" if compressed else "/left"
    for source in (path, storage_file(path)):
        with open_source(source) as bag:
            read = list(bag)
            assert (bag.topic, bag.length, bag.size) == (ImageTopic(name, compressed, 6), 6, (96, 128))
            assert bag.fps == pytest.approx(20)
            assert bag.recorded_ns == bag.stamps_ns == tuple(START + i * 50_000_000 for i in range(6))
        assert [frame.name for frame in read] == [f"{index:05d}" for index in range(6)]
        assert [frame.index for frame in read] == list(range(6))
        assert [frame.stamp for frame in read] == pytest.approx([index / 20 for index in range(6)])
        for frame, image in zip(read, small_clip.frames, strict=True):
            error = np.abs(frame.image.astype(int) - image)
            assert error.mean() < 3 if compressed else error.max() == 0


@pytest.mark.parametrize("storage", STORAGES)
def test_a_bag_made_here_explains_its_own_types(folder, tmp_path, storage):
    """A reader that knows no types beforehand finds them in the bag, and their hashes agree."""
    with open_source(folder) as frames:
        make_bag(frames, tmp_path / "bag", storage=storage, start_ns=START)
    with AnyReader([tmp_path / "bag"]) as reader:
        connection, recorded, data = next(reader.messages())
        message = reader.deserialize(data, connection.msgtype)
    assert (connection.msgtype, recorded) == (RAW_TYPE, START)
    assert (message.encoding, message.header.frame_id, message.step) == ("bgr8", "camera", 384)


@pytest.mark.parametrize("compressed", [False, True])
def test_foxglove_reads_a_bag_made_here(folder, tmp_path, small_clip, read_mcap, compressed):
    with open_source(folder, fps=20) as frames:
        make_bag(frames, tmp_path / "bag", topic="/left", compressed=compressed, storage="mcap", start_ns=START)
    read = read_mcap(tmp_path / "bag")
    expected = ("/left/compressed", COMPRESSED_TYPE) if compressed else ("/left", RAW_TYPE)
    assert [(entry.topic, entry.kind) for entry in read] == [expected] * 6
    times = [START + index * 50_000_000 for index in range(6)]
    assert [entry.recorded_ns for entry in read] == [entry.stamp_ns for entry in read] == times
    for entry, image in zip(read, small_clip.frames, strict=True):
        message = entry.message
        data = np.frombuffer(bytes(message.data), np.uint8)
        if compressed:
            assert message.format == "bgr8; jpeg compressed bgr8"
            assert np.abs(cv2.imdecode(data, cv2.IMREAD_COLOR)[..., ::-1].astype(int) - image).mean() < 3
        else:
            assert (message.encoding, message.step, message.is_bigendian) == ("bgr8", 3 * 128, 0)
            assert np.array_equal(data.reshape(96, 128, 3)[..., ::-1], image)


# What rosbag2 of each distribution asks for, by its metadata_io: Humble stops at the fields of version 5, and takes
# the offered QoS as text; later ones also take the newer fields that a version promises.
INFORMATION = {
    "version": int, "storage_identifier": str, "relative_file_paths": list, "duration": dict,
    "starting_time": dict, "message_count": int, "topics_with_message_count": list, "compression_format": str,
    "compression_mode": str, "files": list, "custom_data": dict | None, "ros_distro": str,
}  # fmt: skip
TOPIC = {
    "name": str, "type": str, "serialization_format": str, "offered_qos_profiles": str,
    "type_description_hash": str,
}  # fmt: skip


@pytest.mark.parametrize("storage", STORAGES)
def test_the_metadata_is_what_rosbag2_asks_for(folder, tmp_path, storage):
    from ruamel.yaml import YAML

    with open_source(folder, fps=20) as frames:
        make_bag(frames, tmp_path / "bag", storage=storage, start_ns=START)
    (document,) = YAML(typ="safe").load(tmp_path / "bag" / "metadata.yaml").items()
    name, information = document
    assert name == "rosbag2_bagfile_information"
    for key, kind in INFORMATION.items():
        assert isinstance(information[key], kind), key
    # From version 9 on the offered QoS is no text, and Humble cannot read it.
    assert information["version"] == 8
    assert information["storage_identifier"] == storage
    assert information["relative_file_paths"] == [f"bag{STORAGES[storage]}"]
    assert (tmp_path / "bag" / f"bag{STORAGES[storage]}").is_file()
    span = {"duration": {"nanoseconds": 250_000_000}, "starting_time": {"nanoseconds_since_epoch": START}}
    assert {key: information[key] for key in span} == span
    assert information["files"] == [{"path": f"bag{STORAGES[storage]}", "message_count": 6, **span}]
    assert information["message_count"] == 6
    assert (information["compression_format"], information["compression_mode"]) == ("", "")
    (topic,) = information["topics_with_message_count"]
    assert topic["message_count"] == 6
    assert {key: type(topic["topic_metadata"][key]) for key in TOPIC} == TOPIC
    assert topic["topic_metadata"]["name"] == "/camera/image_raw"
    assert topic["topic_metadata"]["type"] == RAW_TYPE
    assert topic["topic_metadata"]["serialization_format"] == "cdr"


def test_the_database_is_laid_out_as_rosbag2_reads_it(folder, tmp_path):
    """Humble's queries, and what newer ones ask for beyond them."""
    import sqlite3

    with open_source(folder, fps=20) as frames:
        make_bag(frames, tmp_path / "bag", start_ns=START)
    (file,) = (tmp_path / "bag").glob("*.db3")
    with contextlib.closing(sqlite3.connect(f"file:{file}?mode=ro", uri=True)) as database:
        assert database.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        topics = "SELECT id, name, type, serialization_format, offered_qos_profiles FROM topics"
        assert database.execute(topics).fetchall() == [(1, "/camera/image_raw", RAW_TYPE, "cdr", "")]
        joined = (
            "SELECT data, timestamp, topics.name, messages.id FROM messages JOIN topics "
            "ON messages.topic_id = topics.id WHERE timestamp >= ? ORDER BY timestamp"
        )
        rows = database.execute(joined, (START,)).fetchall()
        assert [row[1:] for row in rows] == [
            (START + index * 50_000_000, "/camera/image_raw", index + 1) for index in range(6)
        ]
        assert {row[0][:4] for row in rows} == {b"\x00\x01\x00\x00"}, "CDR, little endian"
        assert database.execute("SELECT schema_version FROM schema").fetchall() == [(4,)]
        explained = "SELECT topic_type, encoding, encoded_message_definition FROM message_definitions"
        ((kind, encoding, definition),) = database.execute(explained).fetchall()
        assert (kind, encoding) == (RAW_TYPE, "ros2msg")
        assert "MSG: std_msgs/Header" in definition


def test_a_limit_and_a_rate_of_ones_own(folder, tmp_path):
    with open_source(folder) as frames:
        make_bag(frames, tmp_path / "bag", start_ns=START)
    with open_source(tmp_path / "bag", fps=5, limit=3) as bag:
        assert (bag.fps, bag.length) == (5, 3)
        assert [frame.stamp for frame in bag] == [0.0, 0.2, 0.4]
        assert len(list(bag)) == 3, "a bag can be read again"


def test_frames_follow_the_recording_and_stamps_that_fall_are_counted(tmp_path, small_clip):
    step = 40_000_000
    order = [0, 2, 1, 1, 4]
    messages = [raw(small_clip.frames[i], START + i * step, START + n * step) for n, i in enumerate(order)]
    with BagFrames(write(tmp_path / "bag", {"/image": messages})) as bag:
        assert bag.stamps_back == 1
        assert [stamp - START for stamp in bag.stamps_ns] == [i * step for i in order]
        for frame, index in zip(bag, order, strict=True):
            assert np.array_equal(frame.image, small_clip.frames[index])
        assert [frame.stamp for frame in bag] == pytest.approx([0, 0.04, 0.08, 0.12, 0.16])


def test_frames_recorded_at_one_moment_have_no_rate(tmp_path, small_clip):
    with BagFrames(write(tmp_path / "bag", {"/image": [raw(small_clip.frames[0])] * 2})) as bag:
        assert (bag.fps, bag.length) == (None, 2)


def test_of_several_topics_one_is_chosen(tmp_path, small_clip):
    topics = {"/b": [raw(small_clip.frames[0])], "/a/compressed": [jpeg(small_clip.frames[1])] * 2, "/t": [text()]}
    path = write(tmp_path / "bag", topics)
    listed = r"choose one: /a/compressed \(compressed, 2 messages\), /b \(raw, 1 messages\)$"
    with pytest.raises(SourceError, match=listed):
        open_source(path)
    with open_source(path, topic="/b") as bag:
        assert (bag.topic.name, bag.length) == ("/b", 1)


def test_each_kind_of_image_on_a_topic_is_one_of_its_own(tmp_path, small_clip):
    path = tmp_path / "bag"
    with Writer(path, version=8) as bag:
        types = message_types()
        for kind, message, recorded in (jpeg(small_clip.frames[0]), raw(small_clip.frames[1])):
            connection = bag.add_connection("/a", kind, typestore=types)
            bag.write(connection, recorded, types.serialize_cdr(message, kind))
    with pytest.raises(SourceError, match=r": /a \(compressed, 1 messages\), /a \(raw, 1 messages\)$"):
        open_source(path)
    with open_source(path, topic="/a") as frames:
        assert (frames.topic.compressed, len(list(frames))) == (True, 1)


def cut(path, share):
    data = path.read_bytes()
    path.write_bytes(data[: int(share * len(data))])


def flip(path):
    """Damage the middle of a file."""
    data = bytearray(path.read_bytes())
    middle = len(data) // 2
    data[middle : middle + 4096] = bytes(255 - value for value in data[middle : middle + 4096])
    path.write_bytes(data)


def of_frames(tmp_path, clip, storage):
    messages = [raw(image, START + i, START + i) for i, image in enumerate(clip.frames)]
    return write(tmp_path / "bag", {"/image": messages}, storage)


def cut_bag(share):
    def make(tmp_path, clip, storage):
        path = of_frames(tmp_path, clip, storage)
        cut(storage_file(path), share)
        return path

    return make


def without(name):
    def make(tmp_path, clip, storage):
        path = of_frames(tmp_path, clip, storage)
        (path / name if name else storage_file(path)).unlink()
        return path

    return make


def empty_metadata(tmp_path, clip, storage):
    path = of_frames(tmp_path, clip, storage)
    (path / "metadata.yaml").write_text("")
    return path


def promising_more(tmp_path, clip, storage):
    path = of_frames(tmp_path, clip, storage)
    metadata = path / "metadata.yaml"
    metadata.write_text(metadata.read_text().replace("message_count: 6", "message_count: 9"))
    return path


def no_images(tmp_path, clip, storage):
    return write(tmp_path / "bag", {"/t": [text()]}, storage)


def several_others(tmp_path, clip, storage):
    kind = "sensor_msgs/msg/RegionOfInterest"
    types = message_types().types
    region = types[kind](x_offset=0, y_offset=0, height=1, width=1, do_rectify=False)
    return write(tmp_path / "bag", {"/t": [text()], "/box": [(kind, region, START)]}, storage)


def no_topics(tmp_path, clip, storage):
    return write(tmp_path / "bag", {}, storage)


def two_topics(tmp_path, clip, storage):
    return write(tmp_path / "bag", {"/b": [raw(clip.frames[0])], "/a": [jpeg(clip.frames[0])]}, storage)


def ros1(tmp_path, clip, storage):
    path = tmp_path / "old.bag"
    path.write_bytes(b"#ROSBAG V2.0\n")
    return path


def broken_jpeg(tmp_path, clip, storage):
    kind, message, recorded = jpeg(clip.frames[0])
    message.data = message.data[:30]
    return write(tmp_path / "bag", {"/a": [(kind, message, recorded)]}, storage)


def short_image(tmp_path, clip, storage):
    kind, message, recorded = raw(clip.frames[0])
    message.data = message.data[:100]
    return write(tmp_path / "bag", {"/a": [(kind, message, recorded)]}, storage)


def odd_encoding(tmp_path, clip, storage):
    kind, message, recorded = raw(clip.frames[0])
    message.encoding = "bayer_rggb8"
    return write(tmp_path / "bag", {"/a": [(kind, message, recorded)]}, storage)


DAMAGE = "cut short"
UNREADABLE = {
    "no such bag": (lambda tmp_path, *_: tmp_path / "gone.mcap", None, "gone.mcap: no such bag"),
    "cut in the last message": (cut_bag(0.9), None, DAMAGE),
    "cut in the middle": (cut_bag(0.5), None, DAMAGE),
    "cut at the start": (cut_bag(0.01), None, DAMAGE),
    "emptied": (cut_bag(0.0), None, DAMAGE),
    "no metadata": (without("metadata.yaml"), None, "holds no metadata.yaml; `ros2 bag reindex`"),
    "no storage file": (without(""), None, DAMAGE),
    "empty metadata": (empty_metadata, None, DAMAGE),
    "fewer messages than promised": (promising_more, None, "ends after 6 of 9 messages"),
    "no images": (no_images, None, "no topic of this bag holds images"),
    "no images, and what there is": (
        several_others, None, "there are: /box (sensor_msgs/msg/RegionOfInterest), /t (std_msgs/msg/String)"
    ),
    "no topics": (no_topics, None, "CompressedImage); it has no topic at all"),
    "another topic": (two_topics, "/c", "no images on topic '/c'; there are: /a (compressed, 1 messages), /b (raw"),
    "a topic without images": (no_images, "/t", "no topic of this bag holds images"),
    "which topic": (two_topics, None, "choose one: /a (compressed, 1 messages), /b (raw, 1 messages)"),
    "of ROS 1": (ros1, None, "a bag of ROS 1; rosbags-convert"),
    "a JPEG that does not decode": (broken_jpeg, None, "image 0 of /a: compressed image"),
    "an image without its rows": (short_image, None, "image 0 of /a: image data is 100 bytes"),
    "an encoding nobody knows": (odd_encoding, None, "image 0 of /a: encoding 'bayer_rggb8' is not supported"),
}  # fmt: skip


@pytest.mark.parametrize("storage", STORAGES)
@pytest.mark.parametrize(("make", "topic", "said"), UNREADABLE.values(), ids=UNREADABLE)
def test_what_cannot_be_read_is_named(tmp_path, small_clip, storage, make, topic, said):
    path = make(tmp_path, small_clip, storage)
    with pytest.raises(SourceError) as caught:
        open_source(path, topic=topic)
    assert str(caught.value).startswith(f"{path}: ")
    assert said in str(caught.value)


@pytest.mark.parametrize("storage", STORAGES)
def test_damage_in_the_middle_is_an_error_or_leaves_every_frame_readable(tmp_path, small_clip, storage):
    """Bytes within a picture have no checksum in sqlite3; all else must be noticed."""
    path = of_frames(tmp_path, small_clip, storage)
    flip(storage_file(path))
    try:
        with BagFrames(path) as bag:
            assert len(list(bag)) == 6
    except SourceError as error:
        assert str(path) in str(error)


def test_a_topic_belongs_to_a_bag(folder):
    with pytest.raises(SourceError, match="no bag, so it has no topic '/image'"):
        open_source(folder, topic="/image")


def test_without_the_library_bags_say_how_to_get_it(tmp_path, monkeypatch):
    message_types.cache_clear()
    monkeypatch.setitem(sys.modules, "rosbags.typesys", None)
    with pytest.raises(ConfigurationError, match=r"pip install 'sam2lite\[bags\]'"):
        open_source(tmp_path / "some.mcap")


def run(*arguments):
    """Exit code of the command."""
    with pytest.raises(SystemExit) as end:
        app.main([str(argument) for argument in arguments])
    return end.value.code


@pytest.mark.parametrize("options", [(), ("--storage", "mcap", "--compressed", "--fps", 10, "--topic", "/front")])
def test_the_command_makes_a_bag_of_a_folder(folder, tmp_path, capsys, options):
    assert run("bag", "make", folder, tmp_path / "bag", *options) in (0, None)
    assert f"6 frames in {tmp_path / 'bag'}" in capsys.readouterr().out
    with BagFrames(tmp_path / "bag") as bag:
        assert bag.fps == pytest.approx(10 if options else 30)
        assert bag.topic.name == ("/front/compressed" if options else "/camera/image_raw")


def test_a_bag_is_tracked_like_a_video(folder, tmp_path, small_clip, capsys):
    with open_source(folder) as frames:
        make_bag(frames, tmp_path / "bag", topic="/left")
    options = ("--box", "10,10,60,60", "--threads", 1, "--frames", 2)
    assert run("track", tmp_path / "bag", "--topic", "/left", *options, "--out", tmp_path / "out") in (0, None)
    assert sorted(path.name for path in (tmp_path / "out" / "masks").iterdir()) == ["00000.png", "00001.png"]
    assert run("track", tmp_path / "bag", "--topic", "/right", *options, "--out", tmp_path / "more") == 2
    assert "there are: /left (raw, 6 messages)" in capsys.readouterr().err


def taken_by_a_file(tmp_path, frames):
    (tmp_path / "bag").write_text("mine")


def taken_by_a_folder(tmp_path, frames):
    (tmp_path / "bag").mkdir()


def last_picture_cut(tmp_path, frames):
    cut(frames / "shot5.png", 0.5)


def no_pictures(tmp_path, frames):
    shutil.rmtree(frames)
    frames.mkdir()


BAD = {
    "a file is there": (taken_by_a_file, (), "bag: exists already, not overwriting"),
    "a folder is there": (taken_by_a_folder, (), "bag: exists already, not overwriting"),
    "a picture is cut": (last_picture_cut, (), "shot5.png: not a readable image"),
    "no picture": (no_pictures, (), "frames: no image in this folder"),
    "storage": (None, ("--storage", "rosbag1"), "unknown storage 'rosbag1'; choose one of sqlite3, mcap"),
    "relative topic": (None, ("--topic", "image"), "topic 'image' is not a full name"),
    "topic with a space": (None, ("--topic", "/my image"), "topic '/my image' is not a full name"),
    "topic that ends open": (None, ("--topic", "/camera/"), "topic '/camera/' is not a full name"),
    "fps": (None, ("--fps", "0"), "fps 0.0 is not positive"),
}


@pytest.mark.parametrize("storage", STORAGES)
@pytest.mark.parametrize(("spoil", "options", "said"), BAD.values(), ids=BAD)
def test_bad_input_ends_with_code_2_and_writes_nothing(folder, tmp_path, capsys, storage, spoil, options, said):
    if spoil is not None:
        spoil(tmp_path, folder)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    assert run("bag", "make", folder, tmp_path / "bag", "--storage", storage, *options) == 2
    assert said in capsys.readouterr().err
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before


def test_a_bag_is_no_folder_of_frames(tmp_path, small_clip, capsys):
    path = of_frames(tmp_path, small_clip, "mcap")
    assert run("bag", "make", path, tmp_path / "again") == 2
    assert "is a bag already" in capsys.readouterr().err


def test_a_disk_that_fills_leaves_nothing(folder, tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(writer.BagWriter, "add", full)
    with open_source(folder) as frames, pytest.raises(SourceError, match="bag: cannot be written: No space left"):
        make_bag(frames, tmp_path / "bag")
    assert [path.name for path in tmp_path.iterdir()] == ["frames"]


@pytest.mark.parametrize(
    ("name", "expected"), [("bag.db3", True), ("bag.mcap", True), ("old.bag", True), ("film.mp4", False)]
)
def test_which_files_are_bags(tmp_path, name, expected):
    assert store.is_bag(tmp_path / name) is expected
    assert not store.is_bag(tmp_path)
    (tmp_path / name).touch()
    assert store.is_bag(tmp_path) is (Path(name).suffix in STORAGES.values())
