"""Runs player and tracker as processes of their own, over DDS, and records what the tracker says."""

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import rclpy
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.qos import HistoryPolicy, QoSProfile, ReliabilityPolicy
from rclpy.signals import SignalHandlerOptions
from sensor_msgs.msg import Image

from sam2lite_core.errors import ConfigurationError, Sam2LiteError, SourceError
from sam2lite_core.video import write_label_map
from sam2lite_ros.demo_plan import Plan
from sam2lite_ros.msg import TrackerStatus
from sam2lite_ros.player import RECORD_FILE
from sam2lite_ros.prompting import stamp_nanoseconds

SERVICE_TIMEOUT_S = 120.0
"""Longest wait for the tracker to appear or to change state; loading a model on a busy machine takes a while."""

QUIET_S = 3.0
"""Seconds without a status after which the stream is over although the counters do not add up (failed frames)."""

START_DELAY_S = 2.0
"""Pause before the first frame, which carries the prompt: both sides must know each other by then."""

HOLD_FIRST_S = 0.5
"""Pause after the first frame: on a busy machine, a tracker that comes to it late would take a newer one instead, and
the prompt would land on a picture it was not made for."""

RECORDED = {
    "qos_overrides./tracker/mask.publisher.depth": 100,
    "qos_overrides./tracker/status.publisher.depth": 100,
}
"""Every mask shall reach the record, even when it is written slower than the tracker publishes for a moment."""

LOG_LINES = 30

BAD_INPUT = 2
"""Exit code of our executables for input that cannot be used."""


class ProcessError(Sam2LiteError):
    """A node's process ended, or did not do what it was told."""


@dataclass
class Recording:
    """What was seen.

    Attributes:
        masks: stamp of each mask received, nanoseconds, in order; the files are named by it.
        statuses: every TrackerStatus, in order.
        sent: index, name and stamp_ns of each frame that the player sent.
    """

    masks: list[int] = field(default_factory=list)
    statuses: list[TrackerStatus] = field(default_factory=list)
    sent: list[dict[str, Any]] = field(default_factory=list)


@contextmanager
def process(
    module: str, parameters: dict[str, Any], folder: Path, namespace: str = "/"
) -> Iterator["NodeProcess"]:
    """Run a module of this package as a node; the process has ended when the block has, however it ends."""
    running = NodeProcess(module, parameters, folder, namespace)
    try:
        yield running
    finally:
        running.end()


class NodeProcess:
    """A node in a process of its own, whose output goes to a file."""

    def __init__(self, module: str, parameters: dict[str, Any], folder: Path, namespace: str = "/") -> None:
        self.name = module
        self._log = folder / f"{module}.log"
        file = folder / f"{module}.yaml"
        # JSON is YAML, and writes strings so that no value is taken for another type.
        file.write_text(json.dumps({"/**": {"ros__parameters": parameters}}))
        arguments = ["--ros-args", "--params-file", str(file), "--remap", f"__ns:={namespace}"]
        command = [sys.executable, "-m", f"sam2lite_ros.{module}", *arguments]
        with self._log.open("wb") as log:
            # A session of its own: Ctrl-C goes to the demo alone, which then ends its processes in order.
            self._process = subprocess.Popen(
                command,
                stdout=log,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        """Id of the process."""
        return self._process.pid

    @property
    def exit_code(self) -> int | None:
        """None while it runs."""
        return self._process.poll()

    def log_tail(self) -> str:
        """The last lines that it wrote."""
        return "\n".join(self._log.read_text(errors="replace").splitlines()[-LOG_LINES:])

    def interrupt(self) -> None:
        """Ask it to stop, as Ctrl-C does."""
        if self.exit_code is None:
            self._process.send_signal(signal.SIGINT)

    def end(self) -> None:
        """Stop it, more firmly as time goes by."""
        for number, patience_s in ((signal.SIGINT, 5.0), (signal.SIGTERM, 3.0), (signal.SIGKILL, None)):
            if self.exit_code is not None:
                return
            self._process.send_signal(number)
            try:
                self._process.wait(patience_s)
            except subprocess.TimeoutExpired:
                continue


class Recorder(Node):
    """Saves masks as they come and drives the tracker through its lifecycle."""

    def __init__(self, folder: Path) -> None:
        super().__init__("demo")
        self.recording = Recording()
        self.last_news = time.monotonic()
        self._folder = folder
        self._change_state: Any = self.create_client(ChangeState, "/tracker/change_state")
        qos = QoSProfile(history=HistoryPolicy.KEEP_LAST, depth=200, reliability=ReliabilityPolicy.RELIABLE)
        self.create_subscription(Image, "/tracker/mask", self._on_mask, qos)
        self.create_subscription(TrackerStatus, "/tracker/status", self._on_status, qos)

    def _on_mask(self, message: Image) -> None:
        dtype = np.dtype("<u2") if message.encoding == "mono16" else np.dtype(np.uint8)
        labels = np.frombuffer(message.data, dtype).reshape(message.height, message.width)
        stamp = stamp_nanoseconds(message.header.stamp)
        write_label_map(self._folder / f"{stamp}.png", labels)
        self.recording.masks.append(stamp)
        self.last_news = time.monotonic()

    def _on_status(self, message: TrackerStatus) -> None:
        self.recording.statuses.append(message)
        self.last_news = time.monotonic()

    def change_state(self, transition: int, spin: Callable[[], None]) -> bool:
        """Ask for a lifecycle transition and wait for it.

        Returns:
            Whether it succeeded.

        Raises:
            ProcessError: no answer in time.
        """
        limit = time.monotonic() + SERVICE_TIMEOUT_S
        while not self._change_state.service_is_ready():
            spin()
            if time.monotonic() > limit:
                raise ProcessError(f"the tracker did not appear within {SERVICE_TIMEOUT_S:.0f} s")
        future = self._change_state.call_async(ChangeState.Request(transition=Transition(id=transition)))
        while not future.done():
            spin()
            if time.monotonic() > limit:
                raise ProcessError(f"the tracker did not answer within {SERVICE_TIMEOUT_S:.0f} s")
        response = future.result()
        return bool(response is not None and response.success)


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


def read_record(work: Path) -> list[dict[str, Any]]:
    """Read the player's list of frames sent; empty when it sent none."""
    path = work / RECORD_FILE
    lines = path.read_text().splitlines() if path.is_file() else []
    return [json.loads(line) for line in lines]


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
