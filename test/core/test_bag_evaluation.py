"""The evaluation of a bag, without ROS: what is checked beforehand, how a recording is scored and explained."""

import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("rosbags", reason="needs rosbags: pip install 'sam2lite[bags]'")

from rosbags.highlevel import AnyReader

from sam2lite_core.cli import app
from sam2lite_core.control.registry import DEFAULT_CONTROLLER
from sam2lite_core.errors import ConfigurationError, Sam2LiteError, SourceError
from sam2lite_core.evaluation.bag import evaluate, session
from sam2lite_core.evaluation.bag.evaluate import evaluate_bag
from sam2lite_core.evaluation.bag.record import MASK_TOPIC, STATUS_TOPIC, write_bag
from sam2lite_core.evaluation.bag.request import Request, check_request
from sam2lite_core.evaluation.bag.result import document, latencies, result_table
from sam2lite_core.evaluation.bag.scores import run_offline, score_all, score_processed
from sam2lite_core.evaluation.bag.session import Recording, ReplayError, read_recording, replay
from sam2lite_core.evaluation.prompts import prompts_from_masks
from sam2lite_core.evaluation.region_boundary import frame_scores
from sam2lite_core.evaluation.tracker_options import TrackerOptions
from sam2lite_core.files import write_json
from sam2lite_core.media.bags.writer import image_message, new_bag
from sam2lite_core.media.label_map import read_label_map, write_label_map
from sam2lite_core.report.bags import bags
from sam2lite_core.report.inputs import read_inputs
from sam2lite_core.scenes.clip import render_clip
from sam2lite_core.tracker import Tracker
from sam2lite_core.variants import DEFAULT_POLICY

ROOT = Path(__file__).resolve().parents[2]
START, STEP = 1_700_000_000_000_000_000, 50_000_000
"""The bag's frames are 50 ms apart; their headers say one millisecond less than the recording."""
LAG = 1_000_000


def write_clip(clip, folder):
    """A clip as a bag of 20 Hz, and its true masks."""
    with new_bag(folder / "clip") as made:
        for index, image in enumerate(clip.frames):
            recorded = START + index * STEP
            made.add("/image", "sensor_msgs/msg/Image", image_message(image, recorded - LAG), recorded)
    (folder / "truth").mkdir()
    for index, labels in enumerate(clip.label_maps):
        write_label_map(folder / "truth" / f"{index:05d}.png", labels)
    return folder / "clip", folder / "truth"


@pytest.fixture
def clip_files(tmp_path, small_clip):
    return write_clip(small_clip, tmp_path)


@pytest.fixture
def bag(clip_files):
    return clip_files[0]


@pytest.fixture
def truth(clip_files):
    return clip_files[1]


@pytest.fixture
def request_of(bag, truth):
    """Makes requests for the clip."""
    tracker = TrackerOptions(threads=1)

    def make(**changes):
        return replace(Request(bag, truth, tracker=tracker), **changes)

    return make


def status(index, **changes):
    """A TrackerStatus of one frame as the replay notes it down."""
    return {
        "stamp_ns": index, "receive_ms": 1.0, "queue_ms": 2.0, "preprocess_ms": 3.0, "inference_ms": 20.0,
        "publish_ms": 4.0, "age_ms": 30.0 + index, "deadline_ms": 50.0, "deadline_missed": False, "scale": 1.0,
        "window": 8, "memory_tokens": 12, "memory_budget": 256, "frames_received": index + 1,
        "frames_processed": index + 1, "frames_dropped": 0, "deadlines_missed": 0, **changes,
    }  # fmt: skip


@pytest.fixture
def recording_of(tmp_path):
    """Makes a recording from {frame: (label map, changes of its status)}."""

    def make(processed, sent=6):
        masks, statuses = {}, {}
        for index, (labels, changes) in processed.items():
            masks[index] = tmp_path / f"seen{index}.png"
            write_label_map(masks[index], labels)
            statuses[index] = status(index, **changes)
        return Recording(tuple(range(sent)), statuses, masks, (ROOT / "msg" / "TrackerStatus.msg").read_text())

    return make


