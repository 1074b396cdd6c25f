"""The demo, as a user runs it: processes over DDS, files that appear whole or not at all."""

import csv
import json
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from sam2lite_ros.msg import TrackerStatus

import sam2lite_core
from sam2lite_core.errors import SourceError
from sam2lite_core.evaluation.runs.machine import describe_machine
from sam2lite_core.media.label_map import read_label_map, write_label_map
from sam2lite_core.media.open import open_source
from sam2lite_ros.player.sources import RenderedSource, is_camera, rendered_clip
from sam2lite_ros.sessions.demo_report import frames_table, freshness, latencies
from sam2lite_ros.sessions.demo_settings import DemoRequest, check_request
from sam2lite_ros.sessions.recorder import Recording

ROOT = Path(__file__).resolve().parents[2]
PARTS = {"receive", "queue", "preprocess", "inference", "publish", "age"}


def run_demo(folder, *arguments):
    return subprocess.run(
        [sys.executable, "-m", "sam2lite_ros.sessions.demo", *map(str, arguments), "--out", str(folder / "out")],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=400,
    )


def result_of(folder):
    return json.loads((folder / "out" / "result.json").read_text())


def written(folder):
    return sorted(path.name for path in (folder / "out").iterdir())


@pytest.fixture
def clip_folder(tmp_path, small_clip):
    """Six small frames as a folder, and their truth as another."""
    frames, truth = tmp_path / "frames", tmp_path / "truth"
    frames.mkdir()
    truth.mkdir()
    for index, (image, labels) in enumerate(zip(small_clip.frames, small_clip.label_maps, strict=True)):
        cv2.imwrite(str(frames / f"shot{index}.png"), image[..., ::-1])
        write_label_map(truth / f"shot{index}.png", labels)
    return frames, truth


