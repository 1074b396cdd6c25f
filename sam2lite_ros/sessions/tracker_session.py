"""Run tracker and player as processes over DDS, and record what the tracker publishes."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Generic, TypeVar

import rclpy
from lifecycle_msgs.msg import Transition
from rclpy.executors import SingleThreadedExecutor
from rclpy.signals import SignalHandlerOptions

from sam2lite_core.errors import ConfigurationError, SourceError
from sam2lite_ros.sessions.processes import BAD_INPUT, NodeProcess, ProcessError, process
from sam2lite_ros.sessions.recorder import RECORDED, Recorder, Recording, read_record

QUIET_S = 3.0
"""Seconds without a status after which the stream is over although the counters do not add up (failed frames)."""

START_DELAY_S = 2.0
"""Pause before the first frame, which carries the prompt: both sides must know each other by then."""

HOLD_FIRST_S = 0.5
"""Pause after the first frame. On a busy machine, a tracker that comes to it late would take a newer one instead, and
the prompt would land on a picture it was not made for."""

RecorderT = TypeVar("RecorderT", bound=Recorder)


class TrackerSession(Generic[RecorderT]):
    """A tracker in a process of its own, and the recorder that listens to it.

    Attributes:
        recorder: the node that records.
        tracker: the process.
    """

    def __init__(
        self, recorder: RecorderT, executor: SingleThreadedExecutor, tracker: NodeProcess, folder: Path
    ) -> None:
        self.recorder = recorder
        self.tracker = tracker
        self._executor = executor
        self._folder = folder

    def spin(self) -> None:
        """Serve the recorder for a moment.

        Raises:
            ProcessError: the tracker has ended.
        """
        self._executor.spin_once(timeout_sec=0.05)
        if self.tracker.exit_code is not None:
            raise self.failure(f"the tracker ended with code {self.tracker.exit_code}")

    def failure(self, text: str) -> ProcessError:
        """Return an error whose message ends with the tracker's log."""
        return ProcessError(f"{text}:\n{self.tracker.log_tail()}")

    def bring_up(self) -> None:
        """Configure and activate the tracker.

        Raises:
            ConfigurationError: it refused its parameters.
            ProcessError: it cannot be activated, has ended, or does not answer.
        """
        if not self.recorder.change_state(Transition.TRANSITION_CONFIGURE, self.spin):
            raise ConfigurationError(f"the tracker could not be configured:\n{self.tracker.log_tail()}")
        self.change_state(Transition.TRANSITION_ACTIVATE)

    def change_state(self, *transitions: int) -> None:
        """Take the tracker through these transitions.

        Raises:
            ProcessError: it refused one, has ended, or does not answer.
        """
        for transition in transitions:
            if not self.recorder.change_state(transition, self.spin):
                raise self.failure(f"the tracker refused transition {transition}")

    @contextmanager
    def player(self, parameters: dict[str, Any]) -> Iterator[NodeProcess]:
        """Play frames while the block runs; the player lists them in the session's folder.

        Raises:
            SourceError: the player cannot read its source.
            ProcessError: the player failed.
        """
        timing = {
            "record_dir": str(self._folder.resolve()),
            "start_delay_s": START_DELAY_S,
            "hold_first_s": HOLD_FIRST_S,
        }
        with process("player", {**parameters, **timing}, self._folder) as player:
            yield player
            if player.exit_code == BAD_INPUT:
                # The player's last line names the file; the user's source was bad, not a process of ours.
                raise SourceError(player.log_tail().splitlines()[-1].removeprefix("player: "))
            if player.exit_code not in (None, 0):
                raise ProcessError(f"the player ended with code {player.exit_code}:\n{player.log_tail()}")


@contextmanager
def tracker_session(
    make_recorder: Callable[[], RecorderT], parameters: dict[str, Any], folder: Path
) -> Iterator[TrackerSession[RecorderT]]:
    """Run the tracker's process while the block runs.

    Args:
        make_recorder: makes the node that records.
        parameters: of the tracker.
        folder: an existing folder for parameters, logs and the player's list.
    """
    rclpy.init(args=[], signal_handler_options=SignalHandlerOptions.NO)
    executor = SingleThreadedExecutor()
    recorder = make_recorder()
    executor.add_node(recorder)
    try:
        with process("tracker", {**parameters, **RECORDED}, folder) as tracker:
            yield TrackerSession(recorder, executor, tracker, folder)
    finally:
        executor.shutdown()
        recorder.destroy_node()
        rclpy.try_shutdown()


def record(tracker: dict[str, Any], player: dict[str, Any], work: Path, masks: Path) -> Recording:
    """Play frames to the tracker, and record what it publishes until the player is done.

    Args:
        tracker: the tracker's parameters.
        player: the player's parameters.
        work: an existing folder for parameters, logs and the player's list.
        masks: an existing folder for the masks, named by stamp.

    Raises:
        ProcessError: a process died, or the tracker did not come up; the message ends with its log.
        ConfigurationError: the tracker refused its configuration.
        SourceError: the player cannot read its source.
    """
    with tracker_session(lambda: Recorder(masks), tracker, work) as session:
        session.bring_up()
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


def _play(session: TrackerSession[Recorder], player: NodeProcess) -> None:
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
