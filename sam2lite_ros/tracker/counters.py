"""Count frames, keep their latencies, and log those that were not tracked."""

import threading
from collections import deque
from dataclasses import dataclass
from time import monotonic
from typing import Any

from sam2lite_core.errors import Sam2LiteError
from sam2lite_ros.tracker.inputs import THROTTLE_S

LATENCIES_KEPT = 300
"""Frames over which diagnostics takes percentiles: ten seconds at 30 Hz."""

MOST_MESSAGES = 64
"""Different messages whose times are remembered."""


@dataclass(frozen=True)
class Counts:
    """Totals since activation; received = processed + dropped + failed + those still waiting or running.

    Attributes:
        received: messages that reached the subscription callback.
        processed: frames that were tracked and published.
        dropped: frames replaced by a newer one, too old, or waiting at deactivation.
        failed: frames that could not be decoded or tracked.
        deadlines_missed: processed frames whose mask came after the deadline.
    """

    received: int = 0
    processed: int = 0
    dropped: int = 0
    failed: int = 0
    deadlines_missed: int = 0


class FrameCounters:
    """Counters that both threads use; `last_error` is the reason of the latest failure, or empty."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._received = self._processed = self._dropped = self._failed = self._missed = 0
        self._latencies: deque[float] = deque(maxlen=LATENCIES_KEPT)
        self.last_error = ""

    def count_received(self) -> int:
        """Count a message; return how many there were."""
        with self._lock:
            self._received += 1
            return self._received

    def count_processed(self, latency_ms: float, missed: bool) -> None:
        """Count a published frame, with the time from its arrival to its mask."""
        with self._lock:
            self._processed += 1
            self._missed += missed
            self._latencies.append(latency_ms)

    def count_dropped(self) -> None:
        """Count a frame that will not be processed."""
        with self._lock:
            self._dropped += 1

    def count_failed(self, error: Exception) -> None:
        """Count a frame that could not be used, and keep the reason."""
        with self._lock:
            self._failed += 1
            # A MemoryError says nothing but its name.
            self.last_error = str(error) or type(error).__name__

    def snapshot(self) -> Counts:
        """Return the totals."""
        with self._lock:
            return Counts(self._received, self._processed, self._dropped, self._failed, self._missed)

    def latencies(self) -> list[float]:
        """Return the latest frames' times from arrival to mask, ms."""
        with self._lock:
            return list(self._latencies)


class FrameLog:
    """Throttled log of failed and dropped frames; the inference thread writes it."""

    def __init__(self, logger: Any) -> None:
        self._logger = logger
        self._logged: dict[str, float] = {}

    def frame_failed(self, error: Exception) -> None:
        """Log a frame that could not be used."""
        kind = "" if isinstance(error, Sam2LiteError) else f"unexpected {type(error).__name__}: "
        text = f"frame not tracked: {kind}{error}"
        # Each message has its own throttle: a stream of one kind must not hide another.
        if monotonic() - self._logged.get(text, -THROTTLE_S) >= THROTTLE_S:
            if len(self._logged) >= MOST_MESSAGES:
                self._logged.clear()
            self._logged[text] = monotonic()
            self._logger.error(text)

    def frame_too_old(self, age_ms: float, limit_ms: float) -> None:
        """Log a frame that was dropped for its age."""
        self._logger.warning(
            f"frame dropped: {age_ms:.0f} ms old, max_frame_age_ms is {limit_ms:.0f}; replays need use_sim_time",
            throttle_duration_sec=THROTTLE_S,
        )
