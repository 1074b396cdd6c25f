"""The command: what it writes, how prompts are typed, and that a mistake costs one line and exit code 2."""

import json
import subprocess
import sys
from types import SimpleNamespace
from typing import ClassVar

import cv2
import numpy as np
import pytest

from sam2lite_core import __version__, tracker
from sam2lite_core.cli import app as cli
from sam2lite_core.cli.prompts import build_prompts, in_typed_order
from sam2lite_core.errors import InvalidPromptError
from sam2lite_core.media.label_map import read_label_map, write_label_map
from sam2lite_core.types import ObjectState, StepTimings, TrackedObject, TrackResult

HEIGHT, WIDTH = 96, 128


class CopyTracker:
    """Stands in for the tracker: fills boxes and masks and keeps them; notes how it was built."""

    built: ClassVar[list] = []
    max_objects = 16
    backend = SimpleNamespace(info=SimpleNamespace(variant="tiny"))

    def __init__(self, *args, **options):
        self.built.append((args, options))

    def reset(self):
        self.label_map = np.zeros((HEIGHT, WIDTH), np.uint8)

    def step(self, image, prompts=()):
        for prompt in prompts:
            prompt.check_inside(*image.shape[:2])
            if prompt.mask is not None:
                self.label_map[prompt.mask] = prompt.object_id
            if prompt.box is not None:
                x0, y0, x1, y1 = prompt.box.astype(int)
                self.label_map[y0:y1, x0:x1] = prompt.object_id
            if prompt.points is not None:
                x, y = prompt.points[0].astype(int)
                self.label_map[y, x] = prompt.object_id
        objects = tuple(
            TrackedObject(int(i), ObjectState.TRACKED, 0.9, (0, 0, 1, 1), 1, (0.0, 0.0))
            for i in np.unique(self.label_map)
            if i
        )
        return TrackResult(self.label_map.copy(), objects, StepTimings(inference_ms=5.0))


@pytest.fixture
def copy_tracker(monkeypatch):
    CopyTracker.built.clear()
    monkeypatch.setattr(tracker, "Tracker", CopyTracker)
    return CopyTracker


@pytest.fixture
def frames(tmp_path, small_clip):
    folder = tmp_path / "frames"
    folder.mkdir()
    for index, image in enumerate(small_clip.frames):
        assert cv2.imwrite(str(folder / f"{index:05d}.png"), image[..., ::-1])
    return folder


@pytest.fixture
def two_objects(tmp_path, small_clip):
    path = tmp_path / "first.png"
    write_label_map(path, small_clip.label_maps[0])
    return path


def run(*arguments):
    """Exit code of the command, called in this process."""
    try:
        cli.main([str(argument) for argument in arguments])
    except SystemExit as end:
        return end.code or 0
    return 0


def refused(capsys, *arguments):
    """The one line that a refused command prints."""
    assert run(*arguments) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1
    assert captured.err.startswith("sam2lite: ")
    return captured.err


# --- track


def test_track_writes_masks_overlay_and_json(copy_tracker, frames, two_objects, tmp_path, capsys, small_clip):
    out, extra = tmp_path / "out", tmp_path / "copy.json"
    assert run("track", frames, "--mask", two_objects, "--out", out, "--json", extra, "--deadline-ms", 40) == 0
    assert sorted(entry.name for entry in out.iterdir()) == ["masks", "overlay.mp4", "track.json"]
    names = [f"{index:05d}.png" for index in range(6)]
    assert sorted(entry.name for entry in (out / "masks").iterdir()) == names
    assert np.array_equal(read_label_map(out / "masks" / "00005.png"), small_clip.label_maps[0])
    document = json.loads((out / "track.json").read_text())
    assert json.loads(extra.read_text()) == document
    assert (document["variant"], document["deadline_ms"], document["summary"]["fps"]) == ("tiny", 40, 200)
    assert len(document["frames"]) == 6
    assert "6 frames" in capsys.readouterr().out
    assert copy_tracker.built[0][1]["deadline_ms"] == 40


