"""Frames in, masks and videos out: what is read, what is refused, and that nothing is left half written."""

import contextlib
import json
import zlib

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from sam2lite_core.errors import InvalidPromptError, SourceError
from sam2lite_core.files import output_folder, write_atomically
from sam2lite_core.media import readers
from sam2lite_core.media.label_map import decode_label_map, encode_label_map, read_label_map, write_label_map
from sam2lite_core.media.open import open_source
from sam2lite_core.media.pictures import natural_key, read_image
from sam2lite_core.media.video_writer import VideoWriter
from sam2lite_core.types import ObjectState, Prompt, StepTimings, TrackedObject, TrackResult
from sam2lite_core.video import VideoProcessor, record_video, track_video


class CopyTracker:
    """Answers with the mask of the latest prompt; counts resets."""

    def __init__(self):
        self.resets, self.calls = 0, []

    def reset(self):
        self.resets += 1
        self.label_map = None

    def step(self, image, prompts=()):
        self.calls.append([prompt.object_id for prompt in prompts])
        if prompts:
            self.label_map = sum(p.mask.astype(np.uint8) * p.object_id for p in prompts)
        objects = tuple(
            TrackedObject(int(i), ObjectState.TRACKED, 0.5, (0, 0, 1, 1), 1, (0.5, 0.5))
            for i in np.unique(self.label_map)
            if i
        )
        return TrackResult(self.label_map, objects, StepTimings(1.0, 2.0, 4.0, 3.0))


def write_frames(folder, clip, names):
    folder.mkdir(parents=True, exist_ok=True)
    for name, image in zip(names, clip, strict=True):
        assert cv2.imwrite(str(folder / name), image[..., ::-1])
    return folder


def write_video(path, clip, fps=25.0):
    with VideoWriter(path, fps) as writer:
        for image in clip:
            writer.write(image)
    return path


