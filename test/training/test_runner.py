"""Runs: interrupted ones end as others do, on any number of processes, and what goes wrong is told and kept."""

import errno
import json
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from sam2lite_core.errors import ConfigurationError, ModelFileError, SourceError
from training import checkpoint
from training.config import loading
from training.data.stream import _start_worker
from training.loop.stage import StageTraining
from training.loop.trainer import CHECKPOINTS, Stop, Trainer, TrainingError
from training.objective.module import ClipLoss

ROOT = Path(__file__).resolve().parents[2]
TWO_PHASES = [
    {"until": 0.4, "height": 48, "width": 48, "frames": 2, "batch": 2, "budgets": [8], "pooled": False},
    {"height": 48, "width": 64, "frames": 3, "batch": 1, "budgets": [8], "pooled": False},
]


class StopAfter(Stop):
    """Ends a run once it was asked that often."""

    def __init__(self, times: int) -> None:
        super().__init__(None)
        self._left = times

    def wanted(self) -> bool:
        self._left -= 1
        return self._left < 0


def run(config: Any, stages: tuple[int, ...] = (2,), resume: bool = False, stop: Stop | None = None) -> int:
    runner = Trainer(config, stages, resume=resume, max_minutes=None)
    if stop is not None:
        runner.stop = stop
    return runner.run()


