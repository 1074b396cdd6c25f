"""`python -m training`: what the commands write, and how they refuse."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch

from training import checkpoint
from training.__main__ import main
from training.config import loading
from training.data.mixture import Mixture
from training.data.preview import draw_clip, draw_flow
from training.data.stream import SKIPPED, batches, checked
from training.loop.trainer import CHECKPOINTS, Trainer
from training.teachers.cache import PREFIX, CachedTeacher, batch_file, cached_batches

ROOT = Path(__file__).resolve().parents[2]


def written(config: Any, tmp_path: Path) -> str:
    path = tmp_path / "config.yaml"
    path.write_text(loading.dump(config))
    return str(path)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["run", "--config", "nowhere"], "nowhere: no such file; training/configs has"),
        (["run", "--config", "smoke", "--stage", "4"], "--stage 4: choose 1, 2, 3 or all"),
        (["run", "--config", "smoke", "--set", "sede=1"], "unknown key 'sede'; did you mean 'seed'?"),
        (["run", "--config", "smoke", "--max-minutes", "0"], "--max-minutes 0.0 is not positive"),
        (["run", "--config", "tiny_from_stills", "--set", "data.sources=[{kind: synthetic, root: none/such}]"],
         "none/such/manifest.json does not exist"),
        (["show-data", "--config", "smoke", "--out", "x.jpg"], "--out x.jpg: name a .png file"),
        (["show-data", "--config", "smoke", "--out", "x.png", "--phase", "9"], "--phase 9: stage 1 has 1"),
        (["cache-teacher", "--config", "smoke", "--out", "x", "--set", "teacher.name=none"], "teacher: name one"),
        (["label-films", "--root", "nowhere", "--out", "x"], "nowhere: no such folder; clips are video files"),
        (["label-films", "--root", ".", "--out", "x", "--frames", "1"], "frames is 1, expected at least 3"),
        (["evaluate", "--checkpoint", "nowhere.pt"], "nowhere.pt: no such checkpoint"),
        (["evaluate", "--checkpoint", "nowhere.pt", "--backend", "x"], "unknown backend 'x'"),
    ],
)  # fmt: skip
def test_mistakes_are_one_line_and_code_2(
    arguments: list[str],
    message: str,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_show_data_draws_images_labels_and_flow(small_run, tmp_path: Path) -> None:
    out = tmp_path / "samples.png"
    config = written(small_run(), tmp_path)
    main_returns(["show-data", "--config", config, "--out", str(out), "--stage", "2", "--clips", "3"])
    picture = cv2.imread(str(out))
    # three clips of two frames of 48x48: the frame and its flow, one below the other, and a gap of 4 px
    assert picture.shape == (3 * (2 * 48 + 4), 2 * (48 + 4), 3)


def main_returns(arguments: list[str]) -> None:
    """Run a command that is to succeed."""
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code in (0, None)


def test_flow_and_labels_are_drawn_as_they_are() -> None:
    flow = np.zeros((2, 2, 2), np.float32)
    flow[0, 0] = (0.1, 0.0)  # right: red, at full brightness
    drawn = draw_flow(flow)
    assert drawn[0, 0, 0] == 255 and drawn[0, 0, 0] > drawn[0, 0, 1:].max() and not drawn[1, 1].any()
    labels = np.zeros((2, 20, 20), np.uint8)
    labels[0, 5:15, 5:15] = 1
    clip = {
        "images": torch.zeros(2, 20, 20, 3, dtype=torch.uint8),
        "labels": torch.from_numpy(labels),
        "flow": torch.zeros(2, 5, 5, 2),
    }
    row = draw_clip(clip)
    assert row[10, 10].any() and not row[2, 2].any() and not row[10, 24 + 10].any()


def test_a_cache_says_what_the_teacher_says(small_run, tmp_path: Path) -> None:
    """The oracle, once live and once from disk, teaches the same."""
    config = small_run({"teacher": {"name": "oracle"}, "stages": {"memory": {"steps": 2}}}, "live")
    folder = tmp_path / "cache"
    main_returns(["cache-teacher", "--config", written(config, tmp_path), "--out", str(folder), "--batches", "2"])
    assert json.loads((folder / "cache.json").read_text()) == {"teacher": "oracle", "readout_width": 0}
    assert Trainer(config, (2,), resume=False, max_minutes=None).run() == 0
    cached = small_run(
        {"teacher": {"name": "oracle", "cache": str(folder)}, "stages": {"memory": {"steps": 2}}}, "cached"
    )
    assert Trainer(cached, (2,), resume=False, max_minutes=None).run() == 0
    live, from_disk = (
        [json.loads(line) for line in (c.folder / "log.jsonl").read_text().splitlines()] for c in (config, cached)
    )
    assert [row["attention"] for row in live] == pytest.approx([row["attention"] for row in from_disk], rel=2e-2)
    assert [row["loss"] for row in live] == pytest.approx([row["loss"] for row in from_disk], rel=1e-2)
    assert live[0]["attention"] > 0


def test_cached_batches_go_round_from_where_they_are_told(small_run, tmp_path: Path) -> None:
    config = small_run({"teacher": {"name": "oracle"}})
    folder = tmp_path / "cache"
    main_returns(["cache-teacher", "--config", written(config, tmp_path), "--out", str(folder), "--batches", "3"])
    phase = config.stages.memory.phases[0]
    live = iter(batches(Mixture(config.data, config.seed), phase, (config.seed, 0, 2, 0)))
    clips = [checked(next(live))[0] for _ in range(3)]
    stream = iter(cached_batches(folder, 2, 0, first=1))
    for wanted in (clips[1], clips[2], clips[0]):
        got = next(stream)
        assert int(got[SKIPPED]) == 0
        assert all(torch.equal(value, got[name]) for name, value in wanted.items())
    targets = CachedTeacher(folder).targets(got)
    assert targets.attention.shape[:2] == (2, 2)
    assert any(name.startswith(PREFIX) for name in got)


def test_a_bad_cache_is_named(tmp_path: Path) -> None:
    from sam2lite_core.errors import ModelFileError, SourceError

    with pytest.raises(SourceError, match=r"cache\.json: missing; make the cache"):
        CachedTeacher(tmp_path)
    with pytest.raises(SourceError, match="stage1_phase0: no batch"):
        cached_batches(tmp_path, 1, 0, 0)
    path = batch_file(tmp_path, 1, 0, 0)
    path.parent.mkdir()
    path.write_bytes(b"cut")
    with pytest.raises(ModelFileError, match=r"000000\.pt: cut short"):
        next(iter(cached_batches(tmp_path, 1, 0, 0)))


def test_a_checkpoint_is_scored_by_the_davis_protocol(
    small_run, small_davis: Path, exported: list[Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = small_run({"evaluation": {"root": str(small_davis), "policy": "fifo", "budget": 64}})
    assert Trainer(config, (2,), resume=False, max_minutes=1e-6).run() == 0
    path = checkpoint.newest(config.folder / CHECKPOINTS)
    assert path is not None
    out = tmp_path / "scores"
    main_returns(["evaluate", "--checkpoint", str(path), "--out", str(out), "--backend", "torch", "--threads", "1"])
    result = json.loads((out / "davis.json").read_text())
    assert [entry["name"] for entry in result["sequences"]] == ["bodies"]
    ((student, note),) = exported
    average = checkpoint.load(path)["average"]
    assert all(torch.equal(value, average[name]) for name, value in student.state_dict().items())
    assert not student.training and note == f"checkpoint {path.name}"
    assert 0.0 <= result["jf"] <= 1.0 and result["protocol"] == "DAVIS 2017"
    assert "bodies" in capsys.readouterr().out


@pytest.mark.slow
def test_the_smoke_run_learns_in_all_three_stages(tmp_path: Path) -> None:
    """The configuration that ships, as a user would run it; the oracle teaches."""
    pytest.importorskip("training.students.quantization", reason="stage 3 needs training.students.quantization")
    folder = tmp_path / "smoke"
    command = [sys.executable, "-m", "training", "run", "--config", "smoke", "--set", f"folder={folder}"]
    done = subprocess.run(
        command, cwd=ROOT, env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    rows = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    for stage in (1, 2, 3):
        of_stage = [row for row in rows if row["stage"] == stage]
        part = len(of_stage) // 4
        curves = ["loss", "mask", "iou", "edge", "presence", "attention", "correspondence"]
        for name in [*curves, *(["budget"] if stage > 1 else [])]:
            first, last = (np.mean([row[name] for row in some]) for some in (of_stage[:part], of_stage[-part:]))
            assert last < first, (stage, name, first, last)
    names = {path.name for path in (folder / "checkpoints").iterdir()}
    assert names >= {"best.pt", "stage1.pt", "stage2.pt", "stage3.pt"}
    assert "% of the time waiting for data" in done.stderr
