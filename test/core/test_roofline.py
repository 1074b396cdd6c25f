"""What a frame costs, by hand, and the page whose tables are filled from measured files."""

import json
import shutil
from pathlib import Path

import pytest

from sam2lite_core.bench import peaks, performance_page, roofline
from sam2lite_core.cli import app
from sam2lite_core.errors import BackendError, SourceError

ROOT = Path(__file__).resolve().parents[2]
PAGE, MEASURED = ROOT / "docs" / "performance.md", ROOT / "docs" / "benchmarks"

PEAK = {"threads": 2, "gflop_per_s": 100.0, "gbyte_per_s": 10.0}


def row(flops: float, products: float, everything: float = 4e8, scale: float = 1.0) -> dict:
    costs = {"flops": flops, "product_bytes": products, "all_bytes": everything}
    return {"variant": "tiny", "scale": scale, "operations": 7, **costs}


@pytest.mark.parametrize(
    ("flops", "products", "measured", "least", "bound"),
    [
        (2e9, 1e8, None, 20.0, "arithmetic"),  # 20 ms of arithmetic, 10 ms of bytes
        (2e9, 3e8, None, 30.0, "bytes"),
        (2e9, 1e8, 40.0, 20.0, "arithmetic"),
        (2e9, 1e8, 40.1, 20.0, "small operations"),
        (2e9, 3e8, 61.0, 30.0, "small operations"),
        (2e9, 1e8, 19.0, 20.0, "arithmetic"),  # faster than the peak that was measured
    ],
)
def test_the_floor_by_hand(flops, products, measured, least, bound) -> None:
    found = roofline.floor(row(flops, products), PEAK)
    assert found.least_ms == pytest.approx(least)
    assert found.unfused_ms == pytest.approx(40.0)
    assert roofline.bound(found, measured) == bound


def test_the_table_takes_times_of_the_same_threads_only() -> None:
    content = {"peaks": [{**PEAK, "threads": 1, "gflop_per_s": 1.0}, PEAK]}
    content["rows"] = [row(2e9, 1e8), row(5e8, 1e8, scale=0.5)]
    profiles = [
        {"variant": "tiny", "scale": 1.0, "threads": 2, "graph_ms": 25.0},
        {"variant": "tiny", "scale": 0.5, "threads": 1, "graph_ms": 25.0},
    ]
    lines = roofline.markdown(content, profiles).splitlines()[2:]
    assert lines == [
        "| tiny | 1 | 2.0 | 100 | 400 | 7 | 20 | 20.0 | 10.0 | 40.0 | 25.0 | 80 % | arithmetic |",
        "| tiny | 0.5 | 0.5 | 100 | 400 | 7 | 5 | 5.0 | 10.0 | 40.0 | - | - | bytes |",
    ]


def test_without_peaks_the_counts_stand_alone() -> None:
    profiles = [{"variant": "tiny", "scale": 1.0, "threads": 2, "graph_ms": 25.0}]
    table = roofline.markdown({"peaks": [], "rows": [row(2e9, 1e8)]}, profiles)
    assert table.splitlines()[2] == "| tiny | 1 | 2.0 | 100 | 400 | 7 | 20 | - | - | - | 25.0 | - | - |"
    assert roofline.peaks_markdown([]) == "Not measured yet on a quiet machine.\n"


def test_bytes_are_counted_by_hand() -> None:
    torch = pytest.importorskip("torch", reason="needs torch: pip install 'sam2lite[torch]'")
    from sam2lite_core.bench.traffic import Traffic

    left, right = (torch.empty(shape, device="meta") for shape in ((2, 3), (4, 3)))
    elsewhere = torch.ones(5)
    with Traffic() as traffic:
        product = left @ right.T  # a transposed view moves nothing
        product.relu()
        elsewhere.exp()
    assert traffic.product_bytes == 4 * (6 + 12 + 8)
    assert traffic.all_bytes == traffic.product_bytes + 4 * (8 + 8)
    assert traffic.operations == 2