def test_a_plan_takes_its_numbers_from_the_bag(request_of, small_clip):
    settings = check_request(request_of(rate=0.5))
    assert (settings.topic, settings.frame_id, settings.size, settings.object_ids) == (
        "/image",
        "camera",
        (96, 128),
        (1, 2),
    )
    assert settings.recorded_ns == tuple(START + i * STEP for i in range(6))
    assert settings.stamps_ns == tuple(START + i * STEP - LAG for i in range(6))
    assert (settings.period_ms, settings.deadline_ms, settings.controller) == (100.0, 100.0, DEFAULT_CONTROLLER)
    assert np.array_equal(settings.mask, small_clip.label_maps[0])
    assert sorted(settings.truth) == list(range(6))
    assert settings.player_parameters()["speed"] == 0.5


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, {"controller": DEFAULT_CONTROLLER, "frame_deadline_ms": 50.0, "memory_policy": DEFAULT_POLICY}),
        ({"deadline_ms": 0.0}, {"controller": "off", "frame_deadline_ms": 0.0}),
        (
            {"deadline_ms": 80.0, "controller": "plain"},
            {"controller": "plain", "frame_deadline_ms": 80.0, "threads": 1},
        ),
        (
            {"tracker": TrackerOptions(scale=0.6, memory_budget=128, memory_policy="learned")},
            {"controller": "off", "min_scale": 0.6, "max_scale": 0.6, "memory_budget": 128, "memory_policy": "learned"},
        ),
    ],
)
def test_the_node_gets_the_options_under_its_own_names(request_of, tmp_path, changes, expected):
    parameters = check_request(request_of(**changes)).tracker_parameters(tmp_path / "prompt.png")
    assert parameters.items() >= expected.items()
    assert parameters["initial_prompt.mask_file"] == str(tmp_path / "prompt.png")


def by_stamp(truth):
    for index in range(6):
        (truth / f"{index:05d}.png").rename(truth / f"{START + index * STEP - LAG}.png")


def without_padding(truth):
    for index in range(6):
        (truth / f"{index:05d}.png").rename(truth / f"{index}.png")


@pytest.mark.parametrize("rename", [by_stamp, without_padding])
def test_true_masks_are_named_by_number_or_stamp(request_of, truth, rename, small_clip):
    rename(truth)
    settings = check_request(request_of())
    assert sorted(settings.truth) == list(range(6))
    assert np.array_equal(settings.true_label_map(4), small_clip.label_maps[4])


def test_frames_without_truth_are_named_and_not_scored(request_of, truth, recording_of, small_clip):
    for index in (2, 3):
        (truth / f"{index:05d}.png").unlink()
    settings = check_request(request_of())
    recording = recording_of({i: (small_clip.label_maps[i], {}) for i in range(6)})
    scored = score_processed(settings, recording)
    assert (scored.frames, scored.jf) == (2, 1.0)
    result = document(settings, recording, evaluate.score(settings, recording))
    assert result["truth"]["missing"] == [2, 3]
    assert result["score"]["processed"]["frames"] == 2


def test_a_limit_leaves_the_later_truth_out(request_of):
    settings = check_request(request_of(frames=4))
    assert sorted(settings.truth) == [0, 1, 2, 3]
    assert settings.player_parameters()["max_frames"] == 4


def rename_truth(old, new):
    def spoil(tmp_path, truth):
        (truth / old).rename(truth / new)

    return spoil


def small_truth(tmp_path, truth):
    write_label_map(truth / "00003.png", np.ones((4, 4), np.uint8))


def empty_first(tmp_path, truth):
    write_label_map(truth / "00000.png", np.zeros((96, 128), np.uint8))


def no_masks(tmp_path, truth):
    for path in truth.iterdir():
        path.unlink()


def damaged(tmp_path, truth):
    (truth / "00002.png").write_bytes((truth / "00002.png").read_bytes()[:40])


def small_mask(tmp_path, truth):
    write_label_map(tmp_path / "small.png", np.ones((4, 4), np.uint8))


def twice(tmp_path, truth):
    (truth / f"{START + 2 * STEP - LAG}.png").write_bytes((truth / "00002.png").read_bytes())