def half_mask(height=96, width=128):
    mask = np.zeros((height, width), bool)
    mask[:, : width // 2] = True
    return mask


# --- sources


def test_folder_gives_its_images_in_natural_order(tmp_path, random_clip):
    names = ["f10.png", "f2.png", "f1.png", "f3.PNG", "f20.png", "f100.png"]
    folder = write_frames(tmp_path / "frames", random_clip, names)
    (folder / "notes.txt").write_text("not an image")
    (folder / ".f0.png").write_bytes(b"hidden")
    with open_source(folder) as source:
        assert (source.fps, source.length, source.size) == (None, 6, (48, 64))
        frames = list(source)
    assert [frame.name for frame in frames] == ["f1", "f2", "f3", "f10", "f20", "f100"]
    assert [frame.index for frame in frames] == list(range(6))
    for frame, origin in zip(frames, [2, 1, 3, 0, 4, 5], strict=True):
        assert np.array_equal(frame.image, random_clip[origin])


@pytest.mark.parametrize(
    "names", [["2", "10"], ["a2b", "a10b"], ["img_9_2", "img_10_1"], ["00009", "00010"], ["1", "a"], ["a", "a1"]]
)
def test_natural_key_orders(names):
    shuffled = [names[1], names[0]]
    assert sorted(shuffled, key=natural_key) == names


def test_stamps_follow_the_rate_that_is_given(tmp_path, random_clip):
    folder = write_frames(tmp_path / "frames", random_clip, [f"{i}.png" for i in range(6)])
    with open_source(folder, fps=10, limit=3) as source:
        assert (source.fps, source.length) == (10, 3)
        assert [frame.stamp for frame in source] == pytest.approx([0, 0.1, 0.2])


def test_images_of_a_folder_may_differ_in_size(tmp_path, random_clip):
    folder = write_frames(tmp_path / "frames", [random_clip[0], random_clip[1][:32]], ["0.png", "1.png"])
    with open_source(folder) as source:
        assert [frame.image.shape for frame in source] == [(48, 64, 3), (32, 64, 3)]


def test_video_round_trip(tmp_path, small_clip):
    path = write_video(tmp_path / "clip.mp4", small_clip.frames)
    assert [entry.name for entry in tmp_path.iterdir()] == ["clip.mp4"]
    with open_source(path) as source:
        assert (source.fps, source.length, source.size) == (25, 6, (96, 128))
        frames = list(source)
    assert [frame.name for frame in frames] == [f"{index:05d}" for index in range(6)]
    assert [frame.stamp for frame in frames] == pytest.approx([index / 25 for index in range(6)])
    for frame, original in zip(frames, small_clip.frames, strict=True):
        # Lossy, yet far closer than with two channels exchanged.
        error = np.abs(frame.image.astype(int) - original).mean()
        assert error < 0.5 * np.abs(frame.image[..., ::-1].astype(int) - original).mean()


def test_a_paths_existence_wins_over_a_camera_index(tmp_path, random_clip, monkeypatch):
    write_frames(tmp_path / "0", random_clip[:1], ["a.png"])
    monkeypatch.chdir(tmp_path)
    with open_source("0") as source:
        assert [frame.name for frame in source] == ["a"]


class FakeCamera:
    """Delivers `total` frames, then fails."""

    def __init__(self, total):
        self.total, self.released = total, False

    def __call__(self, index):
        self.index = index
        return self

    def isOpened(self):
        return self.total > 0

    def read(self):
        self.total -= 1
        return (True, np.full((20, 30, 3), (1, 2, 3), np.uint8)) if self.total >= 0 else (False, None)

    def get(self, _):
        return 0.0

    def release(self):
        self.released = True


def test_camera_frames_are_rgb_and_end_with_the_device(monkeypatch):
    camera = FakeCamera(4)
    monkeypatch.setattr(readers.cv2, "VideoCapture", camera)
    with open_source("3") as source:
        assert (camera.index, source.fps, source.length, source.size) == (3, None, None, (20, 30))
        frames = []
        with pytest.raises(SourceError, match="camera 3: stopped delivering after 3 frames"):
            for frame in source:
                frames.append(frame)
    assert camera.released
    assert [frame.index for frame in frames] == [0, 1, 2]
    assert frames[0].image[0, 0].tolist() == [3, 2, 1]
    assert frames[0].stamp <= frames[1].stamp <= frames[2].stamp


def test_camera_that_is_not_there(monkeypatch):
    monkeypatch.setattr(readers.cv2, "VideoCapture", FakeCamera(0))
    with pytest.raises(SourceError, match="camera 7: not there"):
        open_source(7)


def make_empty(tmp_path):
    (tmp_path / "x").mkdir()


def make_damaged_image(tmp_path):
    write_frames(tmp_path / "x", [np.zeros((40, 40, 3), np.uint8)], ["0.png"])
    (tmp_path / "x" / "0.png").write_bytes(b"no picture")


def make_single_image(tmp_path):
    write_frames(tmp_path, [np.zeros((40, 40, 3), np.uint8)], ["x.png"])
    (tmp_path / "x.png").rename(tmp_path / "x")
    (tmp_path / "x").rename(tmp_path / "x.jpg")


def make_noise_video(tmp_path):
    (tmp_path / "x.mp4").write_bytes(bytes(range(256)) * 20)


@pytest.mark.parametrize(
    ("make", "name", "message"),
    [
        (lambda _: None, "x", "x: no such folder, video file, bag or camera index"),
        (make_empty, "x", "x: no image in this folder"),
        (make_damaged_image, "x", r"0\.png: not a readable image"),
        (make_single_image, "x.jpg", "single image; give the folder"),
        (make_noise_video, "x.mp4", r"x\.mp4: not a video that can be opened"),
    ],
)
def test_sources_that_cannot_be_read(tmp_path, make, name, message):
    make(tmp_path)
    with pytest.raises(SourceError, match=message):
        open_source(tmp_path / name)


@pytest.mark.parametrize(("option", "value"), [("fps", 0.0), ("fps", float("nan")), ("limit", 0)])
def test_options_of_a_source_are_checked(tmp_path, option, value):
    with pytest.raises(SourceError, match=f"{option}.*not positive"):
        open_source(tmp_path, **{option: value})


@pytest.mark.parametrize("suffix", ["jpg", "png"])
@pytest.mark.parametrize("share", [0.3, 0.9])
def test_an_image_cut_short_in_mid_sequence_is_named(tmp_path, random_clip, suffix, share):
    folder = write_frames(tmp_path / "frames", random_clip[:3], [f"{i}.{suffix}" for i in range(3)])
    damaged = folder / f"1.{suffix}"
    data = damaged.read_bytes()
    damaged.write_bytes(data[: int(share * len(data))])
    with open_source(folder) as source, pytest.raises(SourceError, match=rf"1\.{suffix}.*cut short"):
        list(source)


def test_truncated_video_is_refused_after_its_last_whole_frame(tmp_path, rng):
    """Motion JPEG in AVI keeps its index at the end, so that a cut file still opens."""
    path = tmp_path / "cut.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 30, (64, 48))
    for _ in range(40):
        writer.write(rng.integers(0, 256, (48, 64, 3), dtype=np.uint8))
    writer.release()
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    frames = []
    with open_source(path) as source, pytest.raises(SourceError, match=r"cut\.avi: ends after \d+ of 40 frames"):
        for frame in source:
            frames.append(frame)
    assert 10 < len(frames) < 30


def test_read_image_names_a_missing_file(tmp_path):
    with pytest.raises(SourceError, match=r"nothing\.png: cannot be read"):
        read_image(tmp_path / "nothing.png")


# --- label maps

label_maps = st.sampled_from([(np.uint8, 254), (np.uint16, 65535)]).flatmap(
    lambda kind: npst.arrays(
        kind[0], npst.array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=9), elements=st.integers(0, kind[1])
    )
)


