"""Count frames and keep their latencies."""

import threading
from collections import deque
from dataclasses import dataclass

LATENCIES_KEPT = 300
"""Frames over which diagnostics takes percentiles: ten seconds at 30 Hz."""


@dataclass(frozen=True)
class Counts:
    """Totals since activation; received = processed + dropped + failed + those still waiting or running.

    Attributes:
        received: messages that reached the subscription callback.
        processed: frames that were tracked and published.
        dropped: frames replaced by a newer one, too old, or waiting at deactivation.
        failed: frames that could not be decoded or tracked.
        deadlines_missed: processed frames whose mask came later than the deadline.
    """

    received: int = 0
    processed: int = 0
    dropped: int = 0
    failed: int = 0
    deadlines_missed: int = 0


class FrameCounters:
    """Counters that both threads use."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._received = self._processed = self._dropped = self._failed = self._missed = 0
        self._latencies: deque[float] = deque(maxlen=LATENCIES_KEPT)
        self._last_error = ""

    def count_received(self) -> int:
        """Count a message; returns how many there were."""
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
        """Count a frame that could not be used, and remember why."""
        with self._lock:
            self._failed += 1
            # A MemoryError says nothing but its name.
            self._last_error = str(error) or type(error).__name__

    def snapshot(self) -> Counts:
        """Return the totals."""
        with self._lock:
            return Counts(self._received, self._processed, self._dropped, self._failed, self._missed)

    @property
    def last_error(self) -> str:
        """Reason of the latest failure; empty when there was none."""
        with self._lock:
            return self._last_error

    def latencies(self) -> list[float]:
        """Return the latest frames' times from arrival to mask, ms."""
        with self._lock:
            return list(self._latencies)
