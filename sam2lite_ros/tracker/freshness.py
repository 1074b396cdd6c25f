"""Predict when the next frame replaces the one that waits."""

from collections import deque
from statistics import median

KNOWN_INTERVALS = 9
"""Intervals between frames whose median is the camera's period: a few late frames do not move it."""

SOON, OLDEST, EARLIEST = 0.75, 0.95, 0.5
"""Shares of the period. A frame is held once it has waited for `SOON`; after a long transport earlier, so that it is
younger than `OLDEST` when its step begins, but not before `EARLIEST`: slow transport must not hold every frame."""

LATE = 1.25
"""Share of the period after which a missing frame is no longer waited for."""


class Freshness:
    """Estimate for how long a frame is worth holding back, because the next one is due.

    A step that starts just before a frame arrives makes a mask that is a period too old. Holding it back keeps masks
    younger than a period and a step while frames keep coming; a frame without successor begins up to half a period
    late. Steps that take between n + .75 and n + 1 periods yield up to 12 % fewer masks.
    """

    def __init__(self) -> None:
        self._intervals: deque[float] = deque(maxlen=KNOWN_INTERVALS)
        self._last: float | None = None
        self._period_s: float | None = None

    def seen(self, at: float) -> None:
        """Note when a frame was taken by the camera, seconds on any clock; one thread notes, any may ask `hold_s`."""
        if self._last is not None and at > self._last:
            self._intervals.append(at - self._last)
        self._last = at
        if len(self._intervals) > KNOWN_INTERVALS // 2:
            self._period_s = median(self._intervals)

    def hold_s(self, waited_s: float, receive_s: float = 0.0, limit_s: float | None = None) -> float:
        """Return for how many seconds a frame should wait for its successor; 0 when it should be taken now.

        Args:
            waited_s: time since the frame came.
            receive_s: time from the frame's stamp to its arrival; counts as 0 where it is negative or longer than a
                period, as between clocks that differ.
            limit_s: age, from the stamp, at which the frame is of no use.
        """
        period = self._period_s
        if period is None:
            return 0.0
        on_its_way = receive_s if 0.0 <= receive_s <= period else 0.0
        begin = max(EARLIEST * period, min(SOON * period, OLDEST * period - on_its_way))
        if not begin <= waited_s < LATE * period:
            return 0.0
        hold = LATE * period - waited_s
        if limit_s is None:
            return hold
        # Half of what is left of its use, so that the step still finds the frame young enough.
        return min(hold, max(0.0, (limit_s - receive_s - waited_s) / 2.0))