@settings(max_examples=100, deadline=None)
@given(label_maps)
def test_label_maps_survive_png(label_map):
    decoded = decode_label_map(encode_label_map(label_map), keep_ids=True)
    assert np.array_equal(decoded, label_map)
    assert decoded.dtype == (np.uint16 if label_map.max() > 255 else np.uint8)


@settings(max_examples=100, deadline=None)
@given(npst.arrays(np.uint8, npst.array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=9)))
def test_indexed_label_maps_keep_their_ids(label_map):
    data = encode_label_map(label_map, indexed=True)
    assert np.array_equal(decode_label_map(data), label_map)
    coloured = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    assert coloured.ndim == 3  # viewers see colours


def tiny_png(depth, colour_type, rows, extra=b""):
    """A PNG built by hand: OpenCV cannot write palettes or less than 8 bits."""

    def chunk(kind, body):
        return len(body).to_bytes(4, "big") + kind + body + zlib.crc32(kind + body).to_bytes(4, "big")

    width = len(rows[0]) * 8 // depth // (3 if colour_type == 2 else 1)
    header = width.to_bytes(4, "big") + len(rows).to_bytes(4, "big") + bytes([depth, colour_type, 0, 0, 0])
    pixels = zlib.compress(b"".join(b"\0" + row for row in rows))
    body = chunk(b"IHDR", header) + extra + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


