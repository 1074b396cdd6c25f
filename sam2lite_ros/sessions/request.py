"""Run the session that a folder's request.json asks for."""

import json
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from sam2lite_core.errors import Sam2LiteError

REQUEST_FILE = "request.json"


def read_request(folder: Path) -> dict[str, Any]:
    """Read a folder's request, and isolate this process for it: see `isolate`."""
    from sam2lite_ros.sessions.processes import isolate

    request: dict[str, Any] = json.loads((folder / REQUEST_FILE).read_text())
    isolate()
    return request


def run_request(name: str, work: Callable[[Path], None], arguments: Sequence[str] | None) -> int:
    """Run the command line of a session.

    Args:
        name: of the session, for messages.
        work: does what the request in a folder asks.
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
        hint = "build the package (scripts/setup.sh) and source install/setup.bash or scripts/env.sh"
        print(f"{name}: {error}; {hint}", file=sys.stderr)
        return 2
    except Sam2LiteError as error:
        from sam2lite_ros.sessions.processes import ProcessError

        print(f"{name}: {error}", file=sys.stderr)
        return 1 if isinstance(error, ProcessError) else 2
    return 0
