"""The benchmark measures what it says; no test asserts a time."""

import dataclasses
import json
import sys

import pytest

from sam2lite_core.bench import fresh_process, models, step
from sam2lite_core.bench.energy import Gauge
from sam2lite_core.bench.tables import markdown
from sam2lite_core.cli.app import main
from sam2lite_core.errors import BackendError, ConfigurationError, Sam2LiteError

SMALL = step.BenchSettings(scales=(0.5,), objects=(1, 3), frames=3, height=96, width=128, threads=1)


def test_latency_rows_cover_scales_and_objects() -> None:
    told: list[str] = []
    rows = step.latency_rows(SMALL, told.append)
    assert [(row["scale"], row["objects"]) for row in rows] == [(0.5, 1), (0.5, 3)]
    assert len(told) == 2
    assert [(row["variant"], row["backend"], row["weights"]) for row in rows] == [
        ("tiny", "onnxruntime", "shipped")
    ] * 2
    for row in rows:
        assert "energy_mj" not in row  # no gauge
        assert 0 < row["inference_ms"] <= row["step_ms"]["p99"]
        assert row["step_ms"]["p50"] <= row["step_ms"]["p95"] <= row["step_ms"]["p99"]


def test_endurance_counts_tokens_and_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(step, "EDGE", 10)
    result = step.endurance(SMALL, 40)
    assert 0 < result["most_tokens"] <= result["memory_budget"]
    assert result["peak_resident_mb"] >= result["resident_mb_before"] > 10


def test_markdown_has_a_line_per_row() -> None:
    row = {"variant": "tiny", "scale": 0.5, "objects": 2, "fps": 10.0, "step_ms": {"p50": 1.0, "p95": 2.0, "p99": 3.0}}
    row |= {"inference_ms": 0.5, "motion_ms": 0.1, "preprocess_ms": 0.2, "postprocess_ms": 0.2}
    row |= {"backend": "torch", "precision": "fp32", "weights": "random", "energy_mj": {"nvml": 7.0}}
    process = {**row, "to_first_mask_s": 1.5, "import_s": 0.5, "load_s": 0.5, "first_step_s": 0.5}
    content = step.report(SMALL, [row, row], None, fresh=[{**process, "peak_resident_mb": 123.4}], energy="nvml")
    table = markdown(content)
    assert table.count("| tiny | torch | fp32 | random | 0.5 | 2 | 1.0 | 2.0 | 3.0 |") == 2
    assert table.count("| 10.0 | 7.0 |") == 2 and "nvml mJ" in table and "Energy: nvml" in table
    assert "| tiny | torch | fp32 | random | 1.5 | 0.5 | 0.5 | 0.5 | 123.4 |" in table
    assert "Random weights" in table
    assert "1 threads" in table


@pytest.mark.parametrize("options", [{"frames": 2}, {"objects": ()}, {"objects": (0,)}, {"scales": ()}])
def test_bad_settings_are_refused(options: dict) -> None:
    with pytest.raises(ConfigurationError, match="bench needs"):
        step.BenchSettings(**options)


def test_too_short_an_endurance_is_refused() -> None:
    with pytest.raises(ConfigurationError, match=r"50.*2000"):
        step.endurance(SMALL, 50)


class Steady:
    """A meter that counts two joules between readings."""

    name = "steady"
    total = 0.0

    def joules(self) -> float:
        self.total += 2.0
        return self.total


def test_energy_is_told_by_step_and_meter() -> None:
    rows = step.latency_rows(dataclasses.replace(SMALL, objects=(1,)), gauge=Gauge([Steady()], []))
    assert rows[0]["energy_mj"] == {"steady": round(2000.0 / 3, 3)}


def test_a_foreign_model_is_measured_at_its_own_size(miniature, tmp_path) -> None:
    miniature("edgetam").save_pretrained(tmp_path)
    settings = dataclasses.replace(SMALL, backend="transformers", model=str(tmp_path), scales=(None,), objects=(2,))
    (row,) = step.latency_rows(settings, weights="given")
    assert (row["variant"], row["backend"], row["scale"]) == ("edgetam_video", "transformers", 1.0)
    assert row["step_ms"]["p50"] > 0


def test_a_process_of_its_own_tells_its_start_and_its_memory() -> None:
    told = fresh_process.measure(step.tracker_options(SMALL, 0.5), (96, 128))
    parts = told["import_s"] + told["load_s"] + told["first_step_s"]
    assert 0 < parts <= told["to_first_mask_s"]
    if sys.platform == "linux":
        assert 20 < told["peak_resident_mb"] < 2000
    with pytest.raises(BackendError, match="unknown backend 'abacus'"):
        fresh_process.measure({"backend": "abacus"}, (96, 128))


def test_peak_memory_is_read_from_the_process_status(tmp_path) -> None:
    status = tmp_path / "status"
    assert fresh_process.peak_resident_mb(status) == "not measurable here"
    status.write_text("Name:\tpython\n")
    assert fresh_process.peak_resident_mb(status) == "not measurable here"
    status.write_text("VmPeak:\t  900 kB\nVmHWM:\t  2000 kB\n")
    assert fresh_process.peak_resident_mb(status) == 2.0


def test_every_combination_of_models(monkeypatch, tmp_path) -> None:
    made = []
    monkeypatch.setattr(models, "installed_backends", lambda: ("onnxruntime", "torch"))
    monkeypatch.setattr(models, "random_model", lambda name, folder: made.append(name) or folder)
    found = list(models.models(SMALL, "all", "all", "auto,fp32", tmp_path))
    assert len(found) == 3 * 2 * 2
    assert made == ["base"]
    assert [weights for _, weights in found] == ["shipped"] * 8 + ["random"] * 4
    assert {(s.variant, s.backend, s.precision) for s, _ in found} == {
        (v, b, p) for v in ("tiny", "small", "base") for b in ("onnxruntime", "torch") for p in ("auto", "fp32")
    }
    assert [s.model for s, _ in found[::4]] == [None, None, str(tmp_path / "base")]


@pytest.mark.parametrize(
    ("variants", "backends", "model", "message"),
    [
        ("tiny,huge", "auto", None, "unknown variant 'huge'"),
        ("tiny,small", "auto", "folder", "folder is one variant; give one of tiny, small"),
        (",", "auto", None, "needs a variant"),
        ("tiny", "", None, "needs a variant, a backend"),
    ],
)
def test_models_that_cannot_be_chosen(variants, backends, model, message, tmp_path) -> None:
    with pytest.raises(Sam2LiteError, match=message):
        list(models.models(dataclasses.replace(SMALL, model=model), variants, backends, "auto", tmp_path))


def test_random_weights_name_what_they_need(monkeypatch, tmp_path) -> None:
    monkeypatch.setitem(sys.modules, "sam2lite_core.bench.random_weights", None)
    with pytest.raises(ConfigurationError, match=r"no weights ship for base.*sam2lite\[export\]"):
        models.random_model("base", tmp_path / "base")


def test_the_command_writes_json_and_tables(tmp_path, capsys) -> None:
    files = tmp_path / "bench.json", tmp_path / "bench.md"
    options = ["--scales", "0.5", "--objects", "1", "--frames", "3", "--threads", "1", "--no-fresh"]
    with pytest.raises(SystemExit) as done:
        main(["bench", *options, "--json", str(files[0]), "--markdown", str(files[1])])
    assert done.value.code in (0, None)
    content = json.loads(files[0].read_text())
    assert content["energy"] and "fresh_process" not in content
    assert [row["backend"] for row in content["latency"]] == ["onnxruntime"]
    assert files[1].read_text() in capsys.readouterr().out