PALETTE = b"\0\0\0\x0cPLTE" + bytes([0, 0, 0, 200, 0, 0, 0, 200, 0, 0, 0, 200])
PALETTE += zlib.crc32(PALETTE[4:]).to_bytes(4, "big")
TRANSPARENCY = b"\0\0\0\x01tRNS\0"
TRANSPARENCY += zlib.crc32(TRANSPARENCY[4:]).to_bytes(4, "big")


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        pytest.param(tiny_png(8, 3, [bytes([0, 1]), bytes([2, 3])], PALETTE), [[0, 1], [2, 3]], id="8-bit palette"),
        pytest.param(tiny_png(2, 3, [bytes([0b00011011])], PALETTE), [[0, 1, 2, 3]], id="2-bit palette"),
        pytest.param(tiny_png(1, 3, [bytes([0b01010011])], PALETTE), [[0, 1, 0, 1, 0, 0, 1, 1]], id="1-bit palette"),
        pytest.param(
            tiny_png(8, 3, [bytes([0, 1, 3])], PALETTE + TRANSPARENCY), [[0, 1, 3]], id="palette with transparency"
        ),
        pytest.param(tiny_png(1, 0, [bytes([0b10000001])]), [[1, 0, 0, 0, 0, 0, 0, 1]], id="1-bit grey"),
        pytest.param(tiny_png(8, 0, [bytes([0, 255, 255])]), [[0, 1, 1]], id="DAVIS 2016: one object in white"),
        pytest.param(tiny_png(8, 0, [bytes([7, 255, 0])]), [[7, 255, 0]], id="255 beside others is an id"),
        pytest.param(tiny_png(8, 3, [bytes([0, 255])], PALETTE), [[0, 255]], id="255 in a palette is an id"),
        pytest.param(tiny_png(16, 0, [bytes([1, 0, 0, 2])]), [[256, 2]], id="16-bit grey"),
        pytest.param(tiny_png(8, 2, [bytes([0, 0, 0, 255, 255, 255])]), [[0, 1]], id="black and white saved as colour"),
    ],
)
def test_png_kinds(data, expected):
    assert decode_label_map(data).tolist() == expected


def test_keep_ids_leaves_a_lone_255():
    data = tiny_png(8, 0, [bytes([0, 255])])
    assert decode_label_map(data, keep_ids=True).tolist() == [[0, 255]]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "not a PNG"),
        (b"\xff\xd8\xff\xe0" + bytes(100), "not a PNG"),
        (tiny_png(8, 0, [bytes(60)])[:50], "damaged"),
        (tiny_png(8, 2, [bytes([1, 2, 3])]), "colour picture of 3 channels"),
    ],
)
def test_what_is_no_label_map_is_refused(tmp_path, data, message):
    path = tmp_path / "mask.png"
    path.write_bytes(data)
    with pytest.raises(SourceError, match=rf"mask\.png.*{message}"):
        read_label_map(path)


def test_a_missing_mask_is_named(tmp_path):
    with pytest.raises(SourceError, match=r"gone\.png: no such mask file"):
        read_label_map(tmp_path / "gone.png")


@pytest.mark.parametrize(
    ("label_map", "indexed", "message"),
    [
        (np.full((2, 2), 70000), False, "id 70000"),
        (np.full((2, 2), -1), False, "id -1"),
        (np.full((2, 2), 256), True, "id 256, outside 0..255"),
        (np.zeros((2, 2, 3), np.uint8), False, r"shape \(2, 2, 3\)"),
        (np.zeros((0, 2), np.uint8), False, r"shape \(0, 2\)"),
    ],
)
def test_label_maps_that_cannot_be_written(label_map, indexed, message):
    with pytest.raises(SourceError, match=message):
        encode_label_map(label_map, indexed=indexed)


# --- writing whole or not at all


def test_write_atomically_leaves_the_old_file_when_it_fails(tmp_path):
    path = tmp_path / "file"
    write_atomically(path, b"old")
    with pytest.raises(TypeError):
        write_atomically(path, 3)
    assert path.read_bytes() == b"old"
    with pytest.raises(SourceError, match="cannot be written"):
        write_label_map(tmp_path / "missing" / "x.png", np.zeros((2, 2), np.uint8))


@pytest.mark.parametrize("frames", [0, 2])
def test_a_video_that_fails_leaves_nothing(tmp_path, random_clip, frames):
    with pytest.raises(RuntimeError), VideoWriter(tmp_path / "x.mp4") as writer:
        for image in random_clip[:frames]:
            writer.write(image)
        raise RuntimeError
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("name", "message"), [("x.gif", "written as .mp4"), ("nowhere/x.mp4", "does not exist"), ("x.mp4", "no frame")]
)
def test_videos_that_cannot_be_written(tmp_path, name, message):
    with pytest.raises(SourceError, match=message), VideoWriter(tmp_path / name):
        pass
    assert list(tmp_path.iterdir()) == []


