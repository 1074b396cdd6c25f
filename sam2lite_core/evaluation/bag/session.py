"""Run the real node in processes of its own, heard over DDS by `sam2lite_ros.sessions.replay`."""

import contextlib
import importlib.util
import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sam2lite_core.errors import ConfigurationError, Sam2LiteError, SourceError
from sam2lite_core.evaluation.bag.request import ReplaySettings
from sam2lite_core.media.label_map import write_label_map

REPLAY = "sam2lite_ros.sessions.replay"
BAD_INPUT = 2
POLL_S = 0.2


class ReplayError(Sam2LiteError):
    """A process ended, or did not do what it was told, while a bag was replayed."""


@dataclass(frozen=True)
class Recording:
    """The output of a replay: numbers of the sent frames, statuses and mask files by frame, TrackerStatus.msg."""

    sent: tuple[int, ...]
    statuses: dict[int, dict[str, Any]]
    masks: dict[int, Path]
    definition: str


def check_ros(command: str = "eval bag") -> None:
    """Raise ConfigurationError where ROS 2 or our package cannot be imported."""
    for name in ("rclpy", "sam2lite_ros"):
        if importlib.util.find_spec(name) is None:
            raise ConfigurationError(
                f"{command} runs the ROS node, and there is no {name} here; run scripts/setup.sh, then source "
                "scripts/env.sh, or install/setup.bash in a workspace of your own"
            )


def replay(settings: ReplaySettings, work: Path, on_frame: Callable[[], None] = lambda: None) -> Recording:
    """Play the bag to the node; `work` is an empty folder for recordings, `on_frame` is told of every frame sent.

    Raises:
        ConfigurationError: ROS is missing.
        SourceError: the bag broke off while it was played, or the node refused a setting.
        ReplayError: a process failed.
    """
    check_ros()
    prompt = work / "prompt.png"
    write_label_map(prompt, settings.mask)
    request = {"tracker": settings.tracker_parameters(prompt), "player": settings.player_parameters()}
    (work / "request.json").write_text(json.dumps(request))
    run_module(REPLAY, work, on_frame)
    return read_recording(work)


def run_module(module: str, work: Path, on_frame: Callable[[], None]) -> None:
    """Run a module of the ROS package on `work/request.json`, in a process of its own.

    Raises:
        SourceError: the module refuses the input.
        ReplayError: a process failed.
    """
    name = module.split(".")[-1]
    errors = work / f"{name}.log"
    with errors.open("wb") as log:
        # A session of its own: Ctrl-C comes here alone, and the nodes are then ended in order.
        process = subprocess.Popen(
            [sys.executable, "-m", module, str(work)],
            stdout=log,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            start_new_session=True,
        )
    try:
        _wait(process, work / "frames.jsonl", on_frame)
    finally:
        if process.poll() is None:
            process.terminate()
            process.wait()
    said = errors.read_text(errors="replace").strip().removeprefix(f"{name}: ")
    if process.returncode == BAD_INPUT:
        raise SourceError(said)
    if process.returncode != 0:
        raise ReplayError(f"the {name} ended with code {process.returncode}: {said}")


def _wait(process: subprocess.Popen[bytes], sent: Path, on_frame: Callable[[], None]) -> None:
    """Wait for the end, counting the frames that the player writes down."""
    counted = 0
    while True:
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(POLL_S)
        lines = sent.read_bytes().count(b"\n") if sent.is_file() else 0
        for _ in range(lines - counted):
            on_frame()
        counted = lines
        if process.poll() is not None:
            return


def read_recording(work: Path) -> Recording:
    """Read the output of `sam2lite_ros.sessions.replay`, or raise ReplayError for a stamp that was never sent."""
    frames = read_lines(work / "frames.jsonl")
    numbers = {entry["stamp_ns"]: int(entry["index"]) for entry in frames}

    def number(stamp: int) -> int:
        if stamp not in numbers:
            raise ReplayError(f"the tracker published stamp {stamp} ns, which the player never sent")
        return numbers[stamp]

    masks = {number(int(path.stem)): path for path in sorted((work / "masks").glob("*.png"))}
    statuses = {number(entry["stamp_ns"]): entry for entry in read_lines(work / "statuses.jsonl")}
    definition = (work / "TrackerStatus.msg").read_text()
    return Recording(tuple(numbers.values()), statuses, masks, definition)


def read_lines(path: Path) -> list[dict[str, Any]]:
    """Read a file that holds a JSON object on each line."""
    return [json.loads(line) for line in path.read_text().splitlines()]
