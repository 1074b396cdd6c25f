"""Plays a bag to the tracker over DDS for `sam2lite eval bag`, which starts this as a process of its own.

`python -m sam2lite_ros.sessions.replay FOLDER` reads FOLDER/request.json, the parameters of both nodes, and leaves in
FOLDER what was seen: `masks/STAMP.png`, `frames.jsonl` (what the player sent), `statuses.jsonl` (what the tracker
said of each frame) and `TrackerStatus.msg`, the definition that goes with it.
"""

import json
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from sam2lite_ros.sessions.request import REQUEST_FILE, STATUSES_FILE, run_request, status_entry

STATUS_DEFINITION = "TrackerStatus.msg"


def replay(folder: Path) -> None:
    """Do what the request in this folder asks.

    Raises:
        Sam2LiteError: bad input, a node that refused it, or a process that failed.
        ModuleNotFoundError: ROS, or our messages, cannot be imported.
    """
    from ament_index_python.packages import get_package_share_directory

    from sam2lite_ros.sessions.demo_session import run_nodes
    from sam2lite_ros.sessions.isolation import isolate

    request = json.loads((folder / REQUEST_FILE).read_text())
    isolate()
    masks = folder / "masks"
    masks.mkdir()
    recording = run_nodes(request["tracker"], request["player"], folder, masks)
    definition = Path(get_package_share_directory("sam2lite_ros")) / "msg" / STATUS_DEFINITION
    shutil.copyfile(definition, folder / STATUS_DEFINITION)
    lines = [json.dumps(status_entry(status)) + "\n" for status in recording.statuses]
    (folder / STATUSES_FILE).write_text("".join(lines))


def main(arguments: Sequence[str] | None = None) -> int:
    """Replay.

    Returns:
        0 when everything was recorded, 2 for bad input, 1 when a process failed.
    """
    return run_request("replay", replay, arguments)


if __name__ == "__main__":
    sys.exit(main())
