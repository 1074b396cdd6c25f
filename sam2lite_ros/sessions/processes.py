"""Run a node as a process of its own."""

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sam2lite_core.errors import Sam2LiteError

LOG_LINES = 30
"""Lines of a process's log that an error message ends with."""

BAD_INPUT = 2
"""Exit code of our executables for input that cannot be used."""


class ProcessError(Sam2LiteError):
    """A node's process ended, or did not do what it was told."""


@contextmanager
def process(node: str, parameters: dict[str, Any], folder: Path, namespace: str = "/") -> Iterator["NodeProcess"]:
    """Run a node, `tracker` or `player`; its process has ended when the block has, however it ends."""
    running = NodeProcess(node, parameters, folder, namespace)
    try:
        yield running
    finally:
        running.end()


class NodeProcess:
    """A node in a process of its own, whose output goes to a file."""

    def __init__(self, node: str, parameters: dict[str, Any], folder: Path, namespace: str = "/") -> None:
        self._log = folder / f"{node}.log"
        file = folder / f"{node}.yaml"
        # JSON is YAML, and writes strings so that no value is taken for another type.
        file.write_text(json.dumps({"/**": {"ros__parameters": parameters}}))
        arguments = ["--ros-args", "--params-file", str(file), "--remap", f"__ns:={namespace}"]
        with self._log.open("wb") as log:
            # A session of its own: Ctrl-C goes to the demo alone, which then ends its processes in order.
            self._process = subprocess.Popen(
                [sys.executable, "-m", f"sam2lite_ros.{node}.node", *arguments],
                stdout=log,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        """Id of the process."""
        return self._process.pid

    @property
    def exit_code(self) -> int | None:
        """Exit code; None while it runs."""
        return self._process.poll()

    def log_tail(self) -> str:
        """Return the last lines that it wrote."""
        return "\n".join(self._log.read_text(errors="replace").splitlines()[-LOG_LINES:])

    def interrupt(self) -> None:
        """Ask it to stop, as Ctrl-C does."""
        if self.exit_code is None:
            self._process.send_signal(signal.SIGINT)

    def end(self) -> None:
        """Stop it, more firmly as time goes by."""
        for number, patience_s in ((signal.SIGINT, 5.0), (signal.SIGTERM, 3.0), (signal.SIGKILL, None)):
            if self.exit_code is not None:
                return
            self._process.send_signal(number)
            try:
                self._process.wait(patience_s)
            except subprocess.TimeoutExpired:
                continue
