"""Runs player and tracker as processes of their own, over DDS, and records what the tracker says."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import rclpy
from lifecycle_msgs.msg import Transition
from rclpy.executors import SingleThreadedExecutor
from rclpy.signals import SignalHandlerOptions

from sam2lite_core.errors import ConfigurationError, SourceError
from sam2lite_ros.sessions.demo_plan import Plan
from sam2lite_ros.sessions.processes import BAD_INPUT, NodeProcess, ProcessError, process
from sam2lite_ros.sessions.recorder import RECORDED, Recorder, Recording, read_record

QUIET_S = 3.0
"""Seconds without a status after which the stream is over although the counters do not add up (failed frames)."""

START_DELAY_S = 2.0
"""Pause before the first frame, which carries the prompt: both sides must know each other by then."""

HOLD_FIRST_S = 0.5
"""Pause after the first frame: on a busy machine, a tracker that comes to it late would take a newer one instead, and
the prompt would land on a picture it was not made for."""


def run(plan: Plan, work: Path, masks: Path) -> Recording:
    """Play the plan's source to the tracker and record its masks; see `run_nodes`."""
    return run_nodes(_tracker_parameters(plan, work), _player_parameters(plan), work, masks)


def run_nodes(tracker: dict[str, Any], player: dict[str, Any], work: Path, masks: Path) -> Recording:
    """Start tracker and player, and record what the tracker says until the player is done.

    Args:
        tracker: the tracker's parameters.
        player: the player's parameters.
        work: an existing folder for parameters, logs and the player's list.
        masks: an existing folder for the masks, named by stamp.

    Raises:
        ProcessError: a process died, or the tracker did not come up; the message ends with its log.
        ConfigurationError: the tracker refused its configuration.
    """
    rclpy.init(args=[], signal_handler_options=SignalHandlerOptions.NO)
    executor = SingleThreadedExecutor()
    recorder = Recorder(masks)
    executor.add_node(recorder)
    try:
        with process("tracker_node", {**tracker, **RECORDED}, work) as running:
            _run_with_tracker(player, work, recorder, executor, running)
    finally:
        executor.shutdown()
        recorder.destroy_node()
        rclpy.try_shutdown()
    return recorder.recording


def _run_with_tracker(
    parameters: dict[str, Any],
    work: Path,
    recorder: Recorder,
    executor: SingleThreadedExecutor,
    tracker: NodeProcess,
) -> None:
    def spin() -> None:
        executor.spin_once(timeout_sec=0.05)
        if tracker.exit_code is not None:
            raise ProcessError(f"the tracker ended with code {tracker.exit_code}:\n{tracker.log_tail()}")

    if not recorder.change_state(Transition.TRANSITION_CONFIGURE, spin):
        raise ConfigurationError(f"the tracker could not be configured:\n{tracker.log_tail()}")
    if not recorder.change_state(Transition.TRANSITION_ACTIVATE, spin):
        raise ProcessError(f"the tracker could not be activated:\n{tracker.log_tail()}")
    recording_of = {
        "record_dir": str(work.resolve()),
        "start_delay_s": START_DELAY_S,
        "hold_first_s": HOLD_FIRST_S,
    }
    with process("player", {**parameters, **recording_of}, work) as player:
        _record(recorder, player, spin)
        if player.exit_code == BAD_INPUT:
            # The player's last line names the file; what was bad is the user's source, not a process of ours.
            raise SourceError(player.log_tail().splitlines()[-1].removeprefix("player: "))
        if player.exit_code not in (None, 0):
            raise ProcessError(f"the player ended with code {player.exit_code}:\n{player.log_tail()}")
    recording = recorder.recording
    recording.sent.extend(read_record(work))
    if not recording.masks:
        raise ProcessError(f"the tracker published no mask:\n{tracker.log_tail()}")
    if recording.masks[0] != recording.sent[0]["stamp_ns"]:
        raise ProcessError(
            "the first frame, to which the prompt belongs, did not reach the tracker; try again"
        )
    for transition in (
        Transition.TRANSITION_DEACTIVATE,
        Transition.TRANSITION_CLEANUP,
        Transition.TRANSITION_UNCONFIGURED_SHUTDOWN,
    ):
        if not recorder.change_state(transition, spin):
            raise ProcessError(f"the tracker refused transition {transition}:\n{tracker.log_tail()}")


def _record(recorder: Recorder, player: NodeProcess, spin: Callable[[], None]) -> None:
    """Record until the player is done and the tracker has nothing left; Ctrl-C ends the playing."""
    try:
        while player.exit_code is None:
            spin()
    except KeyboardInterrupt:
        player.interrupt()
    recorder.last_news = time.monotonic()
    while time.monotonic() - recorder.last_news < QUIET_S:
        spin()
        latest = recorder.recording.statuses[-1] if recorder.recording.statuses else None
        if latest is None:
            continue
        settled = latest.frames_received == latest.frames_processed + latest.frames_dropped
        # A moment longer, for what the transport may still deliver.
        if settled and time.monotonic() - recorder.last_news > QUIET_S / 6:
            return


def _tracker_parameters(plan: Plan, work: Path) -> dict[str, Any]:
    parameters: dict[str, Any] = {
        "variant": plan.variant,
        "model_path": "" if plan.model is None else str(plan.model.resolve()),
        "frame_deadline_ms": float(plan.deadline_ms),
        "controller": plan.controller if plan.deadline_ms else "off",
        "mask_encoding": "mono16" if max(plan.object_ids) > 255 else "mono8",
        **plan.prompt,
    }
    if plan.scale is not None:
        parameters.update(min_scale=float(plan.scale), max_scale=float(plan.scale))
    if plan.mask is not None:
        file = (work / "prompt.png").resolve()
        _, data = cv2.imencode(".png", plan.mask)
        file.write_bytes(data.tobytes())
        parameters.update({"initial_prompt.mask_file": str(file), "initial_prompt.object_id": 0})
    return parameters


def _player_parameters(plan: Plan) -> dict[str, Any]:
    source = plan.source
    return {
        "source": str(Path(source).resolve()) if source and Path(source).exists() else source,
        "topic": plan.topic or "",
        "rate": float(plan.rate),
        "max_frames": plan.frames or 0,
    }
