"""Plays a bag to the tracker over DDS for `sam2lite eval bag`, which starts this as a process of its own.

`python -m sam2lite_ros.replay FOLDER` reads FOLDER/request.json, the parameters of both nodes, and leaves in FOLDER
what was seen: `masks/STAMP.png`, `frames.jsonl` (what the player sent), `statuses.jsonl` (what the tracker said of
each frame) and `TrackerStatus.msg`, the definition that goes with it.
"""

import json
import shutil
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from sam2lite_core.errors import Sam2LiteError

REQUEST_FILE = "request.json"
STATUSES_FILE = "statuses.jsonl"
STATUS_DEFINITION = "TrackerStatus.msg"


def replay(folder: Path) -> None:
    """Do what the request in this folder asks.

    Raises:
        Sam2LiteError: bad input, a node that refused it, or a process that failed.
        ModuleNotFoundError: ROS, or our messages, cannot be imported.
    """
    from ament_index_python.packages import get_package_share_directory

    from sam2lite_ros.demo_session import run_nodes
    from sam2lite_ros.isolation import isolate

    request = json.loads((folder / REQUEST_FILE).read_text())
    isolate()
    masks = folder / "masks"
    masks.mkdir()
    recording = run_nodes(request["tracker"], request["player"], folder, masks)
    definition = Path(get_package_share_directory("sam2lite_ros")) / "msg" / STATUS_DEFINITION
    shutil.copyfile(definition, folder / STATUS_DEFINITION)
    lines = [json.dumps(status_entry(status)) + "\n" for status in recording.statuses]
    (folder / STATUSES_FILE).write_text("".join(lines))


def status_entry(status: Any) -> dict[str, Any]:
    """Return a TrackerStatus as plain numbers: the header's stamp as `stamp_ns`, every other field by its name."""
    from sam2lite_ros.prompting import stamp_nanoseconds

    names = [name for name in status.get_fields_and_field_types() if name != "header"]
    return {
        "stamp_ns": stamp_nanoseconds(status.header.stamp),
        **{name: getattr(status, name) for name in names},
    }


def run_request(name: str, work: Callable[[Path], None], arguments: Sequence[str] | None) -> int:
    """Run the command line of a module that does what a folder's request asks.

    Args:
        name: of the module, for messages.
        work: does it, given the folder.
        arguments: without the program's name; those of the process when None.

    Returns:
        0 when everything was recorded, 2 for bad input, 1 when a process failed.
    """
    # Without this, a plain `kill` would leave the two nodes behind.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    given = sys.argv[1:] if arguments is None else list(arguments)
    if len(given) != 1:
        print(f"{name}: give the folder that holds {REQUEST_FILE}", file=sys.stderr)
        return 2
    try:
        work(Path(given[0]))
    except ModuleNotFoundError as error:
        print(
            f"{name}: {error}; build the package (scripts/setup.sh) and source install/setup.bash or scripts/env.sh",
            file=sys.stderr,
        )
        return 2
    except Sam2LiteError as error:
        from sam2lite_ros.demo_session import ProcessError

        print(f"{name}: {error}", file=sys.stderr)
        return 1 if isinstance(error, ProcessError) else 2
    return 0


def main(arguments: Sequence[str] | None = None) -> int:
    """Replay.

    Returns:
        0 when everything was recorded, 2 for bad input, 1 when a process failed.
    """
    return run_request("replay", replay, arguments)


if __name__ == "__main__":
    sys.exit(main())
