"""The benchmark measures what it says; no test asserts a time."""

import pytest

from sam2lite_core.errors import ConfigurationError
from sam2lite_core.evaluation import bench

SMALL = bench.BenchSettings(scales=(0.5,), objects=(1, 3), frames=3, height=96, width=128, threads=1)


def test_latency_rows_cover_scales_and_objects() -> None:
    told: list[str] = []
    rows = bench.latency_rows(SMALL, told.append)
    assert [(row["scale"], row["objects"]) for row in rows] == [(0.5, 1), (0.5, 3)]
    assert len(told) == 2
    for row in rows:
        assert 0 < row["inference_ms"] <= row["step_ms"]["p99"]
        assert row["step_ms"]["p50"] <= row["step_ms"]["p95"] <= row["step_ms"]["p99"]


def test_endurance_counts_tokens_and_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench, "EDGE", 10)
    result = bench.endurance(SMALL, 40)
    assert 0 < result["most_tokens"] <= result["memory_budget"]
    assert result["peak_resident_mb"] >= result["resident_mb_before"] > 10


def test_markdown_has_a_line_per_row() -> None:
    row = {
        "variant": "tiny",
        "scale": 0.5,
        "objects": 2,
        "fps": 10.0,
        "step_ms": {"p50": 1.0, "p95": 2.0, "p99": 3.0},
    }
    row |= {"inference_ms": 0.5, "motion_ms": 0.1, "preprocess_ms": 0.2, "postprocess_ms": 0.2}
    table = bench.markdown(bench.report(SMALL, [row, row], None))
    assert table.count("| tiny | 0.5 | 2 | 1.0 | 2.0 |") == 2
    assert "1 threads" in table


@pytest.mark.parametrize("options", [{"frames": 2}, {"objects": ()}, {"objects": (0,)}, {"scales": ()}])
def test_bad_settings_are_refused(options: dict) -> None:
    with pytest.raises(ConfigurationError, match="bench needs"):
        bench.BenchSettings(**options)


def test_too_short_an_endurance_is_refused() -> None:
    with pytest.raises(ConfigurationError, match=r"50.*2000"):
        bench.endurance(SMALL, 50)