def test_options_reach_the_tracker(copy_tracker, frames, tmp_path):
    options = ["--variant", "small", "--backend", "auto", "--scale", 0.7, "--threads", 2, "--budget", 128]
    options += ["--policy", "fifo", "--model", "folder"]
    assert run("track", frames, "--box", "1,2,30,40", "--out", tmp_path / "out", *options) == 0
    arguments, named = copy_tracker.built[0]
    assert arguments == ("small", "auto")
    assert named["model_path"].name == "folder"
    expected = {"scale": 0.7, "threads": 2, "memory_budget": 128, "memory_policy": "fifo", "deadline_ms": None}
    assert {name: named[name] for name in expected} == expected


@pytest.mark.parametrize(
    ("typed", "expected"),
    [
        (["--point", "5,6"], {(6, 5): 1}),
        (["--box", "10,20,12,22"], {(20, 10): 1, (21, 11): 1, (22, 12): 0}),
        (["--object", "7", "--box=10,20,12,22"], {(20, 10): 7}),
        (["--object", "3", "--point", "5,6", "--object", "4", "--box", "50,60,70,80"], {(6, 5): 3, (60, 50): 4}),
        # Options of different kinds keep the order in which they were typed.
        (["--object", "3", "--box", "50,60,70,80", "--object", "4", "--point", "5,6"], {(60, 50): 3, (6, 5): 4}),
    ],
)
def test_prompts_as_typed(copy_tracker, frames, tmp_path, typed, expected):
    assert run("track", frames, *typed, "--out", tmp_path / "out", "--frames", 1) == 0
    label_map = read_label_map(tmp_path / "out" / "masks" / "00000.png")
    assert {place: int(label_map[place]) for place in expected} == expected


def test_track_needs_overwrite_to_replace(copy_tracker, frames, tmp_path, capsys):
    arguments = ["track", frames, "--point", "5,6", "--out", tmp_path / "out"]
    assert run(*arguments) == 0
    capsys.readouterr()
    said = refused(capsys, *arguments)
    assert "not empty: it holds an earlier result" in said and "--overwrite" in said
    assert run(*arguments, "--overwrite", "--frames", 2) == 0
    assert len(list((tmp_path / "out" / "masks").iterdir())) == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere", "--point", "5,6"], "nowhere: no such folder"),
        (["FRAMES"], "no prompt"),
        (["FRAMES", "--point", "5"], "point '5' is not X,Y"),
        (["FRAMES", "--point", "500,6"], "lies outside the 128x96 image"),
        (["FRAMES", "--box", "5,5,1,1"], "x0 < x1"),
        (["FRAMES", "--mask", "gone.png"], "gone.png: no such mask file"),
        (["FRAMES", "--object", "0", "--point", "5,6"], "object id 0 is not in 1..65535"),
        (["FRAMES", "--object", "five", "--point", "5,6"], "'five' is not a whole number"),
        (["FRAMES", "--object", "2"], "object 2: give points, a box or a mask"),
        (["FRAMES", "--point", "5,6", "--frames", "0"], "limit 0"),
        (["FRAMES", "--mask", "MASK", "--box", "1,1,5,5"], "object 1: a mask needs no points and no box"),
        (["FRAMES", "--point", "5,6", "--json", "no/where.json"], "no/where.json: the folder no does not exist"),
    ],
)
def test_mistakes_cost_one_line(copy_tracker, frames, tmp_path, capsys, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    mask = tmp_path.parent / f"{tmp_path.name}_mask.png"
    cv2.imwrite(str(mask), np.ones((96, 128), np.uint8))
    places = {"FRAMES": frames, "MASK": mask}
    arguments = [places.get(argument, argument) for argument in arguments]
    assert message in refused(capsys, "track", *arguments, "--out", tmp_path / "out")
    assert [entry.name for entry in tmp_path.iterdir()] == ["frames"]


def test_a_broken_frame_leaves_no_output(copy_tracker, frames, tmp_path, capsys):
    (frames / "00003.png").write_bytes(b"broken")
    message = refused(capsys, "track", frames, "--point", "5,6", "--out", tmp_path / "out", "--json", tmp_path / "j")
    assert "00003.png: not a readable image" in message
    assert [entry.name for entry in tmp_path.iterdir()] == ["frames"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--variant", "huge"], "unknown variant 'huge'; choose one of tiny, small, base"),
        (["--backend", "abacus"], "unknown backend 'abacus'; choose one of auto, "),
        (["--model", "nowhere"], "nowhere is not a folder"),
        (["--model", "FOREIGN"], "is not a safetensors file"),
        (["--scale", "0.2"], "scale 0.2"),
        (["--deadline-ms", "-5"], "deadline of -5.0 ms"),
        (["--deadline-ms", "5", "--controller", "fancy"], "unknown controller 'fancy'"),
        (["--controller", "predictive"], "'predictive' needs a deadline"),
        (["--deadline-ms", "5", "--controller", "predictive", "--scale", "0.6"], "scale 0.6 is fixed"),
        (["--budget", "9"], "memory_budget 9"),
        (["--policy", "magic"], "magic"),
    ],
)
def test_the_trackers_own_refusals(frames, tmp_path, capsys, monkeypatch, options, message):
    """With the real tracker: it must refuse these before it reads a frame."""
    monkeypatch.chdir(tmp_path)
    foreign = tmp_path / "foreign"
    foreign.mkdir()
    for name in ("step.onnx", "prompt.onnx", "weights.safetensors"):
        (foreign / name).write_bytes(b"not a model")
    options = [foreign if option == "FOREIGN" else option for option in options]
    assert message in refused(capsys, "track", frames, "--point", "5,6", "--out", tmp_path / "out", *options)
    assert not (tmp_path / "out").exists()