@pytest.mark.slow
def test_three_real_frames(shared_data, tmp_path):
    davis = shared_data / "davis16_dev"
    truth = davis / "Annotations" / "soapbox"
    done = run_demo(
        tmp_path, davis / "JPEGImages" / "soapbox", "--mask", truth / "00000.png", "--truth", truth,
        "--frames", 3, "--rate", 0.4, "--scale", 0.5,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert written(tmp_path) == ["contact_sheet.png", "frames.csv", "masks", "overlay.mp4", "result.json"]
    names = sorted(path.name for path in (tmp_path / "out" / "masks").iterdir())
    assert names == ["00000.png", "00001.png", "00002.png"]
    # The prompt landed on the first frame: its mask is the one that was given.
    first = read_label_map(tmp_path / "out" / "masks" / "00000.png")
    assert np.array_equal(first, read_label_map(truth / "00000.png"))
    result = result_of(tmp_path)
    assert result["frames"] == {
        "sent": 3, "received": 3, "processed": 3, "dropped": 0, "masks_recorded": 3,
        "deadlines_missed": result["frames"]["deadlines_missed"],
    }  # fmt: skip
    assert set(result["latency_ms"]) == PARTS
    assert result["score"]["frames_scored"] == 1
    assert result["score"]["jf"] == pytest.approx((result["score"]["j"] + result["score"]["f"]) / 2)
    with open_source(tmp_path / "out" / "overlay.mp4") as video:
        assert (video.length, video.size) == (3, (480, 854))
    assert "J&F" in done.stdout


@pytest.mark.slow
def test_the_rendered_clip_at_full_rate_loses_nothing_on_the_way(tmp_path):
    """640x480 at 30 Hz: what the tracker cannot take in time is dropped and counted, never lost before."""
    done = run_demo(tmp_path, "--frames", 30)
    assert done.returncode == 0, done.stdout + done.stderr
    result = result_of(tmp_path)
    counts = result["frames"]
    assert (result["rate_hz"], result["size"]) == (30.0, {"height": 480, "width": 640})
    assert counts["sent"] == counts["received"] == 30
    assert counts["processed"] + counts["dropped"] == 30
    assert counts["masks_recorded"] == counts["processed"]
    names = sorted(path.stem for path in (tmp_path / "out" / "masks").iterdir())
    assert names[0] == "00000"
    assert np.array_equal(read_label_map(tmp_path / "out" / "masks" / "00000.png"), rendered_clip().label_maps[0])
    assert result["machine"].items() >= describe_machine().items()
    assert result["machine"]["sam2lite"] == sam2lite_core.__version__
    # The newest frame is never dropped.
    assert names[-1] == "00029"


@pytest.mark.slow
def test_masks_are_named_like_their_frames_and_an_earlier_result_is_replaced(clip_folder, tmp_path):
    frames, truth = clip_folder
    (tmp_path / "out" / "masks").mkdir(parents=True)
    (tmp_path / "out" / "masks" / "old.png").touch()
    (tmp_path / "out" / "result.json").write_text("{}")
    y, x = np.argwhere(read_label_map(truth / "shot0.png") == 2).mean(axis=0).round()
    done = run_demo(tmp_path, frames, "--point", f"{x:.0f},{y:.0f}", "--truth", truth, "--rate", 3)
    assert done.returncode == 0, done.stdout + done.stderr
    names = {path.name for path in (tmp_path / "out" / "masks").iterdir()}
    assert "shot0.png" in names
    assert names <= {f"shot{index}.png" for index in range(6)}
    result = result_of(tmp_path)
    # The point lies on object 2 of the truth, so that is the id which is followed and scored.
    assert result["object_ids"] == [2]
    assert [entry["object_id"] for entry in result["score"]["objects"]] == [2]
    for name in names:
        assert set(np.unique(read_label_map(tmp_path / "out" / "masks" / name, keep_ids=True))) <= {0, 2}


BAD = {
    "no such source": (["nowhere", "--point", "1,1"], "nowhere"),
    "no prompt": (["{frames}"], "give --mask PNG, --point X,Y or --box"),
    "two prompts": (["{frames}", "--point", "1,1", "--box", "1,1,5,5"], "exclude each other"),
    "point outside": (["{frames}", "--point", "128,5"], "128"),
    "point is text": (["{frames}", "--point", "middle"], "'middle'"),
    "box of three": (["{frames}", "--box", "1,2,3"], "X0,Y0,X1,Y1"),
    "box inside out": (["{frames}", "--box", "9,9,3,3"], "x0 < x1"),
    "mask of another size": (["{frames}", "--mask", "{small}"], "4x4"),
    "mask is no file": (["{frames}", "--mask", "gone.png"], "gone.png"),
    "mask is empty": (["{frames}", "--mask", "{empty}"], "empty"),
    "no truth folder": (["{frames}", "--point", "5,5", "--truth", "gone"], "gone"),
    "truth of other frames": (["{frames}", "--point", "5,5", "--truth", "{frames}/.."], "shot0.png"),
    "topic without source": (["--topic", "/image"], "--topic goes with a SOURCE"),
    "topic of a folder": (["{frames}", "--point", "5,5", "--topic", "/image"], "no bag, so it has no topic"),
    "truth without source": (["--truth", "{truth}"], "SOURCE"),
    "variant": (["--variant", "huge"], "tiny, small, base"),
    "model": (["--model", "gone.onnx"], "gone.onnx"),
    "rate": (["--rate", "-1"], "--rate is -1"),
    "deadline": (["--deadline-ms", "-5"], "--deadline-ms is -5"),
    "scale": (["--scale", "0.2"], "--scale is 0.2"),
    "frames": (["--frames", "0"], "--frames is 0"),
    "option": (["--speed", "9"], "--speed"),
}


@pytest.mark.parametrize(("arguments", "named"), BAD.values(), ids=BAD)
def test_bad_input_ends_with_code_2_and_leaves_nothing(clip_folder, tmp_path, capsys, arguments, named):
    from sam2lite_ros.sessions.demo import main

    frames, truth = clip_folder
    write_label_map(tmp_path / "small.png", np.ones((4, 4), np.uint8))
    write_label_map(tmp_path / "empty.png", np.zeros((96, 128), np.uint8))
    places = {"frames": frames, "truth": truth, "small": tmp_path / "small.png", "empty": tmp_path / "empty.png"}
    before = sorted(tmp_path.iterdir())
    code = main([argument.format(**places) for argument in arguments] + ["--out", str(tmp_path / "out")])
    assert code == 2
    assert named in capsys.readouterr().err
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.slow
def test_a_source_that_breaks_off_while_playing_is_bad_input(clip_folder, tmp_path):
    frames, _ = clip_folder
    before = sorted(tmp_path.iterdir())
    (frames / "shot4.png").write_bytes((frames / "shot4.png").read_bytes()[:200])
    done = run_demo(tmp_path, frames, "--point", "60,40", "--rate", 3)
    assert done.returncode == 2, done.stdout + done.stderr
    assert "shot4.png" in done.stderr
    assert sorted(tmp_path.iterdir()) == before


def test_an_output_folder_that_is_not_ours_is_left_alone(tmp_path, capsys):
    from sam2lite_ros.sessions.demo import main

    (tmp_path / "letters").mkdir()
    (tmp_path / "letters" / "dear.txt").write_text("dear")
    assert main(["--out", str(tmp_path / "letters")]) == 2
    assert "result.json" in capsys.readouterr().err
    assert [path.name for path in (tmp_path / "letters").iterdir()] == ["dear.txt"]


@pytest.mark.slow
def test_a_model_that_is_not_ours_fails_with_the_tracker_s_reason(tmp_path):
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "step.onnx").write_bytes(b"not a model")
    done = run_demo(tmp_path, "--model", tmp_path / "model")
    assert done.returncode == 2
    assert str(tmp_path / "model") in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_a_bag_is_a_source_with_topics(tmp_path, small_clip):
    pytest.importorskip("rosbags", reason="needs rosbags: pip install 'sam2lite[bags]'")
    from sam2lite_core.media.bags.writer import image_message, new_bag

    with new_bag(tmp_path / "bag") as bag:
        for topic in ("/left", "/right"):
            for index, image in enumerate(small_clip.frames[:3]):
                bag.add(topic, "sensor_msgs/msg/Image", image_message(image, index), index * 100_000_000)
    settings = check_request(DemoRequest(str(tmp_path / "bag"), point="5,5", topic="/right"))
    assert (settings.request.topic, settings.size, settings.fps) == ("/right", (96, 128), pytest.approx(10))
    with pytest.raises(SourceError, match="choose one: /left"):
        check_request(DemoRequest(str(tmp_path / "bag"), point="5,5"))