def test_a_frame_costs_what_the_model_says() -> None:
    """Operations are those that the shipped files state; everything moved includes what products move, and weights."""
    torch = pytest.importorskip("torch", reason="needs torch: pip install 'sam2lite[torch]'")
    from sam2lite_core.bench.traffic import frame_cost
    from sam2lite_core.model.student import Student
    from sam2lite_core.model_info import describe_model
    from sam2lite_core.variants import get_variant

    with torch.device("meta"):
        student = Student(get_variant("tiny"))
    cost = frame_cost(student, 0.5)
    described = describe_model("tiny")
    assert cost.flops == described["flops_per_frame"]["0.5"]
    assert 4 * 0.9 * described["parameters"]["total"] < cost.product_bytes < cost.all_bytes


@pytest.mark.parametrize("threads", [1, 2])
def test_a_copy_has_a_rate(threads) -> None:
    assert peaks.copy_rate(threads, 2**16 + 1) > 0


def test_a_process_that_fails_tells_why(monkeypatch) -> None:
    monkeypatch.setattr(peaks, "__name__", "no_such_module")
    with pytest.raises(BackendError, match=r"peaks failed: .*no_such_module"):
        peaks.measure(1)


def test_the_command_refuses_before_it_measures(monkeypatch, capsys) -> None:
    monkeypatch.setattr(peaks, "measure", lambda threads: pytest.fail("it measured"))
    for options, message in (
        (("--threads", "0"), "--threads is '0'; give whole numbers of at least 1"),
        (("--threads", "two"), "--threads is 'two'"),
        (("--variant", "huge"), "unknown variant 'huge'"),
    ):
        with pytest.raises(SystemExit) as ended:
            app.main(["bench", "roofline", *options])
        assert ended.value.code == 2
        assert message in capsys.readouterr().err


def test_the_page_holds_what_was_measured() -> None:
    page = PAGE.read_text(encoding="utf-8")
    assert set(performance_page.BLOCK.findall(page)) == set(performance_page.TABLES)
    assert performance_page.fill(page, MEASURED) == page, (
        "run: python -m sam2lite_core.bench.performance_page docs/performance.md docs/benchmarks"
    )


@pytest.fixture
def copied(tmp_path) -> Path:
    return Path(shutil.copytree(MEASURED, tmp_path / "measured"))


def test_a_page_is_filled_in_place(copied, tmp_path) -> None:
    content = json.loads((copied / "roofline.json").read_text())
    content["peaks"] = [{"threads": 2, "gflop_per_s": 300.0, "gbyte_per_s": 20.0}]
    (copied / "roofline.json").write_text(json.dumps(content))
    page = tmp_path / "page.md"
    page.write_text("before\n<!-- table: peaks -->\nold\n<!-- end -->\nafter\n")
    assert performance_page.main([str(page), str(copied)]) == 0
    text = page.read_text()
    assert "| 2 | 300 | 20.0 | 15 |" in text and "old" not in text
    assert text.startswith("before\n") and text.endswith("\nafter\n")
    assert performance_page.main([str(page), str(copied)]) == 0 and page.read_text() == text


@pytest.mark.parametrize(
    ("table", "content", "message"),
    [
        ("speed", None, "no table 'speed' for the page; choose one of step, parts"),
        ("peaks", "{", r"roofline\.json: cannot be read"),
        ("peaks", '{"rows": []}', "table 'peaks' lacks 'peaks'; measure it again"),
    ],
)
def test_pages_that_cannot_be_filled_stay_as_they_are(copied, tmp_path, capsys, table, content, message) -> None:
    if content is not None:
        (copied / "roofline.json").write_text(content)
    page = tmp_path / "page.md"
    page.write_text(f"<!-- table: {table} -->\nold\n<!-- end -->\n")
    before = page.read_text()
    with pytest.raises(SourceError, match=message):
        performance_page.fill(before, copied)
    assert performance_page.main([str(page), str(copied)]) == 2
    assert page.read_text() == before and capsys.readouterr().err
