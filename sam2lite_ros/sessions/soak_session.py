"""Runs tracker and player as processes of their own, and watches the tracker's counters, memory, threads and files."""

import json
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import rclpy
from diagnostic_msgs.msg import DiagnosticArray
from lifecycle_msgs.msg import Transition
from rclpy.executors import SingleThreadedExecutor
from rclpy.signals import SignalHandlerOptions
from sensor_msgs.msg import Image

from sam2lite_core.errors import ConfigurationError
from sam2lite_ros.sessions.demo_session import HOLD_FIRST_S, START_DELAY_S
from sam2lite_ros.sessions.processes import NodeProcess, ProcessError, process
from sam2lite_ros.sessions.recorder import RECORDED, Recorder
from sam2lite_ros.sessions.request import STATUSES_FILE, status_entry

COUNTERS = ("received", "processed", "dropped", "failed")
SETTLE_S = 30.0
"""Longest wait, after the last frame, for counters that no longer change."""


class Observer(Recorder):
    """Takes masks without keeping them, notes the status of each frame, and keeps the newest diagnosis."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.masks = 0
        self.counters: list[dict[str, int]] = []
        self.create_subscription(DiagnosticArray, "/diagnostics", self._on_diagnosis, 10)

    def _on_mask(self, message: Image) -> None:
        self.masks += 1

    def _on_diagnosis(self, message: DiagnosticArray) -> None:
        values = {entry.key: entry.value for entry in message.status[0].values}
        self.counters.append({name: int(values[f"frames {name}"]) for name in COUNTERS})

    def settled(self) -> bool:
        """Whether nothing is under way: two diagnoses in a row say the same."""
        return len(self.counters) > 1 and self.counters[-1] == self.counters[-2]


def sample(pid: int) -> dict[str, float]:
    """Resident memory in MB, threads and open files of a process, as Linux counts them.

    Raises:
        ConfigurationError: there is no /proc here.
    """
    folder = Path(f"/proc/{pid}")
    try:
        pages = int((folder / "statm").read_text().split()[1])
        threads, files = (len(list((folder / name).iterdir())) for name in ("task", "fd"))
    except OSError as error:
        raise ConfigurationError(f"memory and threads of a process cannot be read: {error}") from error
    return {
        "memory_mb": round(pages * os.sysconf("SC_PAGE_SIZE") / 1e6, 2),
        "threads": threads,
        "files": files,
    }


def soak(request: dict[str, Any], folder: Path) -> None:
    """Play the player's frames to the tracker, and write down what was seen.

    Args:
        request: parameters of `tracker` and `player`, and `sample_s`, seconds between two looks at the process.
        folder: an existing folder for everything that is passed and recorded.

    Raises:
        ConfigurationError: the tracker refused its parameters.
        ProcessError: a process failed.
    """
    rclpy.init(args=[], signal_handler_options=SignalHandlerOptions.NO)
    executor = SingleThreadedExecutor()
    observer = Observer(folder)
    executor.add_node(observer)
    try:
        with process("tracker_node", {**request["tracker"], **RECORDED}, folder) as tracker:

            def spin() -> None:
                executor.spin_once(timeout_sec=0.05)
                if tracker.exit_code is not None:
                    raise ProcessError(
                        f"the tracker ended with code {tracker.exit_code}:\n{tracker.log_tail()}"
                    )

            _bring_up(observer, tracker, spin)
            samples = _play(request, folder, tracker, observer, spin)
            observer.change_state(Transition.TRANSITION_DEACTIVATE, spin)
    finally:
        executor.shutdown()
        observer.destroy_node()
        rclpy.try_shutdown()
    _write_lines(folder / "samples.jsonl", samples)
    _write_lines(folder / STATUSES_FILE, [status_entry(status) for status in observer.recording.statuses])
    seen = {**observer.counters[-1], "masks": observer.masks}
    (folder / "seen.json").write_text(json.dumps(seen))


def _bring_up(observer: Observer, tracker: NodeProcess, spin: Callable[[], None]) -> None:
    for transition in (Transition.TRANSITION_CONFIGURE, Transition.TRANSITION_ACTIVATE):
        if not observer.change_state(transition, spin):
            raise ConfigurationError(f"the tracker could not be brought up:\n{tracker.log_tail()}")


def _play(
    request: dict[str, Any],
    folder: Path,
    tracker: NodeProcess,
    observer: Observer,
    spin: Callable[[], None],
) -> list[dict[str, float]]:
    """Play to the end, sampling the tracker's process, and wait until it is done with every frame."""
    timing = {"record_dir": str(folder), "start_delay_s": START_DELAY_S, "hold_first_s": HOLD_FIRST_S}
    samples: list[dict[str, float]] = []
    started = time.monotonic()
    with process("player", {**request["player"], **timing}, folder) as player:
        while player.exit_code is None:
            spin()
            passed = time.monotonic() - started
            if passed >= len(samples) * request["sample_s"]:
                samples.append({"seconds": round(passed, 1), **sample(tracker.pid)})
        if player.exit_code != 0:
            raise ProcessError(f"the player ended with code {player.exit_code}:\n{player.log_tail()}")
    observer.counters.clear()
    limit = time.monotonic() + SETTLE_S
    while not observer.settled():
        spin()
        if time.monotonic() > limit:
            raise ProcessError(f"the tracker's counters do not come to rest:\n{tracker.log_tail()}")
    return samples


def _write_lines(path: Path, entries: Sequence[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(entry) + "\n" for entry in entries))
