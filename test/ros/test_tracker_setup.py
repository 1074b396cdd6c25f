"""From parameters to a tracker: what is handed on, and what the core refuses by name."""

import pytest

from sam2lite_core.errors import BackendError
from sam2lite_ros.tracker import setup
from sam2lite_ros.tracker.parameter_table import SPECIFICATIONS
from sam2lite_ros.tracker.parameters import TrackerParameters


def parameters(**changes):
    values = {name: specification.default for name, specification in SPECIFICATIONS.items()}
    return TrackerParameters.from_values({**values, **changes})


def test_a_device_that_the_backend_does_not_have_is_refused_by_the_core():
    with pytest.raises(BackendError, match=r"onnxruntime has no device 'abacus:1'"):
        setup.build_tracker(parameters(backend="onnxruntime", device="abacus:1"))


def test_what_is_read_at_configure_reaches_the_tracker(monkeypatch):
    given = {}

    class Noted:
        fixed_size = False

        def __init__(self, **options):
            given.update(options, measured=False)

        @property
        def deadline_ms(self):
            return given["deadline_ms"]

        def configure(self, **changes):
            given.update(changes)

        def measure_latency(self):
            given["measured"] = True

    monkeypatch.setattr(setup, "Tracker", Noted)
    changes = {
        "variant": "small", "backend": "torch", "device": "cuda:1", "precision": "fp32", "threads": 3,
        "memory_budget": 128, "memory_policy": "fifo", "presence_threshold": 0.3,
    }  # fmt: skip
    setup.build_tracker(parameters(**changes, frame_deadline_ms=0.0))
    assert {name: given[name] for name in changes} == changes
    # Without a deadline there is nothing to control for.
    assert (given["deadline_ms"], given["controller"]) == (None, "off")
    # A deadline may come while frames flow, and finds the device measured; no other controller wants that.
    assert given["measured"]
    setup.build_tracker(parameters(controller="plain", frame_deadline_ms=0.0))
    assert not given["measured"]
    setup.build_tracker(parameters(controller="predictive"))
    assert (given["deadline_ms"], given["controller"]) == (33.3, "predictive")


def test_a_foreign_model_is_opened_and_no_controller_chosen(miniature, tmp_path):
    miniature("edgetam").save_pretrained(tmp_path)
    tracker = setup.build_tracker(parameters(backend="transformers", model_path=str(tmp_path), threads=1))
    assert tracker.fixed_size and tracker.backend.info.variant == "edgetam_video"
    assert (tracker.controller, tracker.deadline_ms) == ("off", 33.3)
    setup.warm_up(tracker)
    assert tracker.object_ids == ()