BAD = {
    "no such bag": (None, {"bag": Path("gone")}, "gone: no such bag"),
    "no such topic": (None, {"topic": "/left"}, "no images on topic '/left'; there are: /image (raw, 6 messages)"),
    "no truth folder": (None, {"truth": Path("gone")}, "--truth gone: no such folder"),
    "truth without masks": (no_masks, {}, "no mask for any frame of the bag"),
    "truth of another bag": (rename_truth("00005.png", "00006.png"), {}, "00006.png: belongs to none of the 6 frames"),
    "truth by words": (rename_truth("00005.png", "last.png"), {}, "last.png: belongs to none of the 6 frames"),
    "two truths for a frame": (twice, {}, "shows frame 2, as 00002.png does"),
    "truth of another size": (small_truth, {}, "00003.png: is 4x4, the bag's images 128x96"),
    "truth that is damaged": (damaged, {}, "00002.png: damaged PNG file"),
    "no first truth": (rename_truth("00000.png", "x"), {}, "holds no 00000.png, the first image's mask"),
    "first truth is empty": (empty_first, {}, "00000.png: shows no object"),
    "mask is no file": (None, {"mask": Path("gone.png")}, "gone.png: no such mask file"),
    "mask of another size": (small_mask, {"mask": Path("small.png")}, "small.png: is 4x4, the bag's images 128x96"),
    "rate": (None, {"rate": 0.0}, "--rate is 0"),
    "deadline": (None, {"deadline_ms": -5.0}, "--deadline-ms is -5"),
    "frames": (None, {"frames": 0}, "--frames is 0"),
    "controller": (None, {"controller": "magic"}, "magic"),
    "scale": (None, {"tracker": TrackerOptions(scale=0.2)}, "--scale is 0.2"),
    "variant": (None, {"tracker": TrackerOptions("huge")}, "tiny, small, base"),
    "model": (None, {"tracker": TrackerOptions(model_path="gone")}, "--model gone: no such file or folder"),
}  # fmt: skip


@pytest.mark.parametrize(("spoil", "changes", "said"), BAD.values(), ids=BAD)
def test_bad_input_is_named_before_anything_starts(request_of, tmp_path, truth, monkeypatch, spoil, changes, said):
    if spoil is not None:
        spoil(tmp_path, truth)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(evaluate, "replay", lambda *_: pytest.fail("something was started"))
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(Sam2LiteError) as caught:
        evaluate_bag(request_of(**changes), tmp_path / "out", tmp_path / "seen")
    assert said in str(caught.value)
    assert sorted(tmp_path.rglob("*")) == before


def shifted(labels, pixels):
    return np.roll(labels, pixels, axis=1)


def test_scores_are_those_of_the_frames_that_count(request_of, recording_of, small_clip):
    """Frame 3 was dropped: it counts only where all frames do, and then with the mask of frame 2."""
    true = small_clip.label_maps
    recording = recording_of({i: (shifted(true[i], 2 + i), {}) for i in (0, 1, 2, 4, 5)})
    settings = check_request(request_of())

    def expected(pairs):
        scores = np.array([[frame_scores(p == k, t == k) for p, t in pairs] for k in (1, 2)])
        return scores.mean(axis=1).mean()

    processed = [(shifted(true[i], 2 + i), true[i]) for i in (1, 2, 4)]
    scored = score_processed(settings, recording)
    assert (scored.frames, scored.jf) == (3, pytest.approx(expected(processed)))
    everything = score_all(settings, recording)
    stale = [*processed, (shifted(true[2], 4), true[3])]
    assert (everything.frames, everything.jf) == (4, pytest.approx(expected(stale)))


