"""Evaluations that stop and go on, over one process and many, and the table of policies."""

import contextlib
import dataclasses
import errno
import importlib.util
import json
import os
import select
import signal
import socket
import subprocess
import sys
import threading
import time

import cv2
import numpy as np
import pytest

from sam2lite_core.cli import app
from sam2lite_core.cli.options import ModelChoice, tracker_options
from sam2lite_core.datasets.davis import Davis
from sam2lite_core.errors import BackendError, ConfigurationError, SourceError
from sam2lite_core.evaluation.evaluate import evaluate
from sam2lite_core.evaluation.policies import evaluate_policies
from sam2lite_core.evaluation.results import Evaluation
from sam2lite_core.evaluation.runs import resume
from sam2lite_core.evaluation.runs.resume import unfinished_folder
from sam2lite_core.evaluation.runs.team import COUNTS, COUNTS_HERE, Team
from sam2lite_core.evaluation.tracker_options import TrackerOptions
from sam2lite_core.media.label_map import write_label_map
from sam2lite_core.scenes.clip import render_clip
from sam2lite_core.types import StepTimings, TrackResult

NAMES = ("a", "b", "c")
PATIENCE_S = 240
"""A process that says nothing for so long hangs; none needs it on a machine that has other work."""


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
        return {"kind": self.kind, "policy": self.memory_policy, "budget": self.memory_budget, "threads": None}


def scores(evaluation):
    """Everything but times, memory and the machine."""
    document = evaluation.to_json() if isinstance(evaluation, Evaluation) else evaluation
    document = json.loads(json.dumps(document))
    for entry in document["sequences"]:
        del entry["timing"], entry["frames"]["step_ms"]
    return {key: document[key] for key in ("protocol", "jf", "j", "f", "stability", "sequences")}


@pytest.fixture
def start():
    """Starts processes, and leaves none of them behind, nor of those that they started."""
    running = []

    def start(command, **options):
        # A shell starts what it runs in the background deaf to Ctrl-C, and processes inherit that.
        heard = signal.signal(signal.SIGINT, signal.SIG_DFL)
        try:
            running.append(subprocess.Popen([*map(str, command)], start_new_session=True, **options))
        finally:
            signal.signal(signal.SIGINT, heard)
        return running[-1]

    yield start
    for process in running:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        for pipe in (process.stdin, process.stdout, process.stderr):
            if pipe is not None:
                pipe.close()
        process.wait(PATIENCE_S)


def await_a_piece(processes, pieces):
    """Wait until a sequence is finished, or a process has ended."""
    end = time.monotonic() + PATIENCE_S
    while all(process.poll() is None for process in processes) and not list(pieces.glob("[!.]*.json")):
        assert time.monotonic() < end, "no sequence was finished"
        time.sleep(0.005)


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
    said = r"out\.unfinished: .*tracker\.kind 'copy' instead of 'other'.*drop it with --overwrite"
    with pytest.raises(SourceError, match=said):
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
    with pytest.raises(SourceError, match=r"out: not empty: .*replace it with --overwrite"):
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
        evaluate(Davis(data, 2017), options, out=tmp_path / str(workers), workers=workers) for workers in (1, 2)
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


def test_a_killed_command_goes_on_to_the_same_numbers(data, tmp_path, start):
    """The whole command, ended by a signal that cannot be caught once a sequence is finished."""
    command = [sys.executable, "-m", "sam2lite_core", "eval", "davis", "--root", data, "--year", "2017"]
    command += ["--scale", "0.5", "--threads", "1", "--out", tmp_path / "out"]
    process = start(command, stdout=subprocess.DEVNULL)
    await_a_piece([process], unfinished_folder(tmp_path / "out") / "sequences")
    process.kill()
    process.wait(PATIENCE_S)
    assert start(command, stdout=subprocess.DEVNULL).wait(PATIENCE_S) == 0
    found = json.loads((tmp_path / "out" / "davis.json").read_text())
    whole = evaluate(Davis(data, 2017), TrackerOptions(scale=0.5, threads=1))
    assert scores(found) == scores(whole)


