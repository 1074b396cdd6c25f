"""Watch the tracker's counters, memory, threads and open files while it runs."""

import json
import os
import time
from pathlib import Path
from typing import Any

from diagnostic_msgs.msg import DiagnosticArray
from lifecycle_msgs.msg import Transition
from sensor_msgs.msg import Image

from sam2lite_core.errors import ConfigurationError
from sam2lite_ros.sessions.recorder import Recorder, write_lines, write_statuses
from sam2lite_ros.sessions.tracker_session import TrackerSession, tracker_session

COUNTERS = ("received", "processed", "dropped", "failed")
SETTLE_S = 30.0
"""Longest wait, after the last frame, for counters that no longer change."""


class Observer(Recorder):
    """Recorder that counts masks instead of keeping them, and keeps the counters of each diagnosis."""

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
        """Return True once two diagnoses in a row have the same counters: nothing is under way."""
        return len(self.counters) > 1 and self.counters[-1] == self.counters[-2]


def sample(pid: int) -> dict[str, float]:
    """Return resident memory in MB, threads and open files of a process, as Linux counts them.

    Raises:
        ConfigurationError: there is no /proc here.
    """
    folder = Path(f"/proc/{pid}")
    try:
        pages = int((folder / "statm").read_text().split()[1])
        threads, files = (len(list((folder / name).iterdir())) for name in ("task", "fd"))
    except OSError as error:
        raise ConfigurationError(f"memory and threads of a process cannot be read: {error}") from error
    return {"memory_mb": round(pages * os.sysconf("SC_PAGE_SIZE") / 1e6, 2), "threads": threads, "files": files}


def soak(request: dict[str, Any], folder: Path) -> None:
    """Play the player's frames to the tracker, and write down what was seen.

    Args:
        request: parameters of `tracker` and `player`, and `sample_s`, seconds between two looks at the process.
        folder: an existing folder for everything that is passed and recorded.

    Raises:
        ConfigurationError: the tracker refused its parameters.
        ProcessError: a process failed.
    """
    with tracker_session(lambda: Observer(folder), request["tracker"], folder) as session:
        session.bring_up()
        samples = _play(session, request)
        session.change_state(Transition.TRANSITION_DEACTIVATE)
        observer = session.recorder
    write_lines(folder / "samples.jsonl", samples)
    write_statuses(observer.recording, folder)
    seen = {**observer.counters[-1], "masks": observer.masks}
    (folder / "seen.json").write_text(json.dumps(seen))


def _play(session: TrackerSession[Observer], request: dict[str, Any]) -> list[dict[str, float]]:
    """Play to the end, sampling the tracker's process, and wait until it is done with every frame."""
    samples: list[dict[str, float]] = []
    started = time.monotonic()
    with session.player(request["player"]) as player:
        while player.exit_code is None:
            session.spin()
            passed = time.monotonic() - started
            if passed >= len(samples) * request["sample_s"]:
                samples.append({"seconds": round(passed, 1), **sample(session.tracker.pid)})
    session.recorder.counters.clear()
    limit = time.monotonic() + SETTLE_S
    while not session.recorder.settled():
        session.spin()
        if time.monotonic() > limit:
            raise session.failure("the tracker's counters do not come to rest")
    return samples