def play(clip, recording_of):
    """What a node would leave that dropped frame 2 and went from full resolution to 0.6."""
    tracker, masks, last = Tracker(threads=1), {}, -1
    for index in (0, 1, 3, 4, 5):
        scale, window = (1.0, 8) if index < 3 else (0.6, 4)
        tracker.configure(scale=scale, min_window=window, max_window=window)
        prompts = prompts_from_masks(clip.label_maps[0]) if index == 0 else ()
        result = tracker.step(clip.frames[index], prompts, elapsed=max(1, index - last))
        counts = {"frames_received": index + 1, "frames_dropped": int(index > 2)}
        # What a float32 field makes of the scale.
        how = {"scale": float(np.float32(scale)), "window": window, "deadline_missed": index == 3, **counts}
        masks[index], last = (result.label_map, how), index
    return recording_of(masks)


@pytest.fixture
def played(request_of, recording_of, small_clip):
    return check_request(request_of()), play(small_clip, recording_of)


def test_the_offline_run_as_played_is_the_replay_to_the_pixel(tmp_path, recording_of):
    """Frames large enough for the scale to matter: none is ever enlarged."""
    clip = render_clip(1, height=352, width=448, frames=6)
    bag, truth = write_clip(clip, tmp_path)
    settings, recording = (
        check_request(Request(bag, truth, tracker=TrackerOptions(threads=1))),
        play(clip, recording_of),
    )
    assert run_offline(settings, recording, as_played=True).identical == 5
    assert run_offline(settings, recording, as_played=False).identical == 2


def test_the_difference_falls_into_its_parts(played):
    settings, recording = played
    result = document(settings, recording, evaluate.score(settings, recording))
    score, why = result["score"], result["why"]
    assert (score["processed"]["frames"], score["all_frames"]["frames"]) == (3, 4)
    assert why["node"] == 0.0
    assert why["identical_masks"] == 5
    assert score["offline"]["jf"] + why["resolution_and_window"] == pytest.approx(score["processed"]["jf"])
    assert score["processed"]["jf"] + why["dropped_frames"] == pytest.approx(score["all_frames"]["jf"])
    assert "(scale 0.6 to 1, offline 1)" in why["sentences"][0]
    assert "5 of 5 masks" in why["sentences"][1]
    assert "1 of 6 have the mask before them" in why["sentences"][2]
    assert result["frames"] == {
        "in_bag": 6, "sent": 6, "received": 6, "processed": 6, "dropped": 1, "masks_recorded": 5,
    }  # fmt: skip
    assert result["deadline"] == {"ms": 50.0, "missed": 1, "share": 0.2}
    assert result["per_frame"]["age_ms"] == [30.0, 31.0, None, 33.0, 34.0, 35.0]
    assert result["per_frame"]["scale"] == [1.0, 1.0, None, 0.6, 0.6, 0.6]
    assert json.loads(json.dumps(result)) == result


def cells(table):
    """The one row of a table by column."""
    (row,) = table.rows
    return dict(zip(table.columns, row, strict=True))


@pytest.mark.parametrize("scored", [True, False])
def test_the_report_reads_what_is_written(played, tmp_path, scored):
    """Both sides of `bag.json`: the names that one writes are those that the other looks for."""
    settings, recording = played
    recording.statuses[5].update(frames_received=5)  # so that one got lost
    if not scored:
        settings = replace(settings, truth={0: settings.truth[0]})
    result = document(settings, recording, evaluate.score(settings, recording))
    (tmp_path / "left").mkdir()
    write_json(tmp_path / "left" / "bag.json", result)
    inputs = read_inputs([tmp_path / "left"])
    assert (list(inputs.bags), inputs.left_out) == (["left"], [])
    times, scores = map(cells, bags(inputs).tables)
    assert times == {
        "bag": "left", "topic": "/image", "rate": "1×", "frames": "6", "lost on the way": "1", "processed": "6",
        "dropped": "1", "deadline ms": "50.0", "missed": "1", "age p50 ms": "33.0", "p95": "34.8", "p99": "35.0",
        "longest": "35.0",
    }  # fmt: skip
    score, why = result["score"], result["why"]
    shown = [f"{100 * score[name]['jf']:.1f}" if scored else "–" for name in ("offline", "processed", "all_frames")]
    parts = ("resolution_and_window", "node", "dropped_frames")
    between = [f"{100 * why[name]:+.1f}" if scored else "–" for name in parts]
    assert (why is None) == (not scored)
    assert scores == {
        "bag": "left",
        "J&F offline": shown[0],
        "resolution, window": between[0],
        "node": between[1],
        "J&F processed": shown[1],
        "frames without a mask of their own": between[2],
        "J&F all frames": shown[2],
    }


