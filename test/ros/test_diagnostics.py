"""Diagnoses of the node."""

import pytest
from diagnostic_msgs.msg import DiagnosticStatus

from sam2lite_ros.tracker.counters import Counts, FrameCounters
from sam2lite_ros.tracker.diagnostics import Health, diagnose


@pytest.mark.parametrize(
    ("health", "level", "said"),
    [
        ({"state": "inactive"}, DiagnosticStatus.OK, "inactive"),
        ({"objects": 1}, DiagnosticStatus.OK, "tracking"),
        ({}, DiagnosticStatus.OK, "waiting for a prompt"),
        ({"silent_s": 3.2}, DiagnosticStatus.WARN, "no image on /image for 3.2 s: nobody publishes it"),
        ({"silent_s": 3.2, "publishers": 1}, DiagnosticStatus.WARN, "QoS"),
        ({"counts": Counts(failed=1), "last_error": "bad step"}, DiagnosticStatus.ERROR, "frames fail: bad step"),
        (
            {"counts": Counts(failed=1), "last_error": "bad step", "stalled_s": 7.04},
            DiagnosticStatus.ERROR,
            "the backend hangs: its step has taken 7.0 s so far",
        ),
        ({"counts": Counts(failed=1), "before": Counts(failed=1)}, DiagnosticStatus.OK, "waiting"),
        ({"counts": Counts(processed=10, deadlines_missed=6)}, DiagnosticStatus.WARN, "6 of 10 deadlines"),
        ({"counts": Counts(processed=10, deadlines_missed=5)}, DiagnosticStatus.OK, "waiting"),
    ],
)
def test_the_verdict(health, level, said):
    status = diagnose(Health(**{"name": "/robot/tracker", "state": "active", "topic": "/image", **health}))
    assert (status.level, status.name) == (level, "robot/tracker: tracking")
    assert said in status.message


def test_the_figures():
    counters = FrameCounters()
    for latency in range(1, 101):
        counters.count_received()
        counters.count_processed(float(latency), missed=latency > 90)
    counters.count_dropped()
    counters.count_failed(ValueError("odd"))
    assert counters.snapshot() == Counts(received=100, processed=100, dropped=1, failed=1, deadlines_missed=10)
    status = diagnose(
        Health(
            name="tracker",
            state="active",
            counts=counters.snapshot(),
            before=Counts(received=70, processed=80),
            period_s=2.0,
            latencies=counters.latencies(),
            last_error=counters.last_error,
        )
    )
    values = {entry.key: entry.value for entry in status.values}
    assert values["input rate (Hz)"] == "15.0"
    assert values["output rate (Hz)"] == "10.0"
    assert values["latency p50 (ms)"] == "51.0"
    assert values["latency p95 (ms)"] == "96.0"
    assert values["last error"] == "odd"


@pytest.mark.parametrize(("error", "said"), [(ValueError("odd"), "odd"), (MemoryError(), "MemoryError")])
def test_an_error_without_words_is_named(error, said):
    counters = FrameCounters()
    counters.count_failed(error)
    assert counters.last_error == said
