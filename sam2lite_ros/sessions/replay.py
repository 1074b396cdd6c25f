"""Play a bag to the tracker over DDS, in a process that `sam2lite eval bag` starts.

`python -m sam2lite_ros.sessions.replay FOLDER` reads FOLDER/request.json, the parameters of both nodes, and leaves in
FOLDER: `masks/STAMP.png`, `frames.jsonl` (frames that the player sent), `statuses.jsonl` (TrackerStatus of each frame)
and `TrackerStatus.msg`, the definition that goes with it. ROS is imported late: `run_request` reports its absence.
"""

import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from sam2lite_ros.sessions.request import read_request, run_request


def replay(folder: Path) -> None:
    """Run the request in this folder; errors as `run_request` reports them."""
    from ament_index_python.packages import get_package_share_directory

    from sam2lite_ros.sessions.recorder import write_statuses
    from sam2lite_ros.sessions.tracker_session import record

    request = read_request(folder)
    masks = folder / "masks"
    masks.mkdir()
    recording = record(request["tracker"], request["player"], folder, masks)
    definition = Path(get_package_share_directory("sam2lite_ros")) / "msg" / "TrackerStatus.msg"
    shutil.copyfile(definition, folder / definition.name)
    write_statuses(recording, folder)


def main(arguments: Sequence[str] | None = None) -> int:
    """Replay; return the exit code of `run_request`."""
    return run_request("replay", replay, arguments)


if __name__ == "__main__":
    sys.exit(main())