def test_without_a_choice_one_offline_run_serves(request_of, recording_of, small_clip, monkeypatch):
    ran = []
    monkeypatch.setattr(
        evaluate, "run_offline", lambda *_, as_played, **__: ran.append(as_played) or run_offline(*_, as_played=False)
    )
    settings = check_request(request_of(tracker=TrackerOptions(scale=0.6, threads=1)))
    recording = recording_of({i: (small_clip.label_maps[i], {"scale": 0.6}) for i in range(6)})
    evaluate.score(settings, recording)
    assert ran == [False]


def test_percentiles_are_taken_over_the_processed_frames(recording_of):
    blank = np.zeros((2, 2), np.uint8)
    recording = recording_of({i: (blank, {"age_ms": float(i)}) for i in range(101)})
    assert latencies(recording)["age"] == {"p50": 50.0, "p95": 95.0, "p99": 99.0, "max": 100.0}
    assert latencies(Recording((), {}, {}, "")) == {}


@pytest.mark.parametrize("storage", ["sqlite3", "mcap"])
def test_the_bag_that_is_left_explains_itself_and_keeps_the_stamps(played, tmp_path, storage):
    settings, recording = played
    assert write_bag(settings, recording, tmp_path / "seen", storage) == 10
    seen = {MASK_TOPIC: [], STATUS_TOPIC: []}
    with AnyReader([tmp_path / "seen"]) as reader:
        for connection, recorded, data in reader.messages():
            seen[connection.topic].append((recorded, reader.deserialize(data, connection.msgtype)))
    for messages in seen.values():
        stamps = [m.header.stamp.sec * 10**9 + m.header.stamp.nanosec for _, m in messages]
        assert stamps == [settings.stamps_ns[i] for i in (0, 1, 3, 4, 5)]
        assert [recorded for recorded, _ in messages] == [
            settings.recorded_ns[i] + (30 + i) * 1_000_000 for i in (0, 1, 3, 4, 5)
        ]
        assert {message.header.frame_id for _, message in messages} == {"camera"}
    for (_, mask), index in zip(seen[MASK_TOPIC], (0, 1, 3, 4, 5), strict=True):
        assert (mask.encoding, mask.step, mask.height, mask.width) == ("mono8", 128, 96, 128)
        assert np.array_equal(mask.data.reshape(96, 128), read_label_map(recording.masks[index], keep_ids=True))
    _, last = seen[STATUS_TOPIC][-1]
    assert (last.window, last.frames_received, last.deadline_missed) == (4, 6, False)
    assert last.scale == pytest.approx(0.6)


def test_foxglove_reads_the_bag_that_is_left(played, tmp_path, read_mcap):
    """Our own type too is explained by the file itself."""
    settings, recording = played
    write_bag(settings, recording, tmp_path / "seen", "mcap")
    read = read_mcap(tmp_path / "seen")
    masks = [entry for entry in read if entry.topic == MASK_TOPIC]
    statuses = [entry for entry in read if entry.topic == STATUS_TOPIC]
    assert len(masks) + len(statuses) == len(read) == 10
    assert {entry.kind for entry in statuses} == {"sam2lite_ros/msg/TrackerStatus"}
    assert "float32 age_ms" in statuses[0].definition
    processed = (0, 1, 3, 4, 5)
    for entries in (masks, statuses):
        assert [entry.stamp_ns for entry in entries] == [settings.stamps_ns[i] for i in processed]
        assert [entry.recorded_ns for entry in entries] == [
            settings.recorded_ns[i] + (30 + i) * 1_000_000 for i in processed
        ]
    for entry, index in zip(masks, processed, strict=True):
        message = entry.message
        assert (message.encoding, message.height, message.width, message.step) == ("mono8", 96, 128, 128)
        pixels = np.frombuffer(bytes(message.data), np.uint8).reshape(96, 128)
        assert np.array_equal(pixels, read_label_map(recording.masks[index], keep_ids=True))
    for entry, index in zip(statuses, processed, strict=True):
        told = {k: v for k, v in recording.statuses[index].items() if k != "stamp_ns"}
        found = {name: getattr(entry.message, name) for name in told}
        assert found == pytest.approx(told)


