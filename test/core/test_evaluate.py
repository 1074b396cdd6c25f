"""Evaluations that stop and go on, over one process and many, and the table of policies."""

import dataclasses
import json
import subprocess
import sys
import time

import cv2
import numpy as np
import pytest

from sam2lite_core import cli
from sam2lite_core.errors import ConfigurationError, SourceError
from sam2lite_core.evaluation.evaluate import TrackerOptions, evaluate
from sam2lite_core.evaluation.layouts.davis import Davis
from sam2lite_core.evaluation.policies import evaluate_policies
from sam2lite_core.evaluation.rendered import render_clip
from sam2lite_core.evaluation.results import Evaluation
from sam2lite_core.evaluation.resume import unfinished_folder
from sam2lite_core.label_map import write_label_map
from sam2lite_core.types import StepTimings, TrackResult

NAMES = ("a", "b", "c")


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Three rendered clips of 5 frames of 96x128 with two objects, in DAVIS's layout."""
    root = tmp_path_factory.mktemp("davis")
    for seed, name in enumerate(NAMES):
        clip = render_clip(seed, height=96, width=128, frames=5)
        for kind in ("JPEGImages", "Annotations"):
            (root / kind / name).mkdir(parents=True)
        for index, (image, labels) in enumerate(zip(clip.frames, clip.label_maps, strict=True)):
            assert cv2.imwrite(str(root / "JPEGImages" / name / f"{index:05d}.jpg"), image[..., ::-1])
            write_label_map(root / "Annotations" / name / f"{index:05d}.png", labels)
    return root


class Copier:
    """Answers every frame with the first masks, and dies when it has seen enough."""

    def __init__(self, dies_after=10**9):
        self.left = dies_after

    def reset(self):
        self.labels = np.zeros((96, 128), np.uint8)

    def step(self, image, prompts=()):
        self.left -= 1
        if self.left < 0:
            raise KeyboardInterrupt
        for prompt in prompts:
            self.labels[prompt.mask] = prompt.object_id
        return TrackResult(self.labels.copy(), (), StepTimings(inference_ms=5.0))


@dataclasses.dataclass(frozen=True, eq=False)
class CopyOptions:
    tracker: Copier = dataclasses.field(default_factory=Copier)
    kind: str = "copy"
    memory_policy: str = "fifo"
    memory_budget: int = 256
    scale: float | None = None
    variant: str = "copy"

    def build(self):
        return self.tracker

    def describe(self):
        return {
            "kind": self.kind,
            "policy": self.memory_policy,
            "budget": self.memory_budget,
            "threads": None,
        }


def scores(evaluation):
    """Everything but times, memory and the machine."""
    document = evaluation.to_json() if isinstance(evaluation, Evaluation) else evaluation
    document = json.loads(json.dumps(document))
    for entry in document["sequences"]:
        del entry["timing"], entry["frames"]["step_ms"]
    return {key: document[key] for key in ("protocol", "jf", "j", "f", "stability", "sequences")}


def test_a_run_that_was_stopped_goes_on_to_the_same_numbers(data, tmp_path):
    whole = evaluate(Davis(data, 2017), CopyOptions())
    with pytest.raises(KeyboardInterrupt):  # in the middle of the second sequence
        evaluate(Davis(data, 2017), CopyOptions(Copier(dies_after=7)), out=tmp_path / "out")
    left = unfinished_folder(tmp_path / "out")
    assert [path.stem for path in (left / "sequences").iterdir()] == ["a"]
    assert not (tmp_path / "out").exists()
    again = Copier()
    taken_up = evaluate(Davis(data, 2017), CopyOptions(again), out=tmp_path / "out")
    assert 10**9 - again.left == 10  # b and c, five frames each
    assert scores(taken_up) == scores(whole)
    assert scores(json.loads((tmp_path / "out" / "davis.json").read_text())) == scores(whole)
    assert not left.exists()
    assert sorted(path.name for path in (tmp_path / "out" / "masks").iterdir()) == list(NAMES)