def test_the_deadline_is_one_period_unless_given(clip_folder):
    frames, _ = clip_folder
    assert check_request(DemoRequest(str(frames), point="5,5", rate=20.0)).deadline_ms == pytest.approx(50.0)
    assert check_request(DemoRequest(str(frames), point="5,5", deadline_ms=0.0)).deadline_ms == 0.0
    assert check_request(DemoRequest(str(frames), point="5,5")).fps == 30.0


def test_latencies_are_summed_up_by_part():
    recording = Recording(statuses=[TrackerStatus(queue_ms=float(value)) for value in range(1, 102)])
    assert latencies(recording)["queue"] == {"p50": 51.0, "p95": 96.0, "max": 101.0}
    assert latencies(Recording()) == {}


def recording_of(*frames):
    """A recording from (stamp in ms, receive_ms, queue_ms) a frame; None for the last two: dropped."""
    recording = Recording()
    for index, (stamp_ms, receive_ms, queue_ms) in enumerate(frames):
        stamp = stamp_ms * 1_000_000
        recording.sent.append({"index": index, "name": f"{index:05d}", "stamp_ns": stamp})
        if receive_ms is not None:
            status = TrackerStatus(receive_ms=receive_ms, queue_ms=queue_ms, scale=0.5, window=8)
            status.header.stamp.sec, status.header.stamp.nanosec = divmod(stamp, 10**9)
            recording.statuses.append(status)
    return recording


def test_a_wait_is_compared_with_the_time_to_the_next_frame():
    recording = recording_of(
        (500, 2.0, 300.0), (1000, 2.0, 30.0), (1033, None, None), (1066, 4.0, 36.0), (1100, 2.0, 32.0)
    )
    found = freshness(recording)
    # The first frame is the demo's own pause; the last has no successor to be compared with.
    assert (found["frames"], found["overdue"]) == (2, 1)
    assert found["last_wait_ms"] == 34.0
    assert found["wait_max_ms"] == 40.0
    assert found["period_ms"] == 33.0
    assert found["overdue_max_ms"] == pytest.approx(6.0)
    assert freshness(Recording()) == {}


def test_every_frame_sent_has_its_row():
    text = frames_table(recording_of((1000, 2.0, 30.0), (1033, None, None)))
    rows = list(csv.DictReader(text.splitlines()))
    assert [row["name"] for row in rows] == ["00000", "00001"]
    assert (rows[0]["processed"], rows[0]["period_ms"], rows[0]["queue_ms"]) == ("1", "33.000", "30")
    assert (rows[1]["processed"], rows[1]["period_ms"], rows[1]["queue_ms"]) == ("0", "", "")


def test_the_rendered_source_gives_its_frames(tmp_path, monkeypatch):
    clip = rendered_clip()
    with RenderedSource(limit=2) as source:
        frames = list(source)
    assert (source.length, source.fps) == (2, 30.0)
    assert [(frame.index, frame.name) for frame in frames] == [(0, "00000"), (1, "00001")]
    assert np.array_equal(frames[1].image, clip.frames[1])
    monkeypatch.chdir(tmp_path)
    assert is_camera("0")
    (tmp_path / "0").mkdir()
    assert not is_camera("0")
    assert not is_camera("video.mp4")