def test_ids_above_255_make_a_wider_mask(played, tmp_path):
    settings, recording = played
    labels = np.zeros((96, 128), np.uint16)
    labels[3, 5] = 300
    write_label_map(recording.masks[0], labels)
    write_bag(replace(settings, object_ids=(1, 300)), recording, tmp_path / "seen", "mcap")
    with AnyReader([tmp_path / "seen"]) as reader:
        connections = [c for c in reader.connections if c.topic == MASK_TOPIC]
        _, _, data = next(reader.messages(connections))
        mask = reader.deserialize(data, connections[0].msgtype)
    assert (mask.encoding, mask.step) == ("mono16", 256)
    assert np.array_equal(mask.data.view("<u2").reshape(96, 128), labels)


def test_a_complete_result_is_written_or_nothing(played, tmp_path, monkeypatch):
    settings, recording = played
    monkeypatch.setattr(evaluate, "check_ros", lambda: None)
    monkeypatch.setattr(evaluate, "replay", lambda *_: recording)
    out, seen = tmp_path / "out", tmp_path / "seen"
    result = evaluate_bag(settings.request, out, seen)
    assert sorted(path.name for path in out.iterdir()) == ["bag.json", "masks"]
    assert json.loads((out / "bag.json").read_text()) == result
    assert sorted(path.stem for path in (out / "masks").iterdir()) == ["00000", "00001", "00003", "00004", "00005"]
    assert sorted(path.name for path in seen.iterdir()) == ["metadata.yaml", "seen.db3"]
    with pytest.raises(SourceError, match="not empty"):
        evaluate_bag(settings.request, out)
    with pytest.raises(SourceError, match="seen: exists already"):
        evaluate_bag(settings.request, out, seen, overwrite=True)
    with pytest.raises(SourceError, match="lies in the folder for the result"):
        evaluate_bag(settings.request, tmp_path / "new", tmp_path / "new" / "seen")

    def another_run(*_):
        (tmp_path / "new").mkdir()
        (tmp_path / "new" / "bag.json").write_text("{}")
        return recording

    monkeypatch.setattr(evaluate, "replay", another_run)
    with pytest.raises(SourceError, match="new: not empty: it holds an earlier result"):
        evaluate_bag(settings.request, tmp_path / "new", tmp_path / "more")
    assert (tmp_path / "new" / "bag.json").read_text() == "{}"
    shutil.rmtree(tmp_path / "new")
    monkeypatch.setattr(evaluate, "replay", lambda *_: recording)

    def fail(*_):
        raise SourceError("the disk is full")

    monkeypatch.setattr(evaluate, "write_bag", fail)
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(SourceError, match="the disk is full"):
        evaluate_bag(settings.request, tmp_path / "new", tmp_path / "more")
    assert sorted(tmp_path.rglob("*")) == before


def test_the_table_says_what_matters(played, monkeypatch):
    from rich.console import Console

    settings, recording = played
    settings = replace(settings, stamps_back=2, truth={k: v for k, v in settings.truth.items() if k != 4})
    console = Console(record=True, width=120)
    console.print(result_table(document(settings, recording, evaluate.score(settings, recording))))
    text = console.export_text()
    for wanted in ("6 in the bag", "2 earlier than the one before", "1 frames have none", "p99", "50.0 ms, 1 of"):
        assert wanted in text
    assert text.count("why they differ") == 1


FAKE = """
import json, pathlib, sys, time
work = pathlib.Path(sys.argv[1])
request = json.loads((work / "request.json").read_text())
assert request["player"]["speed"] == 1.0 and pathlib.Path(request["tracker"]["initial_prompt.mask_file"]).is_file()
"""


