"""Isolate a group of ROS processes, and run a node as a process of its own."""

import json
import os
import random
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from ament_index_python.packages import PackageNotFoundError, get_package_share_directory

from sam2lite_core.errors import ConfigurationError, Sam2LiteError

PROFILE_VARIABLES = ("FASTDDS_DEFAULT_PROFILES_FILE", "FASTRTPS_DEFAULT_PROFILES_FILE")
"""Environment variables that name a Fast DDS profile: of Fast DDS 3, and of 2, which Humble and Jazzy have."""

LOG_LINES = 30
"""Lines of a process's log that an error message ends with."""

BAD_INPUT = 2
"""Exit code of our executables for input that cannot be used."""


class ProcessError(Sam2LiteError):
    """A node's process ended, or did not do what it was told."""


def isolate() -> None:
    """Set a random domain on this machine only, in the environment of this process and its children.

    Unless the user has a Fast DDS profile, ours is named too: with the defaults, images between processes are lost.

    Raises:
        ConfigurationError: the package's install space is not sourced.
    """
    distribution = os.environ.get("ROS_DISTRO")
    os.environ["ROS_DOMAIN_ID"] = str(random.SystemRandom().randint(1, 101))
    if distribution == "humble":
        os.environ["ROS_LOCALHOST_ONLY"] = "1"
    else:
        os.environ.pop("ROS_LOCALHOST_ONLY", None)
        os.environ["ROS_AUTOMATIC_DISCOVERY_RANGE"] = "LOCALHOST"
    if not any(os.environ.get(name) for name in PROFILE_VARIABLES):
        newer, older = PROFILE_VARIABLES
        try:
            profile = Path(get_package_share_directory("sam2lite_ros")) / "config" / "fastdds_shm.xml"
        except PackageNotFoundError as error:
            raise ConfigurationError(
                f"sam2lite_ros is not installed in any prefix ({error}); source install/setup.bash or scripts/env.sh"
            ) from error
        os.environ[older if distribution in ("humble", "jazzy") else newer] = str(profile)


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
        # JSON is YAML, in which no string is taken for another type.
        file.write_text(json.dumps({"/**": {"ros__parameters": parameters}}))
        arguments = ["--ros-args", "--params-file", str(file), "--remap", f"__ns:={namespace}"]
        with self._log.open("wb") as log:
            # In a session of its own, Ctrl-C goes to the demo alone, which ends its processes in order.
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
        """Ask it to stop, as Ctrl-C does; `send_signal` spares a process that has ended."""
        self._process.send_signal(signal.SIGINT)

    def end(self) -> None:
        """Stop it, more firmly as time goes by."""
        for number, patience_s in ((signal.SIGINT, 5.0), (signal.SIGTERM, 3.0), (signal.SIGKILL, None)):
            self._process.send_signal(number)
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(patience_s)
                return