@pytest.mark.parametrize("workers", ["1", "2"])
def test_ctrl_c_says_how_to_go_on(data, tmp_path, start, workers):
    """As a terminal sends it: to every process of the command, which has more to do than a signal takes."""
    for kind in ("JPEGImages", "Annotations"):
        (tmp_path / kind).mkdir()
        for index in range(12):
            (tmp_path / kind / f"{index:02d}").symlink_to(data / kind / NAMES[index % 3])
    command = [sys.executable, "-m", "sam2lite_core", "eval", "davis", "--root", tmp_path, "--year", "2017"]
    command += ["--scale", "0.5", "--threads", "1", "--workers", workers, "--out", tmp_path / "out"]
    left = unfinished_folder(tmp_path / "out")
    process = start(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    await_a_piece([process], left / "sequences")
    os.killpg(process.pid, signal.SIGINT)
    printed, said = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 130, said
    assert printed == ""
    # Libraries may have said something before.
    assert said.splitlines()[-1] == f"sam2lite: stopped; the same command goes on from {left}"
    assert "Traceback" not in said
    assert 1 <= len(list((left / "sequences").glob("[!.]*.json"))) < 12
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("processes", [1, 2])
@pytest.mark.parametrize(
    ("command", "leaves"),
    [
        pytest.param(["davis"], ["out.unfinished"], id="an evaluation"),
        pytest.param(["policies", "--policies", "fifo", "--budgets", "64,128"], ["out"], id="a table"),
    ],
)
def test_ctrl_c_before_anything_is_finished(data, tmp_path, monkeypatch, capsys, command, leaves, processes):
    """Of a team the folder stays, of a table the one above: that is nothing to go on from."""
    monkeypatch.setattr(Team, "count", processes)
    monkeypatch.setattr(TrackerOptions, "build", lambda options: Copier(dies_after=3))
    with pytest.raises(SystemExit) as end:
        app.main(["eval", *command, "--root", str(data), "--out", str(tmp_path / "out")])
    assert end.value.code == 130
    empty = processes == 1 and command == ["davis"]
    assert [path.name for path in tmp_path.iterdir()] == ([] if empty else leaves)
    said = capsys.readouterr().err.splitlines()
    assert said[-1] == "sam2lite: stopped; nothing was finished, so the same command starts over"


def test_ctrl_c_in_the_table_of_policies(data, tmp_path, monkeypatch, capsys):
    copier = Copier(dies_after=22)  # in the second sequence of the second cell
    monkeypatch.setattr(TrackerOptions, "build", lambda options: copier)
    command = ["eval", "policies", "--root", str(data), "--out", str(tmp_path / "table")]
    with pytest.raises(SystemExit) as end:
        app.main([*command, "--policies", "fifo", "--budgets", "64,128"])
    assert end.value.code == 130
    assert f"the same command goes on from {tmp_path / 'table'}\n" in capsys.readouterr().err
    assert sorted(path.name for path in (tmp_path / "table").iterdir()) == ["fifo-128.unfinished", "fifo-64"]


@pytest.mark.parametrize("steps", [7, 18], ids=["within the first cell", "at the beginning of the second"])
def test_ctrl_c_in_a_table_with_one_thing_finished(data, tmp_path, monkeypatch, capsys, steps):
    copier = Copier(dies_after=steps)
    monkeypatch.setattr(TrackerOptions, "build", lambda options: copier)
    command = ["eval", "policies", "--root", str(data), "--out", str(tmp_path / "table")]
    with pytest.raises(SystemExit):
        app.main([*command, "--policies", "fifo", "--budgets", "64,128"])
    assert f"the same command goes on from {tmp_path / 'table'}\n" in capsys.readouterr().err
    assert len(list((tmp_path / "table").iterdir())) == 1


def another_run(start, folder):
    """A process that is at work on a result, and has finished nothing yet."""
    program = (
        "import sys\n"
        "from sam2lite_core.evaluation.runs.resume import resumable_folder\n"
        "with resumable_folder(sys.argv[1], marker='davis.json', settings={}):\n"
        "    print('at work', flush=True)\n"
        "    sys.stdin.read()\n"
    )
    process = start([sys.executable, "-c", program, folder], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert select.select([process.stdout], [], [], PATIENCE_S)[0], "the other run did not start"
    assert process.stdout.readline() == b"at work\n"
    return process


@pytest.mark.parametrize("processes", [1, 2])
@pytest.mark.parametrize("overwrite", [False, True])
def test_one_run_at_a_time_works_in_a_folder(data, tmp_path, start, overwrite, processes):
    """The second is refused and takes nothing away; where the first is killed, the folder is free again."""
    out, left = tmp_path / "out", unfinished_folder(tmp_path / "out")

    def work(team):
        return evaluate(Davis(data, 2017), CopyOptions(), out=out, overwrite=overwrite, team=team)

    first = another_run(start, out)
    before = sorted(left.rglob("*"))
    for outcome in together(processes, work):
        with pytest.raises(SourceError, match=r"out\.unfinished: another run is at work there"):
            raise outcome
    assert sorted(left.rglob("*")) == before
    first.kill()
    first.wait(PATIENCE_S)
    assert left.is_dir()
    (left / "settings.json").unlink()  # as killed a moment earlier: nothing had begun, whatever the settings
    found = together(processes, work)
    assert scores(found[0]) == scores(evaluate(Davis(data, 2017), CopyOptions()))
    assert sorted(path.name for path in out.iterdir()) == ["davis.json", "masks", "sequences", "settings.json"]
    assert not left.exists()


def test_a_file_system_without_locks_is_told_of(data, tmp_path, monkeypatch):
    def unknown(*_):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(resume.fcntl, "flock", unknown)
    with pytest.warns(UserWarning, match=r"out\.unfinished: no lock on this file system"):
        evaluate(Davis(data, 2017), CopyOptions(), out=tmp_path / "out")
    assert (tmp_path / "out" / "davis.json").is_file()


def test_a_folder_of_somebody_else_stays_as_it_is(data, tmp_path):
    folder = unfinished_folder(tmp_path / "out")
    folder.mkdir()
    (folder / "letter.txt").write_text("dear")
    for overwrite in (False, True):
        with pytest.raises(SourceError, match=r"out\.unfinished: no unfinished run"):
            evaluate(Davis(data), CopyOptions(), out=tmp_path / "out", overwrite=overwrite)
    assert [path.name for path in tmp_path.rglob("*")] == ["out.unfinished", "letter.txt"]


def test_what_comes_to_the_place_meanwhile_is_not_replaced(data, tmp_path):
    """It is refused at the end; once the place is free, the same command has nothing left to follow."""
    out = tmp_path / "out"

    def take(name, done, _):
        if done == len(NAMES):
            out.mkdir()
            (out / "letter.txt").write_text("dear")

    with pytest.raises(SourceError, match="out: not empty, and not an earlier result"):
        evaluate(Davis(data, 2017), CopyOptions(), out=out, progress=take)
    assert [path.name for path in out.iterdir()] == ["letter.txt"]
    (out / "letter.txt").unlink()
    again = Copier()
    evaluate(Davis(data, 2017), CopyOptions(again), out=out)
    assert again.left == 10**9
    assert (out / "davis.json").is_file()


@pytest.mark.parametrize("settings", [None, "{"], ids=["no settings", "damaged settings"])
@pytest.mark.parametrize(
    "holds",
    [
        pytest.param([".git/HEAD"], id="hidden folder"),
        pytest.param([".git/HEAD", "sequences/a.json"], id="hidden folder and pieces"),
        pytest.param(["sequences/a.json"], id="pieces"),
        pytest.param(["sequences/.a.7.partial.json"], id="half a piece"),
        pytest.param([".lock", "sequences/a.json"], id="lock and pieces"),
        pytest.param([".lock/HEAD"], id="a folder named as the lock"),
        pytest.param([".settings.7.partial.json/HEAD"], id="a folder named as half the settings"),
        pytest.param([".settings.x.partial.json"], id="nearly half the settings"),
        pytest.param([".bashrc"], id="hidden file"),
    ],
)
def test_what_a_killed_run_did_not_leave_stays_as_it_is(data, tmp_path, holds, settings):
    """Names alone do not make it ours."""
    folder = unfinished_folder(tmp_path / "out")
    for name in holds:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("dear")
    if settings is not None:
        (folder / "settings.json").write_text(settings)
    before = {path: path.is_file() and path.read_text() for path in tmp_path.rglob("*")}
    for overwrite in (False, True):
        with pytest.raises(SourceError, match=r"out\.unfinished: (no unfinished run|cannot be written)"):
            evaluate(Davis(data), CopyOptions(), out=tmp_path / "out", overwrite=overwrite)
    assert {path: path.is_file() and path.read_text() for path in tmp_path.rglob("*")} == before


@pytest.mark.parametrize("link", [False, True])
def test_what_a_run_left_that_was_killed_at_its_beginning_is_no_hindrance(data, tmp_path, link):
    folder = unfinished_folder(tmp_path / "out")
    (folder / "sequences").mkdir(parents=True)
    (folder / ".lock").touch()
    (folder / ".settings.7.partial.json").write_text("{")
    if link:
        (folder / ".settings.8.partial.json").symlink_to(folder / ".lock")
        with pytest.raises(SourceError, match="no unfinished run"):
            evaluate(Davis(data), CopyOptions(), out=tmp_path / "out")
    else:
        evaluate(Davis(data), CopyOptions(), out=tmp_path / "out")
        assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
            "davis.json",
            "masks",
            "sequences",
            "settings.json",
        ]


@pytest.mark.parametrize(("change", "message"), [({"workers": 0}, "0 workers"), ({"prompt": "word"}, "'word'")])
def test_bad_arguments_are_refused(data, change, message):
    with pytest.raises(ConfigurationError, match=message):
        evaluate(Davis(data), CopyOptions(), **change)


# --- many processes


class Meeting:
    """Where threads lay down what they send, by step and number, and say that they have ended."""

    def __init__(self, count):
        self.count, self.box, self.ended, self.changed = count, {}, set(), threading.Condition()

    def complete(self, step):
        return all((step, number) in self.box for number in range(self.count))

    def deserted(self, step):
        return any((step, number) not in self.box for number in self.ended)


class ThreadTeam(Team):
    """A team whose processes are threads."""

    def __init__(self, number, meeting):
        self.number, self.count, self.meeting, self.step = number, meeting.count, meeting, 0

    def exchange(self, value):
        meeting, self.step = self.meeting, self.step + 1
        with meeting.changed:
            meeting.box[self.step, self.number] = value
            meeting.changed.notify_all()
            assert meeting.changed.wait_for(
                lambda: meeting.complete(self.step) or meeting.deserted(self.step), timeout=60
            )
            if not meeting.complete(self.step):
                raise BackendError("lost the others")
            return [meeting.box[self.step, number] for number in range(self.count)]

    def main_does(self, work):
        outcome = (None, None)
        if self.is_main:
            try:
                outcome = (work(), None)
            except (SourceError, OSError) as error:
                outcome = (None, error)
        found, error = self.exchange(outcome)[0]
        if error is not None:
            raise error
        return found

    def gather(self, items):
        return [item for items in self.exchange(items) for item in items]


def together(count, work):
    """What `work(team)` returned or raised, by process."""
    meeting, outcomes = Meeting(count), {}

    def member(number):
        try:
            outcomes[number] = work(ThreadTeam(number, meeting))
        except Exception as error:
            outcomes[number] = error
        with meeting.changed:
            meeting.ended.add(number)
            meeting.changed.notify_all()

    threads = [threading.Thread(target=member, args=[number], daemon=True) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE_S)
    return [outcomes[number] for number in range(count)]


def steps(trackers):
    return [10**9 - tracker.left for tracker in trackers]


@pytest.mark.parametrize(("count", "followed"), [(2, [10, 5]), (3, [5, 5, 5]), (4, [5, 5, 5, 0])])
def test_a_team_shares_the_sequences_and_finds_what_one_does(data, tmp_path, count, followed):
    trackers = [Copier() for _ in range(count)]
    told = []

    def work(team):
        options, out = CopyOptions(trackers[team.number]), tmp_path / "out"
        progress = (lambda *event: told.append(event)) if team.is_main else None
        return evaluate(Davis(data, 2017), options, out=out, progress=progress, team=team)

    found = together(count, work)
    alone = evaluate(Davis(data, 2017), CopyOptions(), out=tmp_path / "alone")
    assert steps(trackers) == followed
    assert all(scores(evaluation) == scores(alone) for evaluation in found)
    assert scores(json.loads((tmp_path / "out" / "davis.json").read_text())) == scores(alone)
    assert found[0].machine == {**alone.machine, "processes": count}
    assert [event[1:] for event in told] == [(1, 3), (2, 3), (3, 3)]
    masks = sorted(path.relative_to(tmp_path / "alone") for path in (tmp_path / "alone").rglob("*.png"))
    assert len(masks) == 15
    assert all((tmp_path / "out" / m).read_bytes() == (tmp_path / "alone" / m).read_bytes() for m in masks)


def test_a_team_takes_up_what_one_process_left(data, tmp_path):
    stop_after_the_first(data, tmp_path / "out")
    trackers = [Copier(), Copier()]
    found = together(
        2, lambda team: evaluate(Davis(data, 2017), CopyOptions(trackers[team.number]), out=tmp_path / "out", team=team)
    )
    assert steps(trackers) == [5, 5]
    assert scores(found[1]) == scores(evaluate(Davis(data, 2017), CopyOptions()))
    assert not unfinished_folder(tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("out", "kind", "message"),
    [
        ("elsewhere", "copy", r"elsewhere\.unfinished: .*choose a folder that all machines share"),
        ("out", "other", r"out\.unfinished: the main process runs with tracker\.kind 'copy' instead of 'other'"),
    ],
)
def test_a_process_that_does_not_fit_ends_the_team(data, tmp_path, out, kind, message):
    def work(team):
        folder = tmp_path / ("out" if team.is_main else out)
        options = CopyOptions(kind="copy" if team.is_main else kind)
        return evaluate(Davis(data, 2017), options, out=folder, team=team)

    main, other = together(2, work)
    with pytest.raises(SourceError, match=message):
        raise other
    with pytest.raises(BackendError, match="lost the others"):
        raise main
    assert not (tmp_path / "out").exists()


def test_what_stops_the_main_process_stops_all(data, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "letter.txt").write_text("dear")
    trackers = [Copier(), Copier()]
    found = together(
        2, lambda team: evaluate(Davis(data), CopyOptions(trackers[team.number]), out=tmp_path / "out", team=team)
    )
    for error in found:
        with pytest.raises(SourceError, match="out: not empty"):
            raise error
    assert steps(trackers) == [0, 0]
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_a_team_fills_the_table_of_policies(data, tmp_path):
    trackers = [Copier(), Copier()]
    found = together(
        2,
        lambda team: evaluate_policies(
            Davis(data), CopyOptions(trackers[team.number]), tmp_path, ["fifo"], [64, 128], team=team
        ),
    )
    assert steps(trackers) == [20, 10]
    assert found[0] == found[1] == json.loads((tmp_path / "policies.json").read_text())
    again = together(
        2,
        lambda team: evaluate_policies(
            Davis(data), CopyOptions(trackers[team.number]), tmp_path, ["fifo"], [64, 128], team=team
        ),
    )
    assert steps(trackers) == [20, 10]
    assert again[1] == found[0]


@pytest.fixture
def unlaunched(monkeypatch):
    """An environment in which nobody counted processes."""
    for name in (*COUNTS, *COUNTS_HERE):
        monkeypatch.delenv(name, raising=False)
    return monkeypatch


@pytest.mark.parametrize("count", [None, "1", ""])
def test_one_process_does_not_look_at_accelerate(unlaunched, count):
    if count is not None:
        unlaunched.setenv("WORLD_SIZE", count)
    code = (
        "import sys; from sam2lite_core.evaluation.runs.team import ALONE, launched_team;"
        "assert launched_team() is ALONE;"
        "import sam2lite_core.evaluation.evaluate; print([m for m in ('accelerate', 'torch') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_many_processes_without_accelerate_are_refused(unlaunched, data, tmp_path, capsys):
    unlaunched.setenv("WORLD_SIZE", "2")
    unlaunched.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(SystemExit) as end:
        app.main(["eval", "davis", "--root", str(data), "--out", str(tmp_path / "out")])
    assert end.value.code == 2
    assert "WORLD_SIZE is 2, and Accelerate is not installed" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("given", "workers", "here", "threads"),
    [(None, 1, None, None), (None, 2, None, 6), (None, 1, "3", 4), (None, 2, "3", 2), (7, 2, "3", 7)],
)
def test_processes_share_the_cores_of_their_machine(unlaunched, given, workers, here, threads):
    unlaunched.setattr("sam2lite_core.evaluation.runs.machine.usable_cores", lambda: 12)
    if here is not None:
        unlaunched.setenv("LOCAL_WORLD_SIZE", here)
    options = tracker_options(ModelChoice(threads=given), None, policy="fifo", workers=workers)
    assert options.threads == threads


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return str(listener.getsockname()[1])


def start_pair(start, unlaunched, arguments):
    """The command in two processes that meet as Accelerate's do; each may have arguments of its own."""
    unlaunched.setenv("OMP_NUM_THREADS", "1")
    meeting = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": free_port(), "WORLD_SIZE": "2"}
    return [
        start(
            [sys.executable, "-m", "sam2lite_core", *own],
            env={**os.environ, **meeting, "RANK": str(number)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for number, own in enumerate(arguments)
    ]


def test_a_killed_pair_is_taken_up_by_accelerate_to_the_same_numbers(unlaunched, data, tmp_path, start):
    """Real processes and the real tracker."""
    pytest.importorskip("accelerate", reason="needs Accelerate: pip install 'sam2lite[distributed]'")
    out, pieces = tmp_path / "out", unfinished_folder(tmp_path / "out") / "sequences"
    command = ["eval", "davis", "--root", str(data), "--year", "2017", "--scale", "0.5", "--threads", "1"]
    command += ["--out", str(out)]
    pair = start_pair(start, unlaunched, [command, command])
    await_a_piece(pair, pieces)
    for process in pair:
        process.kill()
    for process in pair:
        process.wait(PATIENCE_S)
    left = sorted(path.stem for path in pieces.glob("[!.]*.json"))
    assert left
    assert not out.exists()

    launch = ["-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2", "--num_machines", "1"]
    launch += ["--mixed_precision", "no", "--dynamo_backend", "no", "--main_process_port", free_port()]
    done = subprocess.run(
        [sys.executable, *launch, "-m", "sam2lite_core", *command],
        capture_output=True, text=True, check=False, timeout=240,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("DAVIS 2017, shown by mask") == 1

    whole = evaluate(Davis(data, 2017), TrackerOptions(scale=0.5, threads=1), out=tmp_path / "whole")
    found = json.loads((out / "davis.json").read_text())
    assert found["machine"]["processes"] == 2
    assert scores(found) == scores(whole)
    masks = list((tmp_path / "whole").rglob("*.png"))
    assert len(masks) == 15
    for path in masks:
        assert path.read_bytes() == (out / path.relative_to(tmp_path / "whole")).read_bytes()


def test_a_process_whose_other_never_starts_gives_up(unlaunched):
    pytest.importorskip("accelerate", reason="needs Accelerate: pip install 'sam2lite[distributed]'")
    code = (
        "from sam2lite_core.errors import BackendError; from sam2lite_core.evaluation.runs import team;"
        "team.LONGEST_MEETING_S = 0.5\ntry: team.launched_team()\nexcept BackendError as error: print(error)"
    )
    meeting = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": free_port(), "WORLD_SIZE": "2", "RANK": "0"}
    done = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, **meeting, "OMP_NUM_THREADS": "1"},
        capture_output=True, text=True, check=True, timeout=120,
    )  # fmt: skip
    assert done.stdout == "other processes did not come within 0.5 s; start all of them\n"


def test_a_process_that_fails_ends_its_pair(unlaunched, data, tmp_path, start):
    pytest.importorskip("accelerate", reason="needs Accelerate: pip install 'sam2lite[distributed]'")
    command = ["eval", "davis", "--out", str(tmp_path / "out"), "--root"]
    pair = start_pair(start, unlaunched, [[*command, str(data)], [*command, str(tmp_path / "none")]])
    (_, main), (_, other) = (process.communicate(timeout=PATIENCE_S) for process in pair)
    assert [process.returncode for process in pair] == [2, 2]
    assert "none/Annotations: no such folder" in other
    assert "process 0 of 2 lost the others" in main
    assert "Traceback" not in main + other
    assert not (tmp_path / "out").exists()


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
    [("64,x", "--budgets '64,x' is not a list"), ("64.5", "--budgets 64.5 is not a whole"), ("63", "63 is not")],
)
def test_budgets_are_refused_by_the_command(data, tmp_path, capsys, budgets, message):
    with pytest.raises(SystemExit) as end:
        app.main(["eval", "policies", "--root", str(data), "--out", str(tmp_path / "out"), "--budgets", budgets])
    assert end.value.code == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_the_command_prints_the_table_of_policies(data, tmp_path, capsys):
    arguments = ["--root", data, "--sequences", "a", "--policies", "fifo", "--budgets", "64,256", "--scale", "0.5"]
    arguments += ["--threads", "1", "--out", tmp_path / "out", "--json", tmp_path / "table.json"]
    with pytest.raises(SystemExit) as end:
        app.main(["eval", "policies", *map(str, arguments)])
    assert not end.value.code
    assert "| policy | B = 64 | B = 256 |" in capsys.readouterr().out
    assert (tmp_path / "table.json").read_bytes() == (tmp_path / "out" / "policies.json").read_bytes()