def test_bench_measures_by_itself_and_has_commands(capsys):
    assert "bench needs at least 3 frames" in refused(capsys, "bench", "--frames", "2")
    assert run("bench", "controller", "--help") == 0
    assert "--real" in capsys.readouterr().out


# --- prompts as typed


def test_points_of_one_object_become_one_prompt():
    (prompt,) = build_prompts([("object", "4"), ("point", "1,2"), ("point", "3.5,4,0"), ("box", "0,0,9,9")])
    assert prompt.object_id == 4
    assert prompt.points.tolist() == [[1, 2], [3.5, 4]]
    assert prompt.point_labels.tolist() == [1, 0]
    assert prompt.box.tolist() == [0, 0, 9, 9]


def test_a_mask_shows_every_object_unless_one_is_named(tmp_path):
    several, single = tmp_path / "several.png", tmp_path / "single.png"
    label_map = np.zeros((20, 20), np.uint8)
    label_map[:5], label_map[10:] = 3, 8
    write_label_map(several, label_map)
    write_label_map(single, np.where(label_map == 3, 255, 0))
    assert [prompt.object_id for prompt in build_prompts([("mask", str(several))])] == [3, 8]
    (prompt,) = build_prompts([("object", "6"), ("mask", str(single))])
    assert prompt.object_id == 6
    assert np.array_equal(prompt.mask, label_map == 3)
    with pytest.raises(InvalidPromptError, match=r"several\.png: mask holds 2 objects; leave out --object 6"):
        build_prompts([("object", "6"), ("mask", str(several))])
    with pytest.raises(InvalidPromptError, match="second mask for one object"):
        build_prompts([("mask", str(several)), ("mask", str(single)), ("mask", str(several))])


@pytest.mark.parametrize(
    ("typed", "message"),
    [
        ([("point", "1,2,3")], "label 0 or 1"),
        ([("point", "a,b")], "point 'a,b' is not X,Y"),
        ([("point", "")], "point '' is not X,Y"),
        ([("box", "1,2,3")], "box '1,2,3' is not X0,Y0,X1,Y1"),
        ([("box", "0,0,1,1"), ("box", "0,0,2,2")], "second box for one object"),
        ([("object", "1.5")], "'1.5' is not a whole number"),
    ],
)
def test_values_that_cannot_be_understood(typed, message):
    with pytest.raises(InvalidPromptError, match=message):
        build_prompts(typed)


def test_an_empty_mask_is_refused(tmp_path):
    write_label_map(tmp_path / "empty.png", np.zeros((20, 20), np.uint8))
    with pytest.raises(InvalidPromptError, match=r"empty\.png: mask is empty"):
        build_prompts([("mask", str(tmp_path / "empty.png"))])


def test_typed_order_is_restored():
    arguments = ["track", "src", "--box=1", "--out", "o", "--object", "2", "--point", "3", "--box", "4"]
    given = {"object": ["2"], "box": ["1", "4"], "point": ["3"], "mask": None}
    assert list(in_typed_order(arguments, given)) == [("box", "1"), ("object", "2"), ("point", "3"), ("box", "4")]


# --- eval


