"""Record what the tracker publishes."""

import json
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from diagnostic_msgs.msg import DiagnosticArray
from rclpy.node import Node
from rclpy.qos import HistoryPolicy, QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import Image

from sam2lite_core.media.label_map import write_label_map
from sam2lite_ros.msg import TrackerStatus
from sam2lite_ros.player.node import RECORD_FILE
from sam2lite_ros.tracker.prompts import stamp_nanoseconds

COUNTERS = ("received", "processed", "dropped", "failed")
"""Frame counters of a diagnosis."""

RECORDED = {"qos_overrides./tracker/mask.publisher.depth": 100, "qos_overrides./tracker/status.publisher.depth": 100}
"""Parameters with which every mask reaches the record, even when writing is slow for a moment."""


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
    """Node that records the tracker's masks, statuses and diagnoses.

    Attributes:
        recording: masks and statuses.
        counters: frame counters of each diagnosis.
        last_news: `time.monotonic` of the latest mask or status.
    """

    def __init__(self, folder: Path | None) -> None:
        """Subscribe; without a folder, masks are not kept."""
        super().__init__("demo")
        self.recording = Recording()
        self.counters: list[dict[str, int]] = []
        self.last_news = time.monotonic()
        self._folder = folder
        qos = QoSProfile(history=HistoryPolicy.KEEP_LAST, depth=200, reliability=ReliabilityPolicy.RELIABLE)
        self.create_subscription(Image, "/tracker/mask", self._on_mask, qos)
        self.create_subscription(TrackerStatus, "/tracker/status", self._on_status, qos)
        self.create_subscription(DiagnosticArray, "/diagnostics", self._on_diagnosis, 10)

    def _on_mask(self, message: Image) -> None:
        stamp = stamp_nanoseconds(message.header.stamp)
        if self._folder is not None:
            dtype = np.dtype("<u2") if message.encoding == "mono16" else np.dtype(np.uint8)
            labels = np.frombuffer(message.data, dtype).reshape(message.height, message.width)
            write_label_map(self._folder / f"{stamp}.png", labels)
        self.recording.masks.append(stamp)
        self.last_news = time.monotonic()

    def _on_status(self, message: TrackerStatus) -> None:
        self.recording.statuses.append(message)
        self.last_news = time.monotonic()

    def _on_diagnosis(self, message: DiagnosticArray) -> None:
        values = {entry.key: entry.value for entry in message.status[0].values}
        self.counters.append({name: int(values[f"frames {name}"]) for name in COUNTERS})


def read_record(work: Path) -> list[dict[str, Any]]:
    """Read the player's list of frames sent; empty when it sent none."""
    path = work / RECORD_FILE
    return [json.loads(line) for line in path.read_text().splitlines()] if path.is_file() else []


def write_lines(path: Path, entries: Iterable[dict[str, Any]]) -> None:
    """Write a JSON object a line."""
    path.write_text("".join(json.dumps(entry) + "\n" for entry in entries))


def write_statuses(recording: Recording, folder: Path) -> None:
    """Write the status of each frame into `statuses.jsonl`."""
    write_lines(folder / "statuses.jsonl", map(status_entry, recording.statuses))


def status_entry(status: TrackerStatus) -> dict[str, Any]:
    """Return a TrackerStatus as plain numbers: the header's stamp as `stamp_ns`, every other field by its name."""
    names = [name for name in status.get_fields_and_field_types() if name != "header"]
    return {"stamp_ns": stamp_nanoseconds(status.header.stamp), **{name: getattr(status, name) for name in names}}
