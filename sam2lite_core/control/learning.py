"""Learn from each step: times, their scatter, and loads that come and go."""

import math
from dataclasses import replace

import numpy as np

from sam2lite_core.control.base import LONG, ControllerState, DeviceLatency, clamp
from sam2lite_core.control.latency_table import LatencyTable

OUTLIER = 3.0
"""Standard deviations that make a step a surprise; one alone is a stall, two in a row are another load."""

_GAIN = 0.2
"""Share of an ordinary deviation that a step's own times take over: about ten steps are averaged."""

_KINSHIP, _FRESH_KINSHIP = 0.95, 0.6
"""Likeness of neighbouring rungs' deviations; lower just after a change of rung, when the table of that rung errs."""

_RELIEVED = 4
"""Steps in a row that are faster than expected before a load counts as gone."""

_RELIEF = 1.5
"""Standard deviations of a single step by which these are faster on average: three of their mean."""

_FRESH = 3
"""Steps after a change of rung that count as just after."""

_SMALLEST_SURPRISE = 0.1
_SPREADS = (0.02, 0.5)
_OVERHEAD_GAIN = 0.1
_SHORTEST_MS = 1e-3


def learn(known: DeviceLatency, scale: float, deviation: float) -> DeviceLatency:
    """Correct the table by a step on the rung `scale`; the deviation is the logarithm of measured over expected time.

    An ordinary deviation moves the table a little. A surprise moves the whole table once the next step confirms it, by
    the smaller of the two. When a load goes, the table and scatter from before it return.
    """
    spread = known.table.spread
    limit = surprise_limit(spread)
    fresh = known.settled < _FRESH
    if abs(deviation) > limit and known.surprise * deviation > 0:
        shift = math.copysign(min(abs(known.surprise), abs(deviation)), deviation)
        known = replace(known, surprise=0.0, latest=())
        if shift < 0.0 and not fresh and known.unloaded is not None:
            return _without_load(known, known.unloaded, scale, shift)
        return replace(known, table=known.table.scaled(scale, math.exp(shift), _FRESH_KINSHIP if fresh else 1.0))
    if known.surprise:
        # Not confirmed: a stall, which belongs to the scatter.
        known = _scattered(known, limit)
    if abs(deviation) > limit:
        return replace(known, surprise=deviation, latest=())
    before = () if known.settled == 0 else known.latest[1 - _RELIEVED :]
    known = replace(_scattered(known, abs(deviation)), surprise=0.0, latest=(*before, deviation))
    unloaded = known.unloaded
    gone = None if unloaded is None else _relief(known.latest, spread)
    if unloaded is not None and gone is not None:
        shift, calm = gone
        table = replace(known.table, spread=max(calm, unloaded.spread))
        known = replace(known, table=table, latest=(), seen=_RELIEVED)
        return _without_load(known, unloaded, scale, shift)
    kinship = _FRESH_KINSHIP if fresh else _KINSHIP
    return replace(known, table=known.table.scaled(scale, math.exp(_GAIN * deviation), kinship))


def _without_load(known: DeviceLatency, unloaded: LatencyTable, scale: float, shift: float) -> DeviceLatency:
    """Return to the table as it was before the load, moved so that this rung's time is the present one, shifted."""
    window = unloaded.windows[-1]
    shift += math.log(known.table.time_ms(scale, window) / unloaded.time_ms(scale, window))
    return replace(known, table=replace(unloaded, spread=known.table.spread).scaled(scale, math.exp(shift), 1.0))


def _relief(latest: tuple[float, ...], spread: float) -> tuple[float, float] | None:
    """Return the remaining shift of the table and the scatter of the latest steps; None if the load has not gone."""
    if len(latest) < _RELIEVED:
        return None
    shifted, lasting = 0.0, []
    for deviation in latest:
        lasting.append(deviation + shifted)
        shifted += _GAIN * deviation
    faster = math.fsum(lasting) / len(lasting)
    if max(lasting) > -spread or faster > -max(_RELIEF * spread, _SMALLEST_SURPRISE):
        return None
    # The last of the shifts is not in the table yet.
    left = faster - (shifted - _GAIN * latest[-1])
    return left, clamp(float(np.std(lasting, ddof=1)), *_SPREADS)


def _scattered(known: DeviceLatency, deviation: float) -> DeviceLatency:
    """Update the spread: a normal distribution's mean absolute deviation is sqrt(2 / pi) of its standard one."""
    spread = known.table.spread
    off = math.sqrt(math.pi / 2) * deviation - spread
    seen = min(known.seen + 1, LONG)
    return replace(known, table=replace(known.table, spread=clamp(spread + off / seen, *_SPREADS)), seen=seen)


def with_overhead(known: DeviceLatency, overhead_ms: float) -> DeviceLatency:
    """Take in what this frame cost outside the step; a lone peak counts as little more than the usual."""
    if known.overhead_ms is None:
        return replace(known, overhead_ms=overhead_ms)
    usual, spread = known.overhead_ms, known.overhead_spread_ms
    off = min(overhead_ms - usual, 1.0 + 4.0 * spread)
    return replace(
        known,
        overhead_ms=usual + _OVERHEAD_GAIN * off,
        overhead_spread_ms=spread + _OVERHEAD_GAIN * (abs(off) - spread),
    )


def deviation_of(table: LatencyTable, state: ControllerState, measured_ms: float) -> float:
    """Return the logarithm of measured over expected time, at most a factor of 50 either way."""
    expected = table.time_ms(state.scale, state.window)
    return clamp(math.log(max(measured_ms, _SHORTEST_MS) / expected), -4.0, 4.0)


def surprise_limit(spread: float) -> float:
    """Return the deviation beyond which a step is a surprise."""
    return max(OUTLIER * spread, _SMALLEST_SURPRISE)
