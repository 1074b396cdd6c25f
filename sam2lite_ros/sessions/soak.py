"""Run the tracker for a while and watch its process, in a process that `sam2lite bench node` starts.

`python -m sam2lite_ros.sessions.soak FOLDER` reads FOLDER/request.json: the parameters of both nodes, and the seconds
between two looks at the tracker's process. It leaves in FOLDER: `frames.jsonl` (frames that the player sent),
`statuses.jsonl` (TrackerStatus of each frame), `samples.jsonl` (the process's memory, threads and open files over
time) and `seen.json` (the tracker's last counters).
"""

import sys
from collections.abc import Sequence
from pathlib import Path

from sam2lite_ros.sessions.request import read_request, run_request


def soak(folder: Path) -> None:
    """Do what the request in this folder asks.

    Raises:
        Sam2LiteError: bad input, a node that refused it, or a process that failed.
        ModuleNotFoundError: ROS, or our messages, cannot be imported.
    """
    from sam2lite_ros.sessions.soak_session import soak as run

    run(read_request(folder), folder)


def main(arguments: Sequence[str] | None = None) -> int:
    """Soak.

    Returns:
        0 when everything was recorded, 2 for bad input, 1 when a process failed.
    """
    return run_request("soak", soak, arguments)


if __name__ == "__main__":
    sys.exit(main())
