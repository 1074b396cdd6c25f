"""Run tracker and player as processes over DDS, and record what the tracker publishes."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import rclpy
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState
from rclpy.executors import SingleThreadedExecutor
from rclpy.signals import SignalHandlerOptions

from sam2lite_core.errors import ConfigurationError, SourceError
from sam2lite_ros.sessions.processes import BAD_INPUT, NodeProcess, ProcessError, process
from sam2lite_ros.sessions.recorder import RECORDED, Recorder, Recording, read_record

SERVICE_TIMEOUT_S = 120.0
"""Longest wait for the tracker to appear or to change state; loading a model on a busy machine takes a while."""

QUIET_S = 3.0
"""Seconds without a status after which the stream is over although the counters do not add up (failed frames)."""

START_DELAY_S = 2.0
"""Pause before the first frame, which carries the prompt: both sides must know each other by then."""

HOLD_FIRST_S = 0.5
"""Pause after the first frame. On a busy machine, a tracker that comes to it late would take a newer one instead, and
the prompt would land on a picture it was not made for."""


class TrackerSession:
    """A tracker in a process of its own, and the recorder that listens to it.

    Attributes:
        recorder: the node that records.
        tracker: the process.
    """

    def __init__(
        self, recorder: Recorder, executor: SingleThreadedExecutor, tracker: NodeProcess, folder: Path
    ) -> None:
        self.recorder = recorder
        self.tracker = tracker
        self._executor = executor
        self._folder = folder
        self._client: Any = recorder.create_client(ChangeState, "/tracker/change_state")

    def spin(self) -> None:
        """Serve the recorder for a moment; ProcessError when the tracker has ended."""
        self._executor.spin_once(timeout_sec=0.05)
        if self.tracker.exit_code is not None:
            raise self.failure(f"the tracker ended with code {self.tracker.exit_code}")

    def spin_until(self, done: Callable[[], bool], patience_s: float, complaint: str) -> None:
        """Serve the recorder until a condition holds; ProcessError with the complaint when it does not in time."""
        limit = time.monotonic() + patience_s
        while not done():
            self.spin()
            if time.monotonic() > limit:
                raise self.failure(complaint)

    def failure(self, text: str) -> ProcessError:
        """Return an error whose message ends with the tracker's log."""
        return ProcessError(f"{text}:\n{self.tracker.log_tail()}")

    def change_state(self, *transitions: int) -> None:
        """Take the tracker through these transitions.

        Raises:
            ConfigurationError: it could not be configured.
            ProcessError: it refused another transition, has ended, or does not answer.
        """
        timeout = f"within {SERVICE_TIMEOUT_S:.0f} s"
        for transition in transitions:
            self.spin_until(self._client.service_is_ready, SERVICE_TIMEOUT_S, f"the tracker did not appear {timeout}")
            future = self._client.call_async(ChangeState.Request(transition=Transition(id=transition)))
            self.spin_until(future.done, SERVICE_TIMEOUT_S, f"the tracker did not answer {timeout}")
            if future.result() is not None and future.result().success:
                continue
            if transition == Transition.TRANSITION_CONFIGURE:
                raise ConfigurationError(f"the tracker could not be configured:\n{self.tracker.log_tail()}")
            raise self.failure(f"the tracker refused transition {transition}")

    @contextmanager
    def player(self, parameters: dict[str, Any]) -> Iterator[NodeProcess]:
        """Play frames while the block runs, listed in the session's folder; errors as `record` raises them."""
        timing = {"start_delay_s": START_DELAY_S, "hold_first_s": HOLD_FIRST_S}
        record = {"record_dir": str(self._folder.resolve())}
        with process("player", {**parameters, **timing, **record}, self._folder) as player:
            yield player
            if player.exit_code == BAD_INPUT:
                # The player's last line names the file; the user's source was bad, not a process of ours.
                raise SourceError(player.log_tail().splitlines()[-1].removeprefix("player: "))
            if player.exit_code not in (None, 0):
                raise ProcessError(f"the player ended with code {player.exit_code}:\n{player.log_tail()}")


@contextmanager
def tracker_session(parameters: dict[str, Any], folder: Path, masks: Path | None = None) -> Iterator[TrackerSession]:
    """Run the tracker's process, brought up to active, while the block runs.

    Args:
        parameters: of the tracker.
        folder: an existing folder for parameters, logs and the player's list.
        masks: an existing folder for the masks, named by stamp; None keeps none.

    Raises:
        ConfigurationError: the tracker refused its parameters.
        ProcessError: it cannot be activated, has ended, or does not answer.
    """
    rclpy.init(args=[], signal_handler_options=SignalHandlerOptions.NO)
    executor = SingleThreadedExecutor()
    recorder = Recorder(masks)
    executor.add_node(recorder)
    try:
        with process("tracker", {**parameters, **RECORDED}, folder) as tracker:
            session = TrackerSession(recorder, executor, tracker, folder)
            session.change_state(Transition.TRANSITION_CONFIGURE, Transition.TRANSITION_ACTIVATE)
            yield session
    finally:
        executor.shutdown()
        recorder.destroy_node()
        rclpy.try_shutdown()


def record(tracker: dict[str, Any], player: dict[str, Any], work: Path, masks: Path) -> Recording:
    """Play frames to the tracker, and record what it publishes until the player is done.

    Raises:
        ProcessError, ConfigurationError, SourceError: a process failed, no mask came, or a setting or source is bad.
    """
    with tracker_session(tracker, work, masks) as session:
        with session.player(player) as playing:
            _play(session, playing)
        recording = session.recorder.recording
        recording.sent.extend(read_record(work))
        if not recording.masks:
            raise session.failure("the tracker published no mask")
        if recording.masks[0] != recording.sent[0]["stamp_ns"]:
            raise ProcessError("the first frame, to which the prompt belongs, did not reach the tracker; try again")
        session.change_state(
            Transition.TRANSITION_DEACTIVATE, Transition.TRANSITION_CLEANUP, Transition.TRANSITION_UNCONFIGURED_SHUTDOWN
        )
    return recording


def _play(session: TrackerSession, player: NodeProcess) -> None:
    """Record until the player is done and the tracker has nothing left; Ctrl-C ends the playing."""
    try:
        while player.exit_code is None:
            session.spin()
    except KeyboardInterrupt:
        player.interrupt()
    recorder = session.recorder
    recorder.last_news = time.monotonic()
    while (quiet_s := time.monotonic() - recorder.last_news) < QUIET_S:
        # A moment longer than it takes to settle, for what the transport may still deliver.
        if quiet_s > QUIET_S / 6 and recorder.recording.settled:
            return
        session.spin()