def test_video_writer_fits_other_sizes(tmp_path, random_clip):
    path = write_video(tmp_path / "x.mp4", [random_clip[0], random_clip[1][:24, :24], random_clip[2]])
    with open_source(path) as source:
        assert [frame.image.shape for frame in source] == [(48, 64, 3)] * 3


def test_output_folder_appears_at_the_end_and_replaces_only_results(tmp_path):
    out = tmp_path / "deep" / "out"
    with output_folder(out, marker="done.json") as folder:
        (folder / "done.json").write_text("1")
        assert not out.exists()
    with pytest.raises(SourceError, match="with --overwrite"), output_folder(out, marker="done.json"):
        pass
    with output_folder(out, marker="done.json", overwrite=True) as folder:
        (folder / "done.json").write_text("2")
    assert (out / "done.json").read_text() == "2"
    with pytest.raises(RuntimeError), output_folder(out, marker="done.json", overwrite=True):
        raise RuntimeError
    assert (out / "done.json").read_text() == "2"
    (out / "done.json").rename(out / "thesis.txt")
    for overwrite in (False, True):
        with (
            pytest.raises(SourceError, match=r"holds no done\.json\): never overwritten"),
            output_folder(out, marker="done.json", overwrite=overwrite),
        ):
            pass
    assert [entry.name for entry in out.parent.iterdir()] == ["out"]


@pytest.mark.parametrize(
    ("overwrite", "appears", "refused"),
    [
        pytest.param(False, "done.json", "it holds an earlier result", id="another run's result"),
        pytest.param(False, "thesis.txt", "never overwritten", id="somebody's file"),
        pytest.param(True, "thesis.txt", "never overwritten", id="somebody's file, though asked to replace"),
        pytest.param(True, "done.json", None, id="another run's result, asked to replace"),
    ],
)
def test_output_folder_looks_again_before_it_replaces(tmp_path, overwrite, appears, refused):
    """Two runs at once: both began when the place was free."""
    out, raises = tmp_path / "out", contextlib.nullcontext()
    if refused is not None:
        raises = pytest.raises(SourceError, match=refused)
    with raises, output_folder(out, marker="done.json", overwrite=overwrite) as folder:
        (folder / "done.json").write_text("late")
        out.mkdir()
        (out / appears).write_text("early")
    assert (out / appears).read_text() == ("late" if refused is None else "early")
    assert [entry.name for entry in out.iterdir()] == [appears]
    assert [entry.name for entry in tmp_path.iterdir()] == ["out"]


def test_output_folder_may_be_empty_but_no_file(tmp_path):
    (tmp_path / "empty").mkdir()
    with output_folder(tmp_path / "empty", marker="m") as folder:
        (folder / "m").write_text("")
    assert (tmp_path / "empty" / "m").is_file()
    (tmp_path / "file").write_text("")
    with pytest.raises(SourceError, match="is a file"), output_folder(tmp_path / "file", marker="m"):
        pass


# --- whole videos


def test_process_video_gives_a_result_per_frame_and_writes_them(tmp_path, small_clip):
    source = write_frames(tmp_path / "in", small_clip.frames, [f"{i:05d}.png" for i in range(6)])
    tracker = CopyTracker()
    prompt = Prompt(object_id=3, mask=half_mask())
    results = VideoProcessor(tracker).process_video(source, [prompt], tmp_path / "out")
    assert len(results) == 6
    assert tracker.resets == 1
    assert tracker.calls == [[3], [], [], [], [], []]
    out = tmp_path / "out"
    assert sorted(entry.name for entry in out.iterdir()) == ["masks", "overlay.mp4", "track.json"]
    for index in range(6):
        assert np.array_equal(read_label_map(out / "masks" / f"{index:05d}.png"), 3 * half_mask())
    document = json.loads((out / "track.json").read_text())
    assert document["summary"] == {
        "frames": 6, "mean_ms": 10.0, "p50_ms": 10.0, "p95_ms": 10.0, "max_ms": 10.0, "fps": 100.0
    }  # fmt: skip
    assert document["frames"][2]["name"] == "00002"
    assert document["frames"][2]["objects"][0]["object_id"] == 3
    with open_source(out / "overlay.mp4") as overlay:
        assert overlay.length == 6


