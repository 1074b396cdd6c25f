"""Run the tracker for a while and watch its process, in a process that `sam2lite bench node` starts.

`python -m sam2lite_ros.sessions.soak FOLDER` reads FOLDER/request.json: the parameters of both nodes, and the seconds
between two samples of the tracker's process. It leaves in FOLDER: `frames.jsonl` (frames that the player sent),
`statuses.jsonl` (TrackerStatus of each frame), `samples.jsonl` (memory, threads and open files over time) and
`seen.json` (the tracker's last counters). ROS is imported late: `run_request` reports its absence.
"""

import json
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sam2lite_core.errors import ConfigurationError
from sam2lite_ros.sessions.request import read_request, run_request

if TYPE_CHECKING:
    from sam2lite_ros.sessions.tracker_session import TrackerSession

SETTLE_S = 30.0
"""Longest wait, after the last frame, for counters that no longer change."""


def soak(folder: Path) -> None:
    """Run the request in this folder; errors as `run_request` reports them."""
    from lifecycle_msgs.msg import Transition

    from sam2lite_ros.sessions.recorder import write_lines, write_statuses
    from sam2lite_ros.sessions.tracker_session import tracker_session

    request = read_request(folder)
    with tracker_session(request["tracker"], folder) as session:
        samples = _play(session, request)
        # An inactive tracker counts from zero.
        counters = session.recorder.counters[-1]
        session.change_state(Transition.TRANSITION_DEACTIVATE)
    recording = session.recorder.recording
    write_lines(folder / "samples.jsonl", samples)
    write_statuses(recording, folder)
    (folder / "seen.json").write_text(json.dumps({**counters, "masks": len(recording.masks)}))


def _play(session: "TrackerSession", request: dict[str, Any]) -> list[dict[str, float]]:
    """Play to the end, sampling the tracker's process, and wait until it is done with every frame."""
    samples: list[dict[str, float]] = []
    started = time.monotonic()
    with session.player(request["player"]) as player:
        while player.exit_code is None:
            session.spin()
            passed = time.monotonic() - started
            if passed >= len(samples) * request["sample_s"]:
                samples.append({"seconds": round(passed, 1), **sample(session.tracker.pid)})
    counters = session.recorder.counters
    counters.clear()
    # Two diagnoses in a row with the same counters: nothing is under way.
    session.spin_until(
        lambda: len(counters) > 1 and counters[-1] == counters[-2],
        SETTLE_S,
        "the tracker's counters do not come to rest",
    )
    return samples


def sample(pid: int) -> dict[str, float]:
    """Return resident memory in MB, threads and open files of a process; ConfigurationError without /proc."""
    folder = Path(f"/proc/{pid}")
    try:
        pages = int((folder / "statm").read_text().split()[1])
        threads, files = (len(list((folder / name).iterdir())) for name in ("task", "fd"))
    except OSError as error:
        raise ConfigurationError(f"memory and threads of a process cannot be read: {error}") from error
    return {"memory_mb": round(pages * os.sysconf("SC_PAGE_SIZE") / 1e6, 2), "threads": threads, "files": files}


def main(arguments: Sequence[str] | None = None) -> int:
    """Soak; return the exit code of `run_request`."""
    return run_request("soak", soak, arguments)


if __name__ == "__main__":
    sys.exit(main())
