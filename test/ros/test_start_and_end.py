"""The tracker's process starts by itself, refuses to start, and ends."""

import pytest
from lifecycle_msgs.msg import Transition

from sam2lite_ros.sessions.processes import process


@pytest.fixture
def operator(isolated_ros, make_operator):
    return make_operator()


def test_autostart_shutdown_and_a_signal(operator, tmp_path):
    with process("tracker", {"autostart": True, "threads": 1}, tmp_path) as tracker:
        operator.until(lambda: operator.state() == "active", "autostart")
        assert operator.change(Transition.TRANSITION_ACTIVE_SHUTDOWN)
        assert operator.state() == "finalized"
        tracker.interrupt()
        operator.until(lambda: tracker.exit_code is not None, "the process to end")
        assert tracker.exit_code == 0, tracker.log_tail()


@pytest.mark.parametrize(
    ("module", "parameters", "named"),
    [
        ("tracker", {"controller": "fancy"}, "plain, predictive, off"),
        ("tracker", {"frame_deadline_ms": 20}, "frame_deadline_ms"),
        ("tracker", {"kp": -1.0}, "kp"),
        ("tracker", {"initial_prompt.points": [1.0]}, "initial_prompt.points has 1 numbers"),
        ("player", {"source": "/no/such/folder"}, "/no/such/folder"),
        ("player", {"reliability": "perfect"}, "reliable or best_effort"),
    ],
)
def test_wrong_parameters_end_the_process_with_code_2(operator, tmp_path, module, parameters, named):
    with process(module, parameters, tmp_path) as running:
        operator.until(lambda: running.exit_code is not None, "the process to end")
        assert running.exit_code == 2, running.log_tail()
        assert named in running.log_tail()


def test_autostart_that_fails_leaves_the_node_unconfigured_and_alive(operator, tmp_path):
    parameters = {"autostart": True, "initial_prompt.mask_file": "/no/such/mask.png"}
    with process("tracker", parameters, tmp_path) as tracker:
        operator.until(lambda: "/no/such/mask.png" in tracker.log_tail(), "the reason in the log")
        assert operator.state() == "unconfigured"
        assert operator.set(initial_prompt__mask_file="")[0].successful
        assert operator.change(Transition.TRANSITION_CONFIGURE)
        assert operator.state() == "inactive"
