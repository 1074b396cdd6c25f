"""Whether the frame that waits is about to be replaced by a newer one."""

from collections import deque
from statistics import median

KNOWN_INTERVALS = 9
"""Intervals between arrivals whose median is the camera's period: a few late frames do not move it."""

SOON = 0.75
"""Share of the period after which the next frame is near: waiting for it costs little beside what its mask gains in
age. The rest is room for frames that come early and for what the transport adds to a frame's age."""

LATE = 1.25
"""Share of the period after which a frame that has not come is not waited for any longer."""


class Freshness:
    """Says how long a frame is worth holding back, because the next one is due.

    A step that starts just before a frame arrives makes a mask that is a period older than it had to be. Holding it
    back for that moment keeps every mask younger than a period and a step, as long as frames keep coming.
    """

    def __init__(self) -> None:
        self._intervals: deque[float] = deque(maxlen=KNOWN_INTERVALS)
        self._last: float | None = None
        self._period_s: float | None = None

    def arrived(self, at: float) -> None:
        """Note an arrival at a time in seconds; one thread notes, any thread may ask `hold_s`."""
        if self._last is not None:
            self._intervals.append(at - self._last)
        self._last = at
        if len(self._intervals) > KNOWN_INTERVALS // 2:
            self._period_s = median(self._intervals)

    def hold_s(self, arrived: float, now: float) -> float:
        """Seconds for which a frame should wait for its successor; 0 when it should be taken now.

        Args:
            arrived: when the frame came, seconds.
            now: the present, on the same clock.
        """
        period = self._period_s
        if period is None:
            return 0.0
        waited = now - arrived
        return LATE * period - waited if SOON * period <= waited < LATE * period else 0.0
