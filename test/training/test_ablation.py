"""Forks of stage 2: what a row changes, what the table says, and one fork from its training to its scores."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from sam2lite_core.errors import ConfigurationError, SourceError
from training import checkpoint
from training.__main__ import main
from training.ablation import run
from training.ablation import table as ablation_table
from training.config import loading
from training.loop.trainer import CHECKPOINTS, Trainer


def document(tmp_path: Path, **changes: Any) -> dict[str, Any]:
    start = tmp_path / "start.pt"
    start.touch()
    made: dict[str, Any] = loading.read_document(run.ROWS.parent / "smoke.yaml")
    made = loading.merge(made, {"init": str(start), "evaluation": {"root": str(tmp_path), "policy": "learned"}})
    return loading.merge(made, changes)


def test_every_row_is_laid_over_the_given_run_and_nothing_else_changes(tmp_path: Path) -> None:
    given = document(tmp_path)
    forks = run.make_forks(given, run.row_names(), (0, 3), tmp_path / "out")
    assert [fork.name for fork in forks[:2]] == ["full-0", "budget_128-0"]
    assert len(forks) == 2 * len(ablation_table.PAPER) + 2
    by_name = {fork.name: fork.config for fork in forks}
    full = by_name["full-3"]
    assert (full.seed, full.folder, list(full.stages.numbered())) == (3, tmp_path / "out" / "full-3", [2])
    assert full.unroll == loading.build(type(full), given).unroll
    weights = by_name["no_attention_no_readout-0"].unroll.weights
    assert (weights.attention, weights.readout, weights.mask) == (0.0, 0.0, full.unroll.weights.mask)
    fifo = by_name["fifo-0"]
    assert (fifo.unroll.selection, fifo.evaluation.policy) == ("fifo", "fifo")
    assert (by_name["budget_128-0"].unroll.budgets, by_name["budget_128-0"].evaluation.budget) == ((128,), 128)
    assert {config.data for config in by_name.values()} == {full.data}


@pytest.mark.parametrize(
    ("changes", "rows", "seeds", "message"),
    [
        ({}, ["full", "no_such"], (0,), "no ablation 'no_such'; choose from full, budget_128"),
        ({}, ["from_scratch"], (0,), "from_scratch has no start in common with the others"),
        ({}, ["full"], (), "seeds \\[\\]: give at least one"),
        ({}, ["full"], (1, 1), "each of them once"),
        ({"init": None}, ["full"], (0,), "init is None: ablations fork from a checkpoint"),
        ({"init": "nowhere.pt"}, ["full"], (0,), "init is nowhere.pt"),
        ({"stages": {"memory": {"steps": None, "minutes": 2}}}, ["full"], (0,), "minutes is 2: rows of equal cost"),
        ({"stages": {"memory": None}}, ["full"], (0,), "stages.memory is missing"),
        ({"evaluation": {"root": None}}, ["full"], (0,), "evaluation.root is missing"),
    ],
)
def test_what_cannot_be_compared_is_refused(tmp_path, changes, rows, seeds, message) -> None:
    with pytest.raises(ConfigurationError, match=message):
        run.make_forks(document(tmp_path, **changes), rows, seeds, tmp_path / "out")


def scored(row: str, seed: int, *values: float) -> dict[str, Any]:
    names = [f"s{number}" for number in range(len(values))]
    return {
        "row": row, "seed": seed, "steps": 4, "clips": 8, "minutes": 0.5,
        "jf": {"davis": dict(zip(names, values, strict=True))},
    }  # fmt: skip


def test_differences_are_paired_by_sequence_and_by_seed() -> None:
    content = ablation_table.summarise(
        [
            scored("full", 0, 0.5, 0.9, 0.7, 0.3),
            scored("full", 1, 0.7, 0.9, 0.7, 0.5),
            scored("fifo", 0, 0.45, 0.85, 0.65, 0.25),
            scored("fifo", 1, 0.65, 0.85, 0.65, 0.45),
            scored("random", 0, 0.9, 0.9, 0.3, 0.3),
            scored("no_edge", 2, 0.1, 0.1, 0.1, 0.1),
        ]
    )
    rows = content["rows"]
    assert list(rows) == ["full", "fifo", "random"]  # no_edge has no seed that the full row has too
    assert rows["full"]["sets"]["davis"] == {"jf": pytest.approx(65.0), "sequences": 4}
    fifo = rows["fifo"]["sets"]["davis"]
    # Each sequence lost five points: however they are resampled, so does the mean.
    assert fifo["jf"] == pytest.approx(60.0) and fifo["difference"] == pytest.approx(-5.0)
    assert fifo["interval"] == pytest.approx([-5.0, -5.0]) and fifo["verdict"] == "differs"
    # Seed 0 alone is compared with seed 0 alone: 40 and -40 points on one sequence each leave nothing certain.
    random = rows["random"]["sets"]["davis"]
    assert random["difference"] == pytest.approx(0.0) and random["verdict"] == "no difference"
    table = ablation_table.markdown(content)
    assert "| `fifo` | 2 | 4 | -3.3 | 60.0 | -5.0 | -5.0 to -5.0 | differs |" in table
    assert "| `random` | 1 | 4 | -8.9 | 60.0 | +0.0 | " in table and "no difference" in table


def test_small_differences_are_none_however_certain() -> None:
    rows = [scored("full", 0, 0.5, 0.9), scored("fifo", 0, 0.485, 0.885)]
    fifo = ablation_table.summarise(rows)["rows"]["fifo"]["sets"]["davis"]
    assert fifo["interval"][1] < 0.0 and fifo["verdict"] == "no difference"


def test_large_differences_that_chance_explains_are_open() -> None:
    rows = [scored("full", 0, 0.5, 0.5, 0.5, 0.5), scored("fifo", 0, 0.1, 0.6, 0.6, 0.5)]
    fifo = ablation_table.summarise(rows)["rows"]["fifo"]["sets"]["davis"]
    assert fifo["difference"] == pytest.approx(-5.0) and fifo["interval"][1] > 0.0 and fifo["verdict"] == "open"


@pytest.mark.parametrize("values", [(0.5,), (0.5, 0.6, 0.7)])
def test_rows_on_other_sequences_are_not_compared(values: tuple[float, ...]) -> None:
    with pytest.raises(SourceError, match="'fifo' and row 'full' were scored on different sequences of davis"):
        ablation_table.summarise([scored("full", 0, 0.5, 0.9), scored("fifo", 0, *values)])


def test_the_interval_is_that_of_a_mean() -> None:
    differences = np.random.default_rng(1).normal(3.0, 4.0, 400)
    low, high = ablation_table.bootstrap(differences)
    error = differences.std() / 20.0
    assert low == pytest.approx(differences.mean() - 1.96 * error, abs=0.1)
    assert high == pytest.approx(differences.mean() + 1.96 * error, abs=0.1)


def test_a_table_needs_scores_of_the_full_row(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="no fork is scored there yet"):
        ablation_table.read_scores(tmp_path)
    with pytest.raises(SourceError, match="row 'full' is not scored yet"):
        ablation_table.summarise([scored("fifo", 0, 0.5)])
    (tmp_path / "full-0").mkdir()
    (tmp_path / "full-0" / "scores.json").write_text("{")
    with pytest.raises(SourceError, match="cannot be read"):
        ablation_table.read_scores(tmp_path)


@pytest.mark.slow
def test_a_fork_is_trained_and_scored_once(
    small_run, small_davis: Path, exported, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    start = small_run(folder="start")
    assert Trainer(start, (2,), resume=False, max_minutes=1e-6).run() == 0
    init = checkpoint.newest(start.folder / CHECKPOINTS)
    config = tmp_path / "config.yaml"
    config.write_text(loading.dump(small_run({"init": str(init), "evaluation": {"root": str(small_davis)}})))
    out = tmp_path / "out"
    command = ["ablate", "--config", str(config), "--out", str(out), "--rows", "fifo", "--seeds", "7"]
    with pytest.raises(SystemExit) as ended:
        main([*command, "--clips", "1", "--threads", "1"])
    assert ended.value.code in (0, None)
    content = json.loads((out / "ablations.json").read_text())
    assert {row: entry["seeds"] for row, entry in content["rows"].items()} == {"full": [7], "fifo": [7]}
    scores = [json.loads((out / f"{row}-7" / "scores.json").read_text()) for row in ("full", "fifo")]
    assert [(entry["steps"], entry["clips"], entry["policy"]) for entry in scores] == [
        (4, 8, "learned"),
        (4, 8, "fifo"),
    ]
    assert list(scores[0]["jf"]["davis"]) == ["bodies"]
    assert list(scores[0]["jf"]["long_occlusion"]) == ["long_occlusion-00"]
    # What was exported is what was trained, from one start and on the same clips.
    first, second = (student.state_dict() for student, _ in exported)
    begun = checkpoint.load(init)["average"]
    moved = [name for name in first if not torch.equal(first[name], begun[name])]
    assert moved and any(not torch.equal(first[name], second[name]) for name in moved)
    monkeypatch.setattr(Trainer, "run", lambda _: pytest.fail("trained again"))
    (out / "ablations.md").unlink()
    with pytest.raises(SystemExit) as ended:
        main([*command, "--clips", "1"])
    assert ended.value.code in (0, None) and "| `fifo` | 1 | 4 | -3.3 |" in (out / "ablations.md").read_text()
    for other, message in (
        (["--clips", "2"], "--clips is 2 now and was 1"),
        (["--clips", "1", "--set", "unroll.weights.edge=0.9"], "unroll.weights.edge is 0.9 now and was"),
        (["--clips", "1", "--set", f"init={tmp_path / 'config.yaml'}"], "init is"),
    ):
        with pytest.raises(SystemExit) as ended:
            main([*command, *other])
        assert ended.value.code == 2 and message in capsys.readouterr().err
