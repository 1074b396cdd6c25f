"""Pictures are drawn from what the bank holds."""

import xml.etree.ElementTree as ElementTree
from pathlib import Path

import numpy as np
import pytest

from sam2lite_core.errors import ConfigurationError
from sam2lite_core.graph_io import META, BankSnapshot
from sam2lite_core.report.figures import architecture
from sam2lite_core.report.figures.memory_record import (
    KINDS,
    MemoryRecord,
    attention_by_frame,
    inner_point,
    record_memory,
    token_kinds,
)
from sam2lite_core.tracker import Tracker
from sam2lite_core.types import Prompt
from sam2lite_core.variants import VARIANTS

FIGURES = Path(__file__).resolve().parents[2] / "docs" / "figures"


def bank_of(*tokens: dict[str, float]) -> BankSnapshot:
    meta = np.array([[token.get(name, 0.0) for name in META] for token in tokens], np.float32)
    empty = np.zeros((len(tokens), 1), np.float32)
    return BankSnapshot(empty, empty, empty, empty, meta)


@pytest.mark.parametrize(
    ("token", "kind"),
    [
        ({"owner": 2, "age": 40, "motion": 9}, "anchor"),
        ({"owner": 1, "age": 0}, "anchor"),
        ({"age": 8, "motion": 9}, "recent"),
        ({"age": 0}, "recent"),
        ({"age": 9, "motion": 0.5}, "change"),
        ({"age": 9, "uncertainty": 0.25}, "change"),
        ({"age": 9, "motion": 0.4, "uncertainty": 0.2}, "other"),
    ],
)
def test_kind_of_a_token(token, kind) -> None:
    assert KINDS[token_kinds(bank_of(token))[0]] == kind


def test_counts_are_by_frame_and_kind_and_leave_free_slots_out() -> None:
    first = bank_of({"valid": 1, "owner": 1}, {"valid": 1}, {})
    second = bank_of({"valid": 1, "owner": 1, "age": 1}, {"valid": 1, "birth": 1}, {"valid": 1, "birth": 1})
    counts = MemoryRecord([], [], (first, second), 3).counts()
    expected = np.zeros((2, 2, 4), int)
    expected[0, 0] = expected[1, 0] = [1, 0, 0, 0]
    expected[0, 0, KINDS.index("recent")] = 1
    expected[1, 1, KINDS.index("recent")] = 2
    assert np.array_equal(counts, expected)


@pytest.mark.parametrize(("seed", "hole"), [(0, False), (1, True), (2, True)])
def test_inner_point_is_as_deep_as_any(seed, hole) -> None:
    mask = np.zeros((20, 30), bool)
    mask[3:18, 5 + seed : 25] = True
    mask[8:12, 10:14] = not hole
    x, y = inner_point(mask)
    rows, columns = np.nonzero(~np.pad(mask, 1))

    def depth(row: int, column: int) -> float:
        return float(np.hypot(rows - 1 - row, columns - 1 - column).min())

    deepest = max(depth(row, column) for row, column in zip(*np.nonzero(mask), strict=True))
    assert mask[y, x] and depth(y, x) == pytest.approx(deepest, abs=0.3)  # OpenCV's 5 x 5 distance is approximate


def test_inner_point_of_nothing_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="no object on this frame"):
        inner_point(np.zeros((4, 4), bool))


def test_attention_is_summed_by_frame_largest_first() -> None:
    bank = bank_of({"valid": 1, "birth": 3}, {"valid": 1, "birth": 7}, {"valid": 1, "birth": 3}, {"birth": 0})
    sums = attention_by_frame(bank, np.array([0.2, 0.5, 0.1, 0.0], np.float32))
    assert list(sums) == [7, 3] and sums == pytest.approx({7: 0.5, 3: 0.3})


@pytest.fixture(scope="module")
def recorded(exported, small_clip) -> tuple[Tracker, MemoryRecord, list[Prompt]]:
    tracker = Tracker(
        backend="torch", model_path=exported.folder, scale=0.5, base_short_side=192, threads=1, presence_threshold=0.2
    )
    prompts = [Prompt(object_id=i, mask=small_clip.label_maps[0] == i) for i in (1, 2)]
    return tracker, record_memory(tracker, small_clip.frames, prompts), prompts


def test_record_holds_every_bank(recorded, small_clip) -> None:
    _, record, _ = recorded
    counts = record.counts()
    assert counts.shape == (6, 6, 4)
    used = [int((bank.column("valid") > 0.5).sum()) for bank in record.banks]
    assert counts.sum(axis=(1, 2)).tolist() == used and max(used) <= record.budget
    assert not np.triu(counts.sum(axis=2), 1).any()  # nobody remembers the future
    assert (counts[:, 0, KINDS.index("anchor")] > 0).all()
    assert not counts[:, 1:, KINDS.index("anchor")].any()


