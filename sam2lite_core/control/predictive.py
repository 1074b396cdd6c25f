"""The predictive controller: a latency table picks the rung, the paper's PID trims it (design section 4)."""

import math
from dataclasses import replace

from sam2lite_core.control.base import (
    RUNG_TOLERANCE,
    ControllerConfig,
    ControllerState,
    DeviceLatency,
    check_times,
    clamp,
    snap_down,
    state_at,
)
from sam2lite_core.control.latency_table import WORTHWHILE, LatencyTable
from sam2lite_core.control.learning import deviation_of, learn, surprise_limit, with_overhead
from sam2lite_core.errors import ConfigurationError

TAIL = 1.645
"""Standard deviations between the median and the 95th percentile."""

Level = tuple[float, int]


class PredictiveController:
    """Choose the highest rung whose 95th percentile, by the latency table, fits within the setpoint.

    It drops by any number of rungs in one frame, and climbs by `max_change` a frame once `patience` frames in a row,
    lone stalls apart, left room. A choice is kept until its 95th percentile exceeds the middle between setpoint and
    deadline; the one that a load drove it from counts as kept until it is back. The window shrinks only on the lowest
    rung, and only where that saves 3 % of a step.
    """

    def __init__(self, config: ControllerConfig, table: LatencyTable | None) -> None:
        """Use a configuration and the times that were measured on this device.

        Raises:
            ConfigurationError: there is no deadline or no table, or the table lacks a rung.
        """
        if config.deadline_ms is None:
            raise ConfigurationError(
                "controller 'predictive' needs a deadline; set deadline_ms or choose controller 'off'"
            )
        if table is None:
            raise ConfigurationError(
                "controller 'predictive' needs a latency table; measure one, or choose controller 'plain'"
            )
        self._config = config
        self._table = table
        self._setpoint_ms = config.setpoint_share * config.deadline_ms
        self._keep_ms = (self._setpoint_ms + config.deadline_ms) / 2
        self._ladder = ladder(config, table)

    def start(self) -> ControllerState:
        """Return the best choice that the table as measured allows."""
        known = DeviceLatency(self._table)
        return self._at(self._fitting(known, self._setpoint_ms, 0.0), known)

    def resume(self, state: ControllerState) -> ControllerState:
        """Move a state inside this configuration's limits; what is known about the device is kept."""
        known = state.device or DeviceLatency(self._table)
        # Places of another ladder, and steps of another rung, say nothing here.
        known = replace(known, latest=(), settled=0, room=0, room_for=0)
        return self._at(self._affordable((state.scale, state.window)), known)

    def update(self, state: ControllerState, measured_ms: float, overhead_ms: float = 0.0) -> ControllerState:
        """Return the state after a step that took `measured_ms` of wall clock."""
        check_times(measured_ms, overhead_ms)
        before = state.device or DeviceLatency(self._table)
        deviation = deviation_of(before.table, state, measured_ms)
        known = with_overhead(learn(before, state.scale, deviation), overhead_ms)
        confirmed = before.surprise != 0.0 and known.surprise == 0.0
        # Equations 11 and 12 against the table: against the setpoint the sum would grow while a rung leaves room.
        config, limit = self._config, surprise_limit(before.table.spread)
        error = 1.0 - math.exp(clamp(deviation, -limit, limit))
        integral = clamp(state.integral + error, -config.integral_limit, config.integral_limit)
        derivative = config.smoothed_derivative(state, error)
        if confirmed:
            integral = derivative = 0.0  # the table has taken in the load
        struck = confirmed or known.surprise > 0.0
        trim = config.pid(error, integral, derivative)
        chosen = self._choose(state, known, trim, before.table if struck else None)
        return replace(chosen, integral=integral, derivative=derivative, error=error)

    def _choose(
        self, state: ControllerState, known: DeviceLatency, trim: float, unloaded: LatencyTable | None
    ) -> ControllerState:
        """Drop, climb or stay; `unloaded` is the table from before a load that has just set in."""
        place = self._ladder.index((state.scale, state.window))
        wanted = self._fitting(known, self._setpoint_ms, trim)
        kept = self._fitting(known, self._keep_ms, trim)
        home = 0 if known.home is None else self._affordable(known.home)
        if place >= home:
            known = replace(known, home=None, unloaded=None)
        if kept < place:
            if unloaded is not None and place > home:
                known = replace(known, home=self._ladder[place], unloaded=unloaded)
            return self._at(wanted, replace(known, settled=0, room=0))
        if kept >= home:
            # Back home, the wider limit of a kept choice holds.
            wanted = max(wanted, home)
        known = replace(known, settled=known.settled + 1)
        if wanted <= place:
            # A lone stall says nothing about room.
            return self._at(place, known if known.surprise else replace(known, room=0))
        # The first half was judged while the table was still being learnt.
        judged = known.room not in (0, self._config.patience // 2)
        room_for = min(wanted, known.room_for) if judged else wanted
        known = replace(known, room=known.room + 1, room_for=room_for)
        if known.room < self._config.patience:
            return self._at(place, known)
        return self._climb(state.fine_scale, place, known)

    def _climb(self, fine_scale: float, place: int, known: DeviceLatency) -> ControllerState:
        """Step towards the next place on the ladder; done when the one that there was room for is reached."""
        scale, window = self._ladder[place]
        above, longer = self._ladder[place + 1]
        fine_scale = max(fine_scale, scale) + self._config.max_change
        if longer == window and fine_scale < above - RUNG_TOLERANCE:
            return replace(self._at(place, known), fine_scale=fine_scale)
        arrived = place + 1 >= known.room_for
        return self._at(place + 1, replace(known, settled=0, room=0 if arrived else known.room))

    def _fitting(self, known: DeviceLatency, limit_ms: float, trim: float) -> int:
        """Return the best place on the ladder whose 95th percentile stays within a limit; the lowest when none does."""
        overhead_ms = (known.overhead_ms or 0.0) + 2.0 * known.overhead_spread_ms
        fitting_ms = max(limit_ms - overhead_ms, 0.0) / math.exp(TAIL * known.table.spread)
        config = self._config
        scale = known.table.fitting_scale(fitting_ms, config.max_window, config.rungs) + trim
        if scale >= config.rungs[0] - RUNG_TOLERANCE:
            return self._ladder.index((snap_down(scale, config.rungs), config.max_window))
        shorter = [place for place, level in enumerate(self._ladder) if level[1] < config.max_window]
        return max((p for p in shorter if known.table.time_ms(*self._ladder[p]) <= fitting_ms), default=0)

    def _affordable(self, level: Level) -> int:
        """Return the best place on the ladder that is no better than a level of any ladder."""
        fits = [scale <= level[0] + RUNG_TOLERANCE and window <= level[1] for scale, window in self._ladder]
        return max((place for place, fit in enumerate(fits) if fit), default=0)

    def _at(self, place: int, known: DeviceLatency) -> ControllerState:
        scale, window = self._ladder[place]
        return replace(state_at(self._config, scale, float(window)), device=known)


def ladder(config: ControllerConfig, table: LatencyTable) -> tuple[Level, ...]:
    """List every (scale, window) that may be chosen, from the cheapest to the best.

    Shorter windows come below the lowest rung, and only those that save enough over the one above them.
    """
    lowest = config.rungs[0]
    windows = [config.max_window]
    for window in range(config.max_window - 1, config.min_window - 1, -1):
        if table.saving(lowest, windows[-1], window) >= WORTHWHILE:
            windows.append(window)
    shorter = [(lowest, window) for window in reversed(windows[1:])]
    return (*shorter, *((rung, config.max_window) for rung in config.rungs))
