"""`sam2lite bench node`: the figures by hand, and one short run of the real node."""

import json

import pytest

from sam2lite_core.bench.node import NodeSettings, markdown, report
from sam2lite_core.cli import app
from sam2lite_core.errors import ConfigurationError

MS = 1_000_000


def status(number, *, queue=1.0, inference=20.0, publish=2.0, receive=4.0, period=100):
    """Of a frame that came `receive` ms after its stamp; decoding takes half a millisecond."""
    return {
        "stamp_ns": 10**18 + number * period * MS,
        "receive_ms": receive,
        "queue_ms": queue,
        "preprocess_ms": 0.5,
        "publish_ms": publish,
        "inference_ms": inference,
        "age_ms": receive + queue + 0.5 + inference + publish,
        "scale": 0.5 if number % 2 else 1.0,
        "deadlines_missed": number // 10,
    }


def sample(number):
    memory = 300.0 if number < 10 else 340.0 + number // 90
    return {"seconds": number, "memory_mb": memory, "threads": 9 + (number > 50), "files": 30}


def test_the_figures():
    statuses = [status(number, queue=1.0 + number % 10 / 10) for number in range(20)]
    # Slower than a period: the frame after it waits for the model, which is not the node's fault.
    statuses += [status(20, inference=150.0), status(21, queue=60.0)]
    seen = {"received": 28, "processed": 22, "dropped": 4, "failed": 1, "masks": 22}
    content = report(NodeSettings(frames=30), 30, statuses, [sample(number) for number in range(100)], seen)
    assert content["found_idle"] == 21
    # queue 1.0 to 1.9, twice each, and 1.0 once more; 0.5 for decoding, 2.0 for publishing.
    assert content["overhead_ms"]["p50"] == pytest.approx(3.9)
    assert content["overhead_ms"]["worst"] == pytest.approx(4.4)
    assert content["within_limits"]
    assert content["parts_ms"]["inference_ms"]["p50"] == 20.0
    assert content["frames"]["lost on the way"] == 2
    assert content["frames"]["unexplained"] == 1
    assert content["deadlines_missed"] == 2
    growth = {name: part["growth"] for name, part in content["growth"].items()}
    assert growth == {"memory_mb": 1.0, "threads": 1, "files": 0}
    text = markdown(content)
    assert "p50 3.9 ms (limit 5)" in text and "within the limits; 21 of 22 frames" in text
    assert "| 0 | 300.0 | 9 | 30 |" in text and "| 99 | 341.0 | 10 | 30 |" in text


def test_a_node_that_costs_more_is_over_the_limits():
    statuses = [status(number, publish=6.0) for number in range(20)]
    seen = {"received": 20, "processed": 20, "dropped": 0, "failed": 0, "masks": 20}
    content = report(NodeSettings(), 20, statuses, [sample(0)], seen)
    assert not content["within_limits"]
    assert "over the limits" in markdown(content)


def test_frames_that_all_wait_for_one_another_tell_nothing():
    statuses = [status(number, inference=500.0) for number in range(20)]
    seen = {"received": 20, "processed": 20, "dropped": 0, "failed": 0, "masks": 20}
    with pytest.raises(ConfigurationError, match=r"only 1 of 20 frames.*lower --rate than 10"):
        report(NodeSettings(), 20, statuses, [sample(0)], seen)


@pytest.mark.parametrize(("options", "named"), [(("--frames", "9"), "9 frames"), (("--rate", "0"), "--rate is 0")])
def test_what_cannot_be_measured_is_refused(options, named, capsys):
    with pytest.raises(SystemExit) as end:
        app.main(["bench", "node", *options])
    assert end.value.code == 2
    assert named in capsys.readouterr().err


@pytest.mark.slow
def test_a_run_accounts_for_every_frame(tmp_path, capsys):
    files = ["--json", str(tmp_path / "n.json"), "--markdown", str(tmp_path / "n.md")]
    with pytest.raises(SystemExit) as end:
        app.main(["bench", "node", "--frames", "24", "--rate", "3", "--threads", "1", *files])
    assert end.value.code == 0
    content = json.loads((tmp_path / "n.json").read_text())
    frames = content["frames"]
    assert (frames["sent"], frames["failed"], frames["unexplained"]) == (24, 0, 0)
    assert frames["processed"] == frames["masks"] > 0
    assert all(row["memory_mb"] > 10 and row["threads"] > 1 and row["files"] > 2 for row in content["samples"])
    assert (tmp_path / "n.md").read_text() == capsys.readouterr().out[:-1]
