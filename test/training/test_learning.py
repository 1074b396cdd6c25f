"""What surrounds the gradient: rates, stages' lengths, averages, clipping, throughput, the log."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from sam2lite_core.model.student import Student
from sam2lite_core.variants import get_variant
from training.config.stages import Phase, StageConfig
from training.loop.device_rate import count_operations, matrix_rate
from training.loop.log import Throughput, TrainingLog
from training.loop.optimizer import ExponentialMovingAverage, clip_gradients, learning_rate, parameter_groups
from training.loop.progress import Progress, phase_at, stage_steps
from training.objective.module import ClipLoss
from training.seeds import seed_of


@pytest.mark.parametrize(
    ("schedule", "progress", "step", "expected"),
    [
        ("exponential", 0.0, 100, 2.0),
        ("exponential", 0.5, 100, 2.0 * 0.1),
        ("exponential", 1.0, 100, 2.0 * 0.01),
        ("exponential", 0.0, 0, 2.0 / 4),  # warm-up of four steps
        ("exponential", 0.0, 2, 2.0 * 3 / 4),
        ("cosine", 0.0, 100, 2.0),
        ("cosine", 0.5, 100, 2.0 * (0.01 + 0.99 * 0.5)),
        ("cosine", 1.0, 100, 2.0 * 0.01),
        ("cosine", 1.7, 100, 2.0 * 0.01),
    ],
)
def test_learning_rate_by_hand(schedule: str, progress: float, step: int, expected: float) -> None:
    stage = StageConfig(steps=9, learning_rate=2.0, schedule=schedule, min_lr_ratio=0.01, warmup=4)
    assert learning_rate(stage, progress, step) == pytest.approx(expected)


def test_steps_of_a_stage_by_hand() -> None:
    assert stage_steps(StageConfig(steps=7), 1000, 4) == 7
    assert stage_steps(StageConfig(minutes=7.0), 1000, 4) is None
    # 10 epochs of 1000 clips in batches of 5 on 4 processes
    assert stage_steps(StageConfig(epochs=10, phases=(Phase(batch=5),)), 1000, 4) == 500
    # half of the steps with 6 clips, half with 2: 4 on average
    phases = (Phase(until=0.5, batch=6), Phase(batch=2))
    assert stage_steps(StageConfig(epochs=2, phases=phases), 1000, 1) == 500


def test_phases_and_progress_by_hand() -> None:
    stage = StageConfig(minutes=2.0, phases=(Phase(until=0.25), Phase(until=0.5), Phase()))
    assert [phase_at(stage, p) for p in (0.0, 0.24, 0.25, 0.49, 0.5, 1.0)] == [0, 0, 1, 1, 2, 2]
    assert Progress(1, spent=30.0).share(stage, None) == 0.25
    assert Progress(1, step=3, spent=30.0).share(stage, 4) == 0.75


def test_seeds_differ_wherever_their_keys_do() -> None:
    keys = [(0,), (1,), (0, 1), (1, 0), (0, 0, 1), (0, 1, 1)]
    seeds = [seed_of(*key) for key in keys]
    assert len(set(seeds)) == len(keys)
    assert all(0 <= seed < 2**63 for seed in seeds)
    assert seed_of(1, 0) == seeds[3]


def test_average_by_hand() -> None:
    model = nn.BatchNorm1d(1)
    average = ExponentialMovingAverage(model, ema_decay=0.5)
    with torch.no_grad():
        model.weight.fill_(3.0)
        model.num_batches_tracked.fill_(9)
    average.update(model, step=100)
    assert average.state["weight"].item() == pytest.approx(2.0)  # half of 1, half of 3
    assert average.state["num_batches_tracked"].item() == 9
    average.update(model, step=0)  # decay of an early step: 1 / 10
    assert average.state["weight"].item() == pytest.approx(0.1 * 2.0 + 0.9 * 3.0)


def test_the_gate_is_clipped_apart_from_the_others() -> None:
    model = ClipLoss(Student(get_variant("tiny")))
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    model.student.log_scale.grad = torch.tensor(0.5)
    gate = next(model.student.gate.parameters())
    gate.grad.view(-1)[0] = 100.0
    norm, gate_norm = clip_gradients(model, 1.0)
    assert (float(norm), float(gate_norm)) == pytest.approx((0.5, 100.0))
    assert float(model.student.log_scale.grad) == pytest.approx(0.5)
    assert float(gate.grad.norm()) == pytest.approx(1.0, rel=1e-4)


def test_only_matrices_and_kernels_decay() -> None:
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.LayerNorm(4), nn.Linear(4, 4))
    decayed, free = parameter_groups(model, 0.3)
    assert decayed["weight_decay"] == 0.3 and free["weight_decay"] == 0.0
    assert sorted(p.ndim for p in decayed["params"]) == [2, 4]
    assert [p.ndim for p in free["params"]] == [1, 1, 1, 1]


def test_throughput_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr("training.loop.log.time.perf_counter", lambda: now[0])
    throughput = Throughput(matrix_rate=1e12)
    for waited, worked in ((1.0, 3.0), (0.0, 4.0)):
        throughput.begin()
        with throughput.waiting():
            now[0] += waited
        now[0] += worked
        row = throughput.end(clips=6)
    throughput.operations = 2e12
    assert row == {"seconds": 4.0, "clips_per_s": 1.5, "waiting": 0.125}
    assert throughput.summary() == (
        "2 steps, 1.50 clips/s, 12.5 % of the time waiting for data, 25.0 % of the card's matrix rate of 1 TFLOP/s"
    )
    assert Throughput().summary() == "no step was made"


def test_operations_of_a_product_by_hand() -> None:
    left, right = torch.ones(3, 4, requires_grad=True), torch.ones(4, 5)
    assert count_operations(lambda: left @ right) == 2 * 3 * 4 * 5
    assert matrix_rate(torch.device("cpu"), torch.float32, side=16, seconds=0.0) > 0


def test_the_log_drops_what_came_after_the_checkpoint(tmp_path: Path) -> None:
    row = {"loss": 1.0, "learning_rate": 0.1, "waiting": 0.0}
    with TrainingLog(tmp_path, 0, main=True) as log:
        for step in (1.0, 2.0, 3.0):
            log.record({"step": step, **row}, write=True)
    with (tmp_path / "log.jsonl").open("a") as log:
        log.write('{"step": 4.0, "lo')  # the process died here
    with TrainingLog(tmp_path, 2, main=True) as log:
        log.record({"step": 3.0, **row, "loss": math.pi}, write=True)
        log.record({"step": 4.0, **row}, write=False)
    rows = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [entry["step"] for entry in rows] == [1, 2, 3]
    assert rows[-1]["loss"] == pytest.approx(math.pi)


def test_tensorboard_holds_the_curves(tmp_path: Path) -> None:
    reading = pytest.importorskip(
        "tensorboard.backend.event_processing.event_accumulator",
        reason="needs tensorboard: pip install sam2lite[train]",
    )
    with TrainingLog(tmp_path, 0, main=True) as log:
        for step in (1, 2):
            row = {"step": step, "loss": 1.0 / step, "learning_rate": 0.1, "waiting": 0.5}
            log.record(row, write=True)
    board = reading.EventAccumulator(str(tmp_path / "tensorboard"))
    board.Reload()
    assert [(e.step, e.value) for e in board.Scalars("loss/loss")] == [(1, 1.0), (2, 0.5)]
    assert {"optimiser/learning_rate", "speed/waiting"} <= set(board.Tags()["scalars"])


def test_without_a_terminal_progress_is_a_line_a_minute(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    now = [0.0]
    monkeypatch.setattr("training.loop.log.time.monotonic", lambda: now[0])
    with TrainingLog(tmp_path, 0, main=True) as log:
        log.begin_stage("stage 1", 4, 1)
        for step in (2, 3, 4):
            now[0] += 40.0
            row = {"step": step, "loss": 1.0, "learning_rate": 0.1, "waiting": 0.0, "clips_per_s": 1.5}
            log.record(row, write=True)
    said = [line for line in capsys.readouterr().err.splitlines() if "stage 1: step" in line]
    assert said == ["stage 1: step 3 of 4, loss 1.000, learning_rate 1.0e-01, waiting 0%, 1.50 clips/s"]


def test_other_processes_write_nothing(tmp_path: Path) -> None:
    with TrainingLog(tmp_path, 0, main=False) as log:
        log.record({"step": 1.0, "loss": np.nan}, write=True)
        log.say("nothing")
    assert list(tmp_path.iterdir()) == []