def test_a_run_that_finished_nothing_leaves_nothing(data, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        evaluate(Davis(data, 2017), CopyOptions(Copier(dies_after=3)), out=tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def stop_after_the_first(data, out, **options):
    with pytest.raises(KeyboardInterrupt):
        evaluate(Davis(data, 2017), CopyOptions(Copier(dies_after=7)), out=out, **options)


def test_an_unfinished_run_of_other_settings_is_not_mixed_in(data, tmp_path):
    stop_after_the_first(data, tmp_path / "out")
    with pytest.raises(SourceError, match=r"out\.unfinished: .*tracker\.kind 'copy' instead of 'other'"):
        evaluate(Davis(data, 2017), CopyOptions(kind="other"), out=tmp_path / "out")
    fresh = Copier()
    evaluate(Davis(data, 2017), CopyOptions(fresh, kind="other"), out=tmp_path / "out", overwrite=True)
    assert 10**9 - fresh.left == 15


def test_a_damaged_piece_is_named(data, tmp_path):
    stop_after_the_first(data, tmp_path / "out")
    (unfinished_folder(tmp_path / "out") / "sequences" / "a.json").write_text("{")
    with pytest.raises(SourceError, match=r"sequences/a\.json: cannot be read"):
        evaluate(Davis(data, 2017), CopyOptions(), out=tmp_path / "out")


def test_a_finished_result_is_only_replaced_when_asked(data, tmp_path):
    evaluate(Davis(data, 2017), CopyOptions(), out=tmp_path / "out")
    with pytest.raises(SourceError, match="not empty"):
        evaluate(Davis(data, 2017), CopyOptions(), out=tmp_path / "out")
    evaluate(Davis(data, 2016), CopyOptions(), out=tmp_path / "out", overwrite=True)
    assert json.loads((tmp_path / "out" / "davis.json").read_text())["protocol"] == "DAVIS 2016"


def test_results_survive_the_round_trip_through_json(data):
    evaluation = evaluate(Davis(data, 2017), CopyOptions())
    document = evaluation.to_json()
    assert Evaluation.from_json(json.loads(json.dumps(document))).to_json() == document


def test_scores_do_not_depend_on_the_number_of_workers(data, tmp_path):
    """With the real tracker, since worker processes build their own."""
    options = TrackerOptions(scale=0.5, threads=1)
    one, two = (
        evaluate(Davis(data, 2017), options, out=tmp_path / str(workers), workers=workers)
        for workers in (1, 2)
    )
    assert scores(one) == scores(two)
    for path in (tmp_path / "1" / "masks").rglob("*.png"):
        assert path.read_bytes() == (tmp_path / "2" / path.relative_to(tmp_path / "1")).read_bytes()


def test_an_error_in_a_worker_is_ours_and_names_the_file(data, tmp_path):
    for kind in ("JPEGImages", "Annotations"):
        (tmp_path / kind).mkdir()
        for name in NAMES:
            (tmp_path / kind / name).symlink_to(data / kind / name)
    (tmp_path / "JPEGImages" / "b").unlink()
    (tmp_path / "JPEGImages" / "b").mkdir()
    for path in (data / "JPEGImages" / "b").iterdir():
        (tmp_path / "JPEGImages" / "b" / path.name).write_bytes(path.read_bytes()[:500])
    with pytest.raises(SourceError, match=r"b/00000\.jpg: not a readable image"):
        evaluate(Davis(tmp_path), TrackerOptions(scale=0.5, threads=1), workers=2)


def test_a_killed_command_goes_on_to_the_same_numbers(data, tmp_path):
    """The whole command, ended by a signal that cannot be caught once a sequence is finished."""
    command = [sys.executable, "-m", "sam2lite_core.cli", "eval", "davis", "--root", data, "--year", "2017"]
    command += ["--scale", "0.5", "--threads", "1", "--out", tmp_path / "out"]
    command = [str(part) for part in command]
    pieces = unfinished_folder(tmp_path / "out") / "sequences"
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    while process.poll() is None and not list(pieces.glob("*.json")):
        time.sleep(0.005)
    process.kill()
    process.wait()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    found = json.loads((tmp_path / "out" / "davis.json").read_text())
    whole = evaluate(Davis(data, 2017), TrackerOptions(scale=0.5, threads=1))
    assert scores(found) == scores(whole)


@pytest.mark.parametrize(
    ("change", "message"), [({"workers": 0}, "0 workers"), ({"prompt": "word"}, "'word'")]
)
def test_bad_arguments_are_refused(data, change, message):
    with pytest.raises(ConfigurationError, match=message):
        evaluate(Davis(data), CopyOptions(), **change)


# --- policies


def test_the_table_of_policies_holds_every_cell(data, tmp_path):
    out = tmp_path / "table"
    told = []
    content = evaluate_policies(
        Davis(data, 2017), CopyOptions(), out, ["learned", "fifo"], [64, 128], finished=told.append
    )
    alone = evaluate(Davis(data, 2017), CopyOptions())
    rows = content["policies"]
    assert [(row["policy"], row["budget"]) for row in rows] == [
        ("learned", 64),
        ("learned", 128),
        ("fifo", 64),
        ("fifo", 128),
    ]
    assert len(told) == 4
    for row in rows:
        assert row["jf"] == alone.jf
        assert row["sequences"] == {entry.name: entry.scores.jf for entry in alone.sequences}
    assert json.loads((out / "policies.json").read_text()) == json.loads(json.dumps(content))
    figure = f"{100 * alone.jf:.1f}"
    assert f"| fifo | {figure} | {figure} |" in (out / "policies.md").read_text()


def test_finished_cells_are_not_done_again(data, tmp_path):
    with pytest.raises(KeyboardInterrupt):  # in the second cell
        evaluate_policies(Davis(data), CopyOptions(Copier(20)), tmp_path, ["fifo"], [64, 128])
    again = Copier()
    evaluate_policies(Davis(data), CopyOptions(again), tmp_path, ["fifo"], [64, 128])
    assert 10**9 - again.left == 10  # two sequences of the second cell
    assert (tmp_path / "policies.md").is_file()


def test_cells_of_other_settings_are_refused(data, tmp_path):
    evaluate_policies(Davis(data), CopyOptions(), tmp_path, ["fifo"], [64])
    with pytest.raises(SourceError, match="of other settings"):
        evaluate_policies(Davis(data), CopyOptions(kind="other"), tmp_path, ["fifo"], [64])
    with pytest.raises(SourceError, match="of other settings"):
        evaluate_policies(Davis(data, sequences=("a",)), CopyOptions(), tmp_path, ["fifo"], [64])


@pytest.mark.parametrize(
    ("policies", "budgets", "message"),
    [
        ([], [64], "no policy"),
        (["fifo"], [], "no policy or no budget"),
        (["lifo"], [64], "'lifo'; choose one of learned"),
        (["fifo"], [63], r"63 is not a whole number in 64\.\.1024"),
    ],
)
def test_policies_and_budgets_that_do_not_exist_are_refused(data, tmp_path, policies, budgets, message):
    with pytest.raises(ConfigurationError, match=message):
        evaluate_policies(Davis(data), CopyOptions(), tmp_path, policies, budgets)


@pytest.mark.parametrize(
    ("budgets", "message"),
    [
        ("64,x", "--budgets '64,x' is not a list"),
        ("64.5", "--budgets 64.5 is not a whole"),
        ("63", "63 is not"),
    ],
)
def test_budgets_are_refused_by_the_command(data, tmp_path, capsys, budgets, message):
    with pytest.raises(SystemExit) as end:
        cli.main(
            ["eval", "policies", "--root", str(data), "--out", str(tmp_path / "out"), "--budgets", budgets]
        )
    assert end.value.code == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_the_command_prints_the_table_of_policies(data, tmp_path, capsys):
    arguments = [
        "--root",
        data,
        "--sequences",
        "a",
        "--policies",
        "fifo",
        "--budgets",
        "64,256",
        "--scale",
        "0.5",
    ]
    arguments += ["--threads", "1", "--out", tmp_path / "out", "--json", tmp_path / "table.json"]
    with pytest.raises(SystemExit) as end:
        cli.main(["eval", "policies", *map(str, arguments)])
    assert not end.value.code
    assert "| policy | B = 64 | B = 256 |" in capsys.readouterr().out
    assert (tmp_path / "table.json").read_bytes() == (tmp_path / "out" / "policies.json").read_bytes()
