"""The race against SAM 2.1-tiny and EdgeTAM, in miniature; no test asserts a time."""

import json

import pytest

from sam2lite_core.bench import peers
from sam2lite_core.cli.app import main
from sam2lite_core.errors import BackendError, ConfigurationError

pytest.importorskip("transformers", reason="needs transformers: pip install 'sam2lite[transformers]'")

SMALL = peers.PeerSettings(threads=1, peers=("edgetam",), rounds=2, own_steps=3, sides=(256,), height=96, width=128)


@pytest.fixture(scope="module")
def content() -> dict:
    return peers.measure(SMALL)


def test_every_contender_has_a_row_and_every_peer_its_ratios(content) -> None:
    rows = content["rows"]
    assert [(row["name"], row["input"]) for row in rows] == [
        ("tiny", "128x96"), ("tiny", "128x96"), ("EdgeTAM", "256x256"),
    ]  # fmt: skip
    assert [row["steps"] for row in rows] == [6, 6, 2]
    assert [set(row.get("over_ours", ())) for row in rows] == [set(), set(), {"1", "0.5"}]
    assert all(len(row["round_medians_ms"]) == 2 and row["step_ms"]["p50"] > 0 for row in rows)
    assert rows[2]["parameters_m"] == 13.9  # as published
    assert [row["weights"] for row in rows] == ["shipped", "shipped", "random"]
    assert content["settings"]["threads"] == 1 and "transformers" in content["machine"]


def test_the_memory_is_full_before_the_first_timed_frame(content) -> None:
    assert content["rows"][2]["memory_tokens"] == 7 * 512  # seven frames of so many latents
    assert content["rows"][0]["memory_tokens"] > 0


def test_scores_stand_only_where_they_were_published(content) -> None:
    table = peers.markdown(content)
    assert "random weights" in table and "facebookresearch" not in table
    own = [{**row, "davis17_jf": 87.7, "mose_jf": None, "jf_source": "somewhere"} for row in content["rows"]]
    table = peers.markdown({**content, "rows": own})
    assert table.count("| 87.7 | - |") == 3 and "EdgeTAM: somewhere" in table
    columns = {line.count("|") for line in table.splitlines() if line.startswith("|")}
    assert len(columns) == 1


def test_the_other_peer_has_its_published_size_and_follows(tmp_path) -> None:
    from sam2lite_core.bench.published_peers import save
    from sam2lite_core.bench.step import BenchSettings, frames_of, middle_masks
    from sam2lite_core.tracker import Tracker

    save("sam2", 64, tmp_path)
    tracker = Tracker(backend="transformers", model_path=tmp_path, threads=1)
    assert round(tracker.backend.info.parameters["total"] / 1e6, 1) == 39.0
    settings = BenchSettings(height=96, width=128)
    image = frames_of(settings)[0]
    tracker.step(image, middle_masks(1, settings))
    assert tracker.step(image).memory_tokens_used == 2 * 16


def test_a_ratio_is_the_median_of_the_rounds() -> None:
    # The machine was three times slower in the second round, for both.
    assert peers.over([[100.0], [300.0], [120.0]], [[9.0, 10.0, 11.0], [30.0, 30.0], [10.0]]) == 10.0


@pytest.mark.parametrize(
    ("name", "short_side", "side"),
    [("sam2", 480, 480), ("sam2", 481, 512), ("edgetam", 480, 512), ("edgetam", 1024, 1024)],
)
def test_the_side_that_a_peer_takes_near_to_ours(name, short_side, side) -> None:
    from sam2lite_core.bench.published_peers import PUBLISHED, check_side

    assert check_side(name, PUBLISHED[name].side_for(short_side)) == side


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"sides": (480,), "peers": ("edgetam",)}, "EdgeTAM takes squares of multiples of 256 px, not 480"),
        ({"sides": (500,), "peers": ("sam2",)}, "SAM 2.1-tiny takes squares of multiples of 32 px, not 500"),
        ({"peers": ("xmem",)}, "unknown peer 'xmem'; choose among sam2, edgetam"),
    ],
)
def test_what_no_peer_can_run(changes, message) -> None:
    with pytest.raises(ConfigurationError, match=message):
        peers.measure(peers.PeerSettings(**{**vars(SMALL), **changes}))


@pytest.mark.parametrize("changes", [{"rounds": 0}, {"own_steps": 0}, {"scales": ()}, {"peers": ()}])
def test_bad_settings_are_refused(changes) -> None:
    with pytest.raises(ConfigurationError, match="at least one"):
        peers.PeerSettings(**changes)


def test_without_transformers_the_extra_is_named(monkeypatch) -> None:
    from sam2lite_core.backends import registry

    monkeypatch.setattr(registry, "_installed", lambda name: name != "transformers")
    with pytest.raises(BackendError, match=r"sam2lite\[transformers\]"):
        peers.measure(SMALL)


def test_the_backbone_is_repvit_m1() -> None:
    """Its authors give 5.48 million parameters, of which two classifiers for 1,000 kinds have 0.77; and 0.8 GMAC."""
    torch = pytest.importorskip("torch", reason="needs torch: pip install 'sam2lite[torch]'")
    from torch.utils.flop_counter import FlopCounterMode

    from sam2lite_core.bench.published_peers import RepVit, RepVitConfig

    backbone = RepVit(RepVitConfig()).eval()
    assert 4.65e6 < sum(parameter.numel() for parameter in backbone.parameters()) < 4.75e6
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        maps = backbone(torch.zeros(1, 3, 224, 224)).last_hidden_state
    assert 0.75e9 < counter.get_total_flops() / 2 < 0.85e9
    assert [tuple(m.shape[1:]) for m in maps] == [(48, 56, 56), (96, 28, 28), (192, 14, 14), (384, 7, 7)]


def test_the_command_writes_both_files(monkeypatch, tmp_path, capsys) -> None:
    seen = []

    def measured(settings, tell):
        seen.append(settings)
        return peers_content

    peers_content = {
        "machine": {"cpu": "abacus", "cores": 2}, "rows": [],
        "settings": {"scales": (1.0,), "threads": 2, "device": "cpu", "width": 854, "height": 480, "rounds": 1},
    }  # fmt: skip
    monkeypatch.setattr(peers, "measure", measured)
    files = tmp_path / "peers.json", tmp_path / "peers.md"
    options = ["--peers", "--rounds", "1", "--peer-sides", "256,512", "--threads", "2"]
    with pytest.raises(SystemExit) as done:
        main(["bench", *options, "--json", str(files[0]), "--markdown", str(files[1])])
    assert done.value.code in (0, None)
    assert (seen[0].sides, seen[0].rounds, seen[0].threads) == ((256, 512), 1, 2)
    assert json.loads(files[0].read_text())["rows"] == [] and files[1].read_text() in capsys.readouterr().out


@pytest.mark.parametrize("sides", ["half", "256.5", "-256"])
def test_sides_that_are_no_pixels_are_refused(sides, capsys) -> None:
    with pytest.raises(SystemExit) as done:
        main(["bench", "--peers", f"--peer-sides={sides}"])
    assert done.value.code == 2 and "--peer-sides" in capsys.readouterr().err
