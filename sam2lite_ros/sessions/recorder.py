"""Record what the tracker publishes."""

import json
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState
from rclpy.node import Node
from rclpy.qos import HistoryPolicy, QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import Image

from sam2lite_core.media.label_map import write_label_map
from sam2lite_ros.msg import TrackerStatus
from sam2lite_ros.player.node import RECORD_FILE
from sam2lite_ros.sessions.processes import ProcessError
from sam2lite_ros.tracker.prompts import stamp_nanoseconds

SERVICE_TIMEOUT_S = 120.0
"""Longest wait for the tracker to appear or to change state; loading a model on a busy machine takes a while."""

STATUSES_FILE = "statuses.jsonl"

RECORDED = {"qos_overrides./tracker/mask.publisher.depth": 100, "qos_overrides./tracker/status.publisher.depth": 100}
"""Every mask shall reach the record, even when it is written slower than the tracker publishes for a moment."""


@dataclass
class Recording:
    """Messages of a run.

    Attributes:
        masks: stamp of each mask received, nanoseconds, in order; the files are named by it.
        statuses: every TrackerStatus, in order.
        sent: index, name and stamp_ns of each frame that the player sent.
    """

    masks: list[int] = field(default_factory=list)
    statuses: list[TrackerStatus] = field(default_factory=list)
    sent: list[dict[str, Any]] = field(default_factory=list)

    @property
    def settled(self) -> bool:
        """True when the tracker has processed or dropped every frame that it received."""
        latest = self.statuses[-1] if self.statuses else None
        return latest is not None and latest.frames_received == latest.frames_processed + latest.frames_dropped


class Recorder(Node):
    """Node that saves masks as they come and drives the tracker through its lifecycle."""

    def __init__(self, folder: Path) -> None:
        super().__init__("demo")
        self.recording = Recording()
        self.last_news = time.monotonic()
        self._folder = folder
        self._change_state: Any = self.create_client(ChangeState, "/tracker/change_state")
        qos = QoSProfile(history=HistoryPolicy.KEEP_LAST, depth=200, reliability=ReliabilityPolicy.RELIABLE)
        self.create_subscription(Image, "/tracker/mask", self._on_mask, qos)
        self.create_subscription(TrackerStatus, "/tracker/status", self._on_status, qos)

    def _on_mask(self, message: Image) -> None:
        dtype = np.dtype("<u2") if message.encoding == "mono16" else np.dtype(np.uint8)
        labels = np.frombuffer(message.data, dtype).reshape(message.height, message.width)
        stamp = stamp_nanoseconds(message.header.stamp)
        write_label_map(self._folder / f"{stamp}.png", labels)
        self.recording.masks.append(stamp)
        self.last_news = time.monotonic()

    def _on_status(self, message: TrackerStatus) -> None:
        self.recording.statuses.append(message)
        self.last_news = time.monotonic()

    def change_state(self, transition: int, spin: Callable[[], None]) -> bool:
        """Ask for a lifecycle transition and wait for it.

        Returns:
            Whether it succeeded.

        Raises:
            ProcessError: no answer in time.
        """
        limit = time.monotonic() + SERVICE_TIMEOUT_S
        while not self._change_state.service_is_ready():
            spin()
            if time.monotonic() > limit:
                raise ProcessError(f"the tracker did not appear within {SERVICE_TIMEOUT_S:.0f} s")
        future = self._change_state.call_async(ChangeState.Request(transition=Transition(id=transition)))
        while not future.done():
            spin()
            if time.monotonic() > limit:
                raise ProcessError(f"the tracker did not answer within {SERVICE_TIMEOUT_S:.0f} s")
        response = future.result()
        return bool(response is not None and response.success)


def read_record(work: Path) -> list[dict[str, Any]]:
    """Read the player's list of frames sent; empty when it sent none."""
    path = work / RECORD_FILE
    lines = path.read_text().splitlines() if path.is_file() else []
    return [json.loads(line) for line in lines]


def write_lines(path: Path, entries: Iterable[dict[str, Any]]) -> None:
    """Write a JSON object a line."""
    path.write_text("".join(json.dumps(entry) + "\n" for entry in entries))


def write_statuses(recording: Recording, folder: Path) -> None:
    """Write what the tracker said of each frame into a folder's STATUSES_FILE."""
    write_lines(folder / STATUSES_FILE, map(status_entry, recording.statuses))


def status_entry(status: TrackerStatus) -> dict[str, Any]:
    """Return a TrackerStatus as plain numbers: the header's stamp as `stamp_ns`, every other field by its name."""
    names = [name for name in status.get_fields_and_field_types() if name != "header"]
    stamp_ns = stamp_nanoseconds(status.header.stamp)
    return {"stamp_ns": stamp_ns, **{name: getattr(status, name) for name in names}}
