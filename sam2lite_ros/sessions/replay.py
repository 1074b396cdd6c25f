"""Play a bag to the tracker over DDS, in a process that `sam2lite eval bag` starts.

`python -m sam2lite_ros.sessions.replay FOLDER` reads FOLDER/request.json, the parameters of both nodes, and leaves in
FOLDER: `masks/STAMP.png`, `frames.jsonl` (frames that the player sent), `statuses.jsonl` (TrackerStatus of each frame)
and `TrackerStatus.msg`, the definition that goes with it.
"""

import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from sam2lite_ros.sessions.request import read_request, run_request

STATUS_DEFINITION = "TrackerStatus.msg"


def replay(folder: Path) -> None:
    """Do what the request in this folder asks.

    Raises:
        Sam2LiteError: bad input, a node that refused it, or a process that failed.
        ModuleNotFoundError: ROS, or our messages, cannot be imported.
    """
    from ament_index_python.packages import get_package_share_directory

    from sam2lite_ros.sessions.recorder import write_statuses
    from sam2lite_ros.sessions.tracker_session import record

    request = read_request(folder)
    masks = folder / "masks"
    masks.mkdir()
    recording = record(request["tracker"], request["player"], folder, masks)
    definition = Path(get_package_share_directory("sam2lite_ros")) / "msg" / STATUS_DEFINITION
    shutil.copyfile(definition, folder / STATUS_DEFINITION)
    write_statuses(recording, folder)


def main(arguments: Sequence[str] | None = None) -> int:
    """Replay.

    Returns:
        0 when everything was recorded, 2 for bad input, 1 when a process failed.
    """
    return run_request("replay", replay, arguments)


if __name__ == "__main__":
    sys.exit(main())