def test_prompts_may_come_later(tmp_path, small_clip):
    source = write_frames(tmp_path / "in", small_clip.frames, [f"{i}.png" for i in range(6)])
    tracker = CopyTracker()
    prompts = {0: [Prompt(object_id=1, mask=half_mask())], 4: [Prompt(object_id=2, mask=half_mask())]}
    VideoProcessor(tracker).process_video(source, prompts)
    assert tracker.calls == [[1], [], [], [], [2], []]


@pytest.mark.parametrize(
    ("prompts", "message"),
    [
        ([], "no prompt"),
        ({}, "no prompt"),
        ({-1: [Prompt(object_id=1, mask=half_mask())]}, "frame -1"),
        ({0: [Prompt(object_id=1, mask=half_mask())], 9: [Prompt(object_id=2, mask=half_mask())]}, "frame 9"),
    ],
)
def test_prompts_that_fit_no_frame_leave_no_output(tmp_path, small_clip, prompts, message):
    source = write_frames(tmp_path / "in", small_clip.frames, [f"{i}.png" for i in range(6)])
    with pytest.raises(InvalidPromptError, match=message):
        VideoProcessor(CopyTracker()).process_video(source, prompts, tmp_path / "out")
    assert [entry.name for entry in tmp_path.iterdir()] == ["in"]


def test_a_source_that_fails_midway_leaves_no_output(tmp_path, small_clip):
    source = write_frames(tmp_path / "in", small_clip.frames, [f"{i}.png" for i in range(6)])
    (source / "4.png").write_bytes(b"broken")
    with pytest.raises(SourceError, match=r"4\.png"):
        VideoProcessor(CopyTracker()).process_video(source, [Prompt(object_id=1, mask=half_mask())], tmp_path / "out")
    assert [entry.name for entry in tmp_path.iterdir()] == ["in"]


@pytest.mark.parametrize("endless", [True, False])
def test_an_interrupt_ends_a_camera_but_drops_a_half_tracked_file(tmp_path, small_clip, endless):
    """Nobody can let a camera run to its end; a file that was interrupted is no result."""
    source = write_frames(tmp_path / "in", small_clip.frames, [f"{i}.png" for i in range(6)])

    def interrupt(frame, _):
        if frame.index == 3:
            raise KeyboardInterrupt

    with open_source(source) as frames:
        frames.length = None if endless else 6
        prompts = [Prompt(object_id=1, mask=half_mask())]
        with contextlib.nullcontext() if endless else pytest.raises(KeyboardInterrupt):
            record_video(CopyTracker(), frames, prompts, tmp_path / "out", on_frame=interrupt)
    if endless:
        assert len(json.loads((tmp_path / "out" / "track.json").read_text())["frames"]) == 4
    else:
        assert [entry.name for entry in tmp_path.iterdir()] == ["in"]


def test_track_video_holds_one_frame_at_a_time(tmp_path, small_clip):
    source = write_frames(tmp_path / "in", small_clip.frames, [f"{i}.png" for i in range(6)])
    tracker = CopyTracker()
    with open_source(source) as frames:
        steps = track_video(tracker, frames, [Prompt(object_id=1, mask=half_mask())])
        next(steps)
        next(steps)
        assert len(tracker.calls) == 2


def test_real_clips_open(shared_data):
    path = sorted((shared_data / "clips").glob("*.mp4"))[0]
    with open_source(path, limit=3) as source:
        frames = list(source)
    assert len(frames) == 3
    assert frames[0].image.shape[0] == 288
