"""Runs the tracker on the player's frames for `sam2lite bench node`, which starts this as a process of its own.

`python -m sam2lite_ros.sessions.soak FOLDER` reads FOLDER/request.json, the parameters of both nodes and how often to
look at the tracker's process, and leaves in FOLDER: `frames.jsonl` (what the player sent), `statuses.jsonl` (what the
tracker said of each frame), `samples.jsonl` (its memory, threads, open files over time) and `seen.json` (its last
counters).
"""

import json
import sys
from collections.abc import Sequence
from pathlib import Path

from sam2lite_ros.sessions.request import REQUEST_FILE, run_request


def soak(folder: Path) -> None:
    """Do what the request in this folder asks.

    Raises:
        Sam2LiteError: bad input, a node that refused it, or a process that failed.
        ModuleNotFoundError: ROS, or our messages, cannot be imported.
    """
    from sam2lite_ros.sessions.isolation import isolate
    from sam2lite_ros.sessions.soak_session import soak as run

    request = json.loads((folder / REQUEST_FILE).read_text())
    isolate()
    run(request, folder)


def main(arguments: Sequence[str] | None = None) -> int:
    """Soak.

    Returns:
        0 when everything was recorded, 2 for bad input, 1 when a process failed.
    """
    return run_request("soak", soak, arguments)


if __name__ == "__main__":
    sys.exit(main())