@pytest.fixture
def fake_replay(tmp_path, monkeypatch):
    """Puts code in the place of the process that runs the nodes."""

    def put(code):
        (tmp_path / "fake_replay.py").write_text(FAKE + code)
        monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=os.pathsep)
        monkeypatch.setattr(session, "REPLAY", "fake_replay")
        monkeypatch.setattr(session, "check_ros", lambda: None)
        work = tmp_path / "work"
        work.mkdir()
        return work

    return put


@pytest.mark.parametrize(
    ("code", "error", "said"),
    [
        ("print('fake_replay: clip: image 3 is damaged', file=sys.stderr); sys.exit(2)", SourceError, "clip: image 3"),
        (
            "print('fake_replay: the tracker ended', file=sys.stderr); sys.exit(1)",
            ReplayError,
            "code 1: the tracker ended",
        ),
        ("import gone_with_the_wind", ReplayError, "gone_with_the_wind"),
    ],
)
def test_a_replay_that_fails_says_why(request_of, fake_replay, code, error, said):
    work = fake_replay(code)
    with pytest.raises(error, match=said):
        replay(check_request(request_of()), work)


def test_what_is_sent_is_counted_and_an_interrupt_ends_the_nodes(request_of, fake_replay):
    work = fake_replay(
        "import os; (work / 'pid').write_text(str(os.getpid()))\n"
        "(work / 'frames.jsonl').write_text('{}\\n{}\\n')\n"
        "time.sleep(600)\n"
    )
    counted = []

    def interrupted_at_the_second():
        counted.append(1)
        if len(counted) == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        replay(check_request(request_of()), work, interrupted_at_the_second)
    assert len(counted) == 2
    pid = int((work / "pid").read_text())
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_a_recording_is_read_by_the_frames_numbers(tmp_path):
    (tmp_path / "masks").mkdir()
    write_label_map(tmp_path / "masks" / "700.png", np.ones((2, 2), np.uint8))
    (tmp_path / "frames.jsonl").write_text('{"index": 0, "stamp_ns": 500}\n{"index": 1, "stamp_ns": 700}\n')
    (tmp_path / "statuses.jsonl").write_text(json.dumps(status(700)) + "\n")
    (tmp_path / "TrackerStatus.msg").write_text("definition")
    recording = read_recording(tmp_path)
    assert (recording.sent, list(recording.masks), list(recording.statuses)) == ((0, 1), [1], [1])
    (tmp_path / "statuses.jsonl").write_text(json.dumps(status(900)) + "\n")
    with pytest.raises(ReplayError, match="stamp 900 ns, which the player never sent"):
        read_recording(tmp_path)


@pytest.mark.parametrize("missing", ["rclpy", "sam2lite_ros"])
def test_without_ros_the_command_says_what_is_missing(bag, truth, tmp_path, monkeypatch, capsys, missing):
    find = session.importlib.util.find_spec
    monkeypatch.setattr(
        session.importlib.util, "find_spec", lambda name: None if name == missing else name == "rclpy" or find(name)
    )
    with pytest.raises(SystemExit) as end:
        app.main(["eval", "bag", str(bag), "--truth", str(truth), "--out", str(tmp_path / "out")])
    assert end.value.code == 2
    assert f"there is no {missing} here; run scripts/setup.sh" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_process_that_fails_is_exit_code_1(bag, truth, monkeypatch, capsys):
    def fail(*_, **__):
        raise ReplayError("the tracker did not appear")

    monkeypatch.setattr(evaluate, "evaluate_bag", fail)
    with pytest.raises(SystemExit) as end:
        app.main(["eval", "bag", str(bag), "--truth", str(truth)])
    assert end.value.code == 1
    assert "the tracker did not appear" in capsys.readouterr().err


def test_planning_needs_no_ros(bag, truth):
    """The core finds out what is wrong with a bag on a machine without ROS."""
    code = (
        "import sys; from pathlib import Path\n"
        "from sam2lite_core.evaluation.bag.request import Request, check_request\n"
        f"check_request(Request(Path({str(bag)!r}), Path({str(truth)!r}))); print('rclpy' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False"]


def test_errors_of_settings_name_them(request_of):
    with pytest.raises(ConfigurationError, match="--rate is 101"):
        check_request(request_of(rate=101.0))
