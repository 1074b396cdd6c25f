"""Measure laps of wall clock."""

import time


class Stopwatch:
    """A stopwatch that runs from when it is made."""

    def __init__(self) -> None:
        self._last = time.perf_counter()

    def lap(self) -> float:
        """Return the milliseconds since the last lap, or since the start."""
        now = time.perf_counter()
        elapsed, self._last = (now - self._last) * 1000.0, now
        return elapsed