def test_timeline_shows_the_last_bank(recorded) -> None:
    pytest.importorskip("matplotlib", reason="needs matplotlib: pip install 'sam2lite[figures]'")
    from matplotlib.colors import to_hex

    from sam2lite_core.report.figures.memory import COLOURS, THUMBNAILS, draw_timeline

    record = recorded[1]
    figure = draw_timeline(record)
    final, history = figure.axes[THUMBNAILS:]
    heights = {kind: np.zeros(6) for kind in KINDS}
    for bar in final.patches:
        for kind in KINDS:
            if to_hex(bar.get_facecolor()) == COLOURS[kind]:
                heights[kind][round(bar.get_x() + bar.get_width() / 2)] += bar.get_height()
    assert np.array_equal(np.stack([heights[kind] for kind in KINDS], axis=1), record.counts()[-1])
    (image,) = history.get_images()
    painted = np.asarray(image.get_array())
    assert painted.shape == (6, 6, 3)
    assert (painted[np.triu_indices(6, 1)] == 1.0).all()
    figure.canvas.draw()


def test_attention_is_drawn_from_the_tokens_that_are_read(recorded) -> None:
    pytest.importorskip("matplotlib", reason="needs matplotlib: pip install 'sam2lite[figures]'")
    from sam2lite_core.report.figures.memory import ask, last_tracked

    tracker, record, prompts = recorded
    query_frame = last_tracked(record)
    assert query_frame > 0
    figure = ask(tracker, record, prompts, query_frame, 0.5)
    bank = record.banks[query_frame - 1]
    births = np.unique(bank.column("birth")[bank.column("valid") > 0.5])[:5]
    shown = [axes for axes in figure.axes if "asks" not in axes.get_title()]
    assert [axes.get_title().split(":")[0] for axes in shown] == [f"frame {int(birth)}" for birth in births]
    for axes, birth in zip(shown, births, strict=True):
        used = (bank.column("valid") > 0.5) & (bank.column("birth") == birth)
        assert len(axes.patches) == used.sum()
    figure.canvas.draw()


def test_a_backend_that_hides_its_attention_is_refused(recorded, exported) -> None:
    pytest.importorskip("matplotlib", reason="needs matplotlib: pip install 'sam2lite[figures]'")
    from sam2lite_core.report.figures.memory import ask

    _, record, prompts = recorded
    with pytest.raises(ConfigurationError, match="onnxruntime does not show its attention; choose torch"):
        ask(Tracker(model_path=exported.folder), record, prompts, 1, 1.0)


# --- the system's picture


def overlaps(a, b) -> bool:
    return a.x < b.x + b.width and b.x < a.x + a.width and a.y < b.y + b.height and b.y < a.y + a.height


def test_boxes_lie_apart_and_inside() -> None:
    boxes = architecture.boxes(VARIANTS["tiny"])
    for index, box in enumerate(boxes):
        assert box.x >= 0 and box.x + box.width <= architecture.WIDTH
        assert box.y >= 0 and box.y + box.height <= architecture.HEIGHT
        assert not any(overlaps(box, other) for other in boxes[index + 1 :])


def test_arrows_lead_from_box_to_box_and_cross_none() -> None:
    boxes = architecture.boxes(VARIANTS["tiny"])
    for arrow in architecture.arrows():
        for x, y in (arrow.points[0], arrow.points[-1]):
            assert any(
                (x in (box.x, box.x + box.width) and box.y <= y <= box.y + box.height)
                or (y in (box.y, box.y + box.height) and box.x <= x <= box.x + box.width)
                for box in boxes
            ), (arrow, x, y)
        for (x0, y0), (x1, y1) in zip(arrow.points, arrow.points[1:], strict=False):
            assert x0 == x1 or y0 == y1
            for box in boxes:
                inside_x = min(x0, x1) < box.x + box.width and max(x0, x1) > box.x
                inside_y = min(y0, y1) < box.y + box.height and max(y0, y1) > box.y
                assert not (inside_x and inside_y), (arrow, box)


@pytest.mark.parametrize("name", VARIANTS)
def test_picture_is_xml_and_says_the_variant_s_numbers(name) -> None:
    variant = VARIANTS[name]
    root = ElementTree.fromstring(architecture.draw_architecture(variant))
    text = " ".join(element.text or "" for element in root.iter("{http://www.w3.org/2000/svg}text"))
    for expected in (f"B = {variant.memory_budget} tokens", f"of width {variant.width}", f"{variant.queries} queries"):
        assert expected in text


def test_picture_in_the_documentation_is_what_the_code_draws() -> None:
    drawn = architecture.draw_architecture(VARIANTS["tiny"])
    assert (FIGURES / "architecture.svg").read_text() == drawn, (
        "run python -m sam2lite_core.report.figures.architecture docs/figures/architecture.svg"
    )
