"""Step times by resolution scale and memory window: measured once, then corrected by every step."""

import bisect
import math
from dataclasses import dataclass, replace
from itertools import accumulate

from sam2lite_core.errors import ConfigurationError

WORTHWHILE = 0.03
"""Share of a step that a shorter window must save before it is used (design section 4)."""

STEEPEST_POWER = 3
"""No step time grows faster than this power of the scale: a 12-layer ViT-Tiny was measured at the power of 2.7."""

_BEYOND = 0.5
"""Scale beyond the rungs that a fitting scale is extrapolated to."""


@dataclass(frozen=True)
class LatencyTable:
    """Typical step times by rung and window, and how much steps scatter around them.

    Times are corrected so that a higher rung never costs less than a lower one, nor more than `STEEPEST_POWER` allows,
    and a longer window never less than a shorter one.

    Attributes:
        rungs: resolution scales, ascending.
        windows: memory windows in frames, ascending; between them the time is interpolated.
        times_ms: a row for each rung with a time for each window, ms.
        spread: standard deviation of the logarithm of a step time.

    Raises:
        ConfigurationError: axes that do not ascend, a row too many or too short, or a time that is not positive.
    """

    rungs: tuple[float, ...]
    windows: tuple[int, ...]
    times_ms: tuple[tuple[float, ...], ...]
    spread: float = 0.05

    def __post_init__(self) -> None:
        for name, axis in (("rungs", self.rungs), ("windows", self.windows)):
            if not axis or list(axis) != sorted(set(axis)):
                raise ConfigurationError(f"{name} {axis} of a latency table do not ascend")
        if len(self.times_ms) != len(self.rungs) or any(len(row) != len(self.windows) for row in self.times_ms):
            raise ConfigurationError(
                f"a latency table of {len(self.rungs)} rungs and {len(self.windows)} windows needs a time for each"
            )
        wrong = [time for row in self.times_ms for time in row if not 0 < time < math.inf]
        if wrong or not 0 <= self.spread < math.inf:
            raise ConfigurationError(f"step times {wrong} ms, spread {self.spread}: give positive numbers")
        rows: list[tuple[float, ...]] = []
        for rung, row in zip(self.rungs, self.times_ms, strict=True):
            if rows:
                growth = (rung / self.rungs[len(rows) - 1]) ** STEEPEST_POWER
                row = tuple(min(max(time, below), below * growth) for time, below in zip(row, rows[-1], strict=True))
            rows.append(tuple(accumulate(row, max)))
        object.__setattr__(self, "times_ms", tuple(rows))

    def time_ms(self, scale: float, window: int) -> float:
        """Return the typical time of a step, ms; raise ConfigurationError if the scale is not one of the rungs."""
        row, windows = self.times_ms[self._rung(scale)], self.windows
        right = bisect.bisect_right(windows, window)
        if right in (0, len(windows)):
            return row[min(right, len(windows) - 1)]
        share = (window - windows[right - 1]) / (windows[right] - windows[right - 1])
        return row[right - 1] + share * (row[right] - row[right - 1])

    def saving(self, scale: float, window: int, shorter: int) -> float:
        """Return the share of a step that a shorter window saves at a rung."""
        return 1.0 - self.time_ms(scale, shorter) / self.time_ms(scale, window)

    def fitting_scale(self, limit_ms: float, window: int, rungs: tuple[float, ...]) -> float:
        """Return the scale, between rungs, whose step takes `limit_ms`; the outer slopes go on beyond the rungs."""
        times = [self.time_ms(rung, window) for rung in rungs]
        if len(rungs) == 1:
            return rungs[0] + (_BEYOND if times[0] <= limit_ms else -_BEYOND)
        upper = min(max(bisect.bisect_right(times, limit_ms), 1), len(rungs) - 1)
        low, high = rungs[upper - 1], rungs[upper]
        rise = times[upper] - times[upper - 1]
        if rise <= 0.0:
            # Equal costs, as of a small camera picture that is never enlarged.
            return rungs[-1] + _BEYOND if times[-1] <= limit_ms else rungs[0] - _BEYOND
        scale = low + (high - low) * (limit_ms - times[upper - 1]) / rise
        return min(max(scale, rungs[0] - _BEYOND), rungs[-1] + _BEYOND)

    def scaled(self, scale: float, ratio: float, kinship: float) -> "LatencyTable":
        """Return the table with the times of a rung multiplied by `ratio`.

        A row changes as one, so that the share a window saves stays as measured.

        Args:
            scale: the rung.
            ratio: factor of its times.
            kinship: share of the factor's logarithm that the next rung takes over; the one after it takes the square.
        """
        own = self._rung(scale)
        times = [
            tuple(time * ratio ** (kinship ** abs(rung - own)) for time in row)
            for rung, row in enumerate(self.times_ms)
        ]
        # Lower rungs give way to the measured one; higher ones do when the table is made.
        for rung in range(own):
            growth = (self.rungs[own] / self.rungs[rung]) ** STEEPEST_POWER
            times[rung] = tuple(
                min(max(time, known / growth), known) for time, known in zip(times[rung], times[own], strict=True)
            )
        return replace(self, times_ms=tuple(times))

    def _rung(self, scale: float) -> int:
        try:
            return self.rungs.index(scale)
        except ValueError:
            raise ConfigurationError(
                f"scale {scale} is not in the latency table; its rungs are {', '.join(map(str, self.rungs))}"
            ) from None