@pytest.fixture
def davis(tmp_path, small_clip):
    root = tmp_path / "davis"
    for name in ("one", "two"):
        for kind in ("JPEGImages", "Annotations"):
            (root / kind / name).mkdir(parents=True)
        for index, image in enumerate(small_clip.frames):
            assert cv2.imwrite(str(root / "JPEGImages" / name / f"{index:05d}.jpg"), image[..., ::-1])
            write_label_map(root / "Annotations" / name / f"{index:05d}.png", small_clip.label_maps[0])
    return root


def test_eval_davis_prints_and_writes_the_scores(copy_tracker, davis, tmp_path, capsys):
    extra = tmp_path / "scores.json"
    assert run("eval", "davis", "--root", davis, "--year", 2017, "--out", tmp_path / "out", "--json", extra) == 0
    table = capsys.readouterr().out
    for word in ("one", "two", "all", "100.0", "200.0"):
        assert word in table
    document = json.loads((tmp_path / "out" / "davis.json").read_text())
    assert document == json.loads(extra.read_text())
    assert document["jf"] == 1
    assert [entry["name"] for entry in document["sequences"]] == ["one", "two"]
    assert len(copy_tracker.built) == 1


def test_eval_davis_takes_a_choice_of_sequences(copy_tracker, davis, tmp_path):
    assert run("eval", "davis", "--root", davis, "--sequences", "two", "--out", tmp_path / "out") == 0
    document = json.loads((tmp_path / "out" / "davis.json").read_text())
    assert [entry["name"] for entry in document["sequences"]] == ["two"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--sequences", "three"], "no sequence 'three'; there are one, two"),
        (["--sequences", "two, one,two"], "--sequences names two twice"),
        (["--year", "2018"], "year 2018"),
        (["--prompt", "scribble"], "'scribble'; choose one of mask, box, point"),
        (["--root", "nowhere"], "no such folder"),
    ],
)
def test_eval_davis_refuses(copy_tracker, davis, tmp_path, capsys, options, message):
    assert message in refused(capsys, "eval", "davis", "--root", davis, "--out", tmp_path / "out", *options)
    assert copy_tracker.built == []
    assert not (tmp_path / "out").exists()


# --- info and the rest


def test_info_shows_numbers_parameters_and_hashes(tmp_path, capsys):
    assert run("info", "--variant", "tiny", "--json", tmp_path / "info.json") == 0
    document = json.loads((tmp_path / "info.json").read_text())
    assert document["variant"]["memory_budget"] == 256
    parameters = document["parameters"]
    assert sum(count for part, count in parameters.items() if part != "total") == parameters["total"]
    assert [len(entry["sha256"]) for entry in document["files"].values()] == [64] * 3
    assert all(entry["bytes"] > 0 for entry in document["files"].values())
    assert f"{parameters['total']:,}" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "message"),
    [(["--variant", "huge"], "unknown variant 'huge'"), (["--model", "nowhere"], "nowhere is not a folder")],
)
def test_info_refuses(capsys, options, message):
    assert message in refused(capsys, "info", *options)


def test_version_and_help(capsys):
    assert run("--version") == 0
    assert capsys.readouterr().out == f"sam2lite {__version__}\n"
    assert run("--help") == 0
    assert "track" in capsys.readouterr().out


def test_unknown_options_exit_with_2(capsys):
    assert run("track", "--nonsense") == 2


def test_the_tracker_does_not_import_the_command_line():
    heavy = ("typer", "rich", "torch", "onnx")
    code = f"import sys, sam2lite_core.tracker; print([m for m in {heavy} if m in sys.modules])"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout == "[]\n"


def commands(app, prefix=()):
    """Every command as (words, options)."""
    for name, entry in app.commands.items():
        if hasattr(entry, "commands"):
            yield from commands(entry, (*prefix, name))
        else:
            yield (*prefix, name), {option for parameter in entry.params for option in parameter.opts}


def test_every_command_that_makes_a_folder_of_results_can_overwrite():
    """Refusals name the option, so that it must be there; models and pages are never replaced by one."""
    import typer

    never = {("export",), ("report",)}
    found = {
        words: "--overwrite" in options
        for words, options in commands(typer.main.get_command(cli.app))
        if "--out" in options
    }
    assert found.pop(("eval", "davis"))
    assert {words for words, can in found.items() if not can} <= never