def rows(folder: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


def learned(folder: Path) -> list[dict[str, float]]:
    """The log without what depends on the clock."""
    return [
        {name: value for name, value in row.items() if name not in ("seconds", "clips_per_s", "waiting")}
        for row in rows(folder)
    ]


def test_an_interrupted_run_ends_bit_for_bit_as_one_that_was_not(small_run) -> None:
    changes = {"stages": {"memory": {"steps": 5, "phases": TWO_PHASES}}, "accumulate": 2}
    whole, parts = small_run(changes, "whole"), small_run(changes, "parts")
    assert run(whole) == 0
    # Once inside a phase, once on the edge between two, and once between two regular checkpoints.
    for times in (1, 1, 1):
        assert run(parts, resume=True, stop=StopAfter(times)) == 0
    assert run(parts, resume=True) == 0
    assert learned(parts.folder) == learned(whole.folder)
    assert [row["step"] for row in rows(whole.folder)] == [1, 2, 3, 4, 5]
    ends = [checkpoint.load(checkpoint.newest(c.folder / CHECKPOINTS)) for c in (whole, parts)]
    for part in ("student", "average"):
        assert all(torch.equal(value, ends[1][part][name]) for name, value in ends[0][part].items())


def test_stages_follow_one_another_and_go_on_from_their_averages(small_run) -> None:
    stage = {"steps": 1, "learning_rate": 1e-3, "prune": False, "phases": TWO_PHASES[1:]}
    config = small_run({"stages": {"foundation": stage}})
    with pytest.raises(SourceError, match=r"stage1\.pt: missing; run --stage 1 first"):
        run(config, (2,))
    assert run(config, (1,)) == 0
    first = checkpoint.load(checkpoint.stage_file(config.folder / CHECKPOINTS, 1))
    assert run(config, (2,), stop=StopAfter(0)) == 0
    second = checkpoint.load(checkpoint.newest(config.folder / CHECKPOINTS))
    assert all(torch.equal(value, second["student"][name]) for name, value in first["average"].items())
    assert [row["stage"] for row in rows(config.folder)] == [1]
    assert run(config, (1, 2), resume=True) == 0
    assert [(row["stage"], row["step"]) for row in rows(config.folder)] == [
        (1, 1), (2, 2), (2, 3), (2, 4), (2, 5),
    ]  # fmt: skip


def test_frozen_parts_keep_their_weights_and_statistics(small_run) -> None:
    config = small_run({"stages": {"memory": {"frozen": ["encoder", "key"]}}})
    assert run(config) == 0
    states = [checkpoint.load(path) for path in sorted((config.folder / CHECKPOINTS).glob("step_*.pt"))]
    first, last = states[0]["student"], states[-1]["student"]
    moved = {name for name in first if not torch.equal(first[name], last[name])}
    assert moved and not {name for name in moved if name.split(".")[0] in ("encoder", "key")}
    assert {name.split(".")[0] for name in moved} >= {"decoder", "head", "value"}


def test_a_frozen_part_that_does_not_exist_is_named(small_run) -> None:
    with pytest.raises(ConfigurationError, match=r"frozen names 'backbone'.*encoder"):
        run(small_run({"stages": {"memory": {"frozen": ["backbone"]}}}))


def test_sigterm_ends_a_run_with_a_checkpoint_and_its_own_exit_code(
    small_run, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    before = signal.getsignal(signal.SIGTERM)
    step = StageTraining.step

    def step_and_be_told(self: StageTraining, position: Any, *rest: Any) -> Any:
        outcome = step(self, position, *rest)
        if outcome is not None and position.step == 3:
            os.kill(os.getpid(), signal.SIGTERM)
        return outcome

    monkeypatch.setattr(StageTraining, "step", step_and_be_told)
    config = small_run()
    assert run(config) == 128 + signal.SIGTERM
    assert checkpoint.newest(config.folder / CHECKPOINTS) == config.folder / CHECKPOINTS / "step_00000003.pt"
    assert "stopped by SIGTERM at step 3 of stage 2; go on with --resume" in capsys.readouterr().err
    assert signal.getsignal(signal.SIGTERM) is before


def signal_from_outside(pids: list[int]) -> None:
    """Send SIGTERM to processes from one that is not their parent, as a shell or a batch system does."""
    subprocess.run(["kill", "-TERM", *map(str, pids)], check=True)


def test_sigterm_to_the_whole_process_group_ends_it_no_less_in_order(
    small_run, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    step, told = StageTraining.step, []

    def step_and_be_told(self: StageTraining, position: Any, *rest: Any) -> Any:
        outcome = step(self, position, *rest)
        if outcome is not None and position.step == 3:
            told.extend(multiprocessing.active_children())
            signal_from_outside([os.getpid(), *(worker.pid for worker in told)])
            # Time enough for workers to die of it, and for the loader to notice.
            time.sleep(1.0)
        return outcome

    monkeypatch.setattr(StageTraining, "step", step_and_be_told)
    config = small_run({"data": {"workers": 2}})
    assert run(config) == 128 + signal.SIGTERM
    assert checkpoint.newest(config.folder / CHECKPOINTS) == config.folder / CHECKPOINTS / "step_00000003.pt"
    assert "stopped by SIGTERM at step 3 of stage 2; go on with --resume" in capsys.readouterr().err
    assert len(told) >= 2
    for worker in told:
        worker.join(60)
        assert worker.exitcode == 0


def test_a_worker_outlives_a_stranger_s_sigterm_and_not_its_trainer_s() -> None:
    fork = multiprocessing.get_context("fork")
    started = fork.Event()
    worker = fork.Process(target=stuck_worker, args=(started,), daemon=True)
    worker.start()
    assert started.wait(60)
    signal_from_outside([worker.pid])
    worker.join(0.5)
    assert worker.is_alive()
    worker.terminate()
    worker.join(60)
    assert worker.exitcode == 0


def stuck_worker(started: Any) -> None:
    """A worker with a sample that takes for ever."""
    _start_worker(0)
    started.set()
    while True:
        time.sleep(60)


def test_the_clock_ends_a_run_before_its_minutes_are_over(small_run, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr("training.loop.trainer.time.monotonic", lambda: now[0])
    stop = Stop(max_minutes=1.0)
    stop.longest = 10.0
    for seconds, wanted in ((0.0, False), (39.0, False), (41.0, True), (70.0, True)):
        now[0] = seconds
        assert stop.wanted() is wanted
    monkeypatch.undo()
    config = small_run()
    assert Trainer(config, (2,), resume=False, max_minutes=1e-6).run() == 0
    assert checkpoint.load(checkpoint.newest(config.folder / CHECKPOINTS))["position"]["step"] == 0


def test_a_loss_that_is_not_finite_stops_the_run_with_its_batch_saved(small_run) -> None:
    config = small_run({"stages": {"memory": {"learning_rate": 1e30}}})
    with pytest.raises(TrainingError, match=r"step [1-9] of stage 2 went wrong: .*bad_batch_\d+_0\.pt"):
        run(config)
    (path,) = config.folder.glob("bad_batch_*.pt")
    content = checkpoint.load(path)
    assert content["clip"]["images"].shape == (2, 2, 48, 48, 3)
    assert set(content["student"]) >= {"log_scale", "gate.layers.0.weight"}


def test_only_the_newest_checkpoints_and_the_best_one_stay(small_run) -> None:
    config = small_run(
        {"checkpoints": {"every_steps": 1, "keep": 2, "validation_batches": 1}, "stages": {"memory": {"steps": 3}}}
    )
    assert run(config) == 0
    folder = config.folder / CHECKPOINTS
    assert sorted(path.name for path in folder.iterdir()) == [
        "best.pt", "stage2.pt", "step_00000002.pt", "step_00000003.pt",
    ]  # fmt: skip
    best = checkpoint.load(folder / checkpoint.BEST)
    assert best["position"]["best"] <= checkpoint.load(folder / "step_00000003.pt")["position"]["best"] + 1e-9
    assert "optimizer" not in best
    assert loading.build(type(config), best["config"]) == config
    assert loading.load(type(config), config.folder / "config.yaml") == config


def test_a_full_disk_names_the_file_and_leaves_the_old_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "step_00000001.pt"
    checkpoint.save(path, {"variant": "tiny", "value": torch.ones(3)})

    def full(*_: Any) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(SourceError, match=r"step_00000001\.pt: cannot be written: No space left on device"):
        checkpoint.save(path, {"variant": "tiny", "value": torch.zeros(3)})
    monkeypatch.undo()
    assert checkpoint.load(path)["value"].tolist() == [1, 1, 1]
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]


def test_a_nan_in_the_loss_itself_stops_the_run_too(small_run, monkeypatch: pytest.MonkeyPatch) -> None:
    forward = ClipLoss.forward

    def spoilt(self: ClipLoss, *arguments: Any) -> Any:
        loss, parts = forward(self, *arguments)
        return loss * float("nan"), parts

    monkeypatch.setattr(ClipLoss, "forward", spoilt)
    config = small_run()
    with pytest.raises(TrainingError, match=r"step 0 of stage 2 went wrong: the loss is nan; .*bad_batch_00000000_0"):
        run(config)
    assert checkpoint.newest(config.folder / CHECKPOINTS) is None


@pytest.mark.parametrize("share", [0.0, 0.3, 0.9])
def test_a_truncated_checkpoint_is_named(small_run, share: float) -> None:
    config = small_run()
    folder = config.folder / CHECKPOINTS
    folder.mkdir(parents=True)
    checkpoint.save(folder / "step_00000001.pt", {"variant": "tiny", "value": torch.ones(300)})
    data = (folder / "step_00000001.pt").read_bytes()
    (folder / "step_00000002.pt").write_bytes(data[: int(share * len(data))])
    with pytest.raises(ModelFileError, match=r"step_00000002\.pt: cut short"):
        run(config, resume=True)


def test_what_is_no_checkpoint_is_refused(tmp_path: Path) -> None:
    torch.save({"a": 1}, tmp_path / "foreign.pt")
    with pytest.raises(ModelFileError, match=r"foreign\.pt: not a checkpoint"):
        checkpoint.load(tmp_path / "foreign.pt")
    with pytest.raises(ModelFileError, match=r"nowhere\.pt: no such checkpoint"):
        checkpoint.load(tmp_path / "nowhere.pt")


def test_a_run_is_neither_overwritten_nor_gone_on_with_as_another(small_run) -> None:
    config = small_run({"stages": {"memory": {"steps": 1}}})
    assert run(config) == 0
    with pytest.raises(ConfigurationError, match="holds a run already; go on with --resume"):
        run(config)
    changed = small_run({"stages": {"memory": {"steps": 1, "learning_rate": 0.5}}})
    with pytest.raises(ConfigurationError, match=r"stages\.memory\.learning_rate is 0\.5 now and was 0\.001"):
        run(changed, resume=True)
    assert run(small_run({"stages": {"memory": {"steps": 1}}, "log_every": 7}), resume=True) == 0
    lenient = {"stages": {"memory": {"steps": 1}}, "data": {"skip_bad": True, "workers": 1}}
    assert run(small_run(lenient), resume=True) == 0
    with pytest.raises(ConfigurationError, match="stage 3 is not in the configuration; it has 2"):
        run(config, (3,))


def test_bad_samples_end_a_run_or_are_counted_as_the_config_says(
    small_run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("good", "bad"):
        (tmp_path / "videos" / name).mkdir(parents=True)
    import cv2

    from sam2lite_core.scenes.clip import render_clip

    clip = render_clip(2, height=64, width=64, frames=2)
    for index, image in enumerate(clip.frames):
        cv2.imwrite(str(tmp_path / "videos" / "good" / f"{index}.png"), image)
        (tmp_path / "videos" / "bad" / f"{index}.png").write_bytes(b"no picture")
    source = {"sources": [{"kind": "clips", "root": str(tmp_path / "videos"), "count": 2}]}
    with pytest.raises(SourceError, match=r"bad/\d\.png: not a readable image"):
        run(small_run({"data": source}, "strict"))
    config = small_run({"data": {**source, "skip_bad": True}}, "lenient")
    assert run(config) == 0
    skipped = checkpoint.load(checkpoint.newest(config.folder / CHECKPOINTS))["position"]["skipped"]
    assert skipped > 0
    assert f"{skipped} bad samples skipped" in capsys.readouterr().err


def losses_of(config: Any, tmp_path: Path, processes: int) -> list[float]:
    """The loss curve of a run in processes of its own."""
    path = tmp_path / f"{config.folder.name}.yaml"
    path.write_text(loading.dump(config))
    launch = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    command = [sys.executable, *(launch if processes > 1 else []), "-m", "training", "run", "--config", str(path)]
    environment = {**os.environ, "ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False, timeout=240)
    assert done.returncode == 0, done.stderr[-3000:]
    return [row["loss"] for row in rows(config.folder)]


def test_two_processes_learn_what_one_does_with_twice_the_batch(small_run, tmp_path: Path) -> None:
    changes = {"stages": {"memory": {"steps": 3}}, "checkpoints": {"every_steps": 0}}
    pair = losses_of(small_run(changes, "pair"), tmp_path, processes=2)
    # The same halves, one after the other: everything drawn is drawn per half.
    alone = small_run({**changes, "accumulate": 2}, "alone")
    assert run(alone) == 0
    assert pair == pytest.approx([row["loss"] for row in rows(alone.folder)], rel=2e-3)
    assert pair[0] != pair[1]


def test_a_stage_that_the_clock_ends_may_be_given_more_minutes(small_run) -> None:
    def timed(minutes: float) -> Any:
        return small_run({"stages": {"memory": {"steps": None, "minutes": minutes}}})

    assert run(timed(60.0), stop=StopAfter(2)) == 0
    # Two steps take longer than this; the stage is over.
    assert run(timed(1e-6), resume=True) == 0
    assert [row["step"] for row in rows(timed(1.0).folder)] == [1, 2]
