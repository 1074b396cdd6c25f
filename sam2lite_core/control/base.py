"""Configuration, state and interface of the deadline controllers (paper section 3.4)."""

import math
from dataclasses import dataclass
from typing import Protocol

from sam2lite_core.control.latency_table import LatencyTable
from sam2lite_core.errors import ConfigurationError
from sam2lite_core.frame.resolution import RUNGS
from sam2lite_core.variants import MAX_WINDOW, MIN_WINDOW

LONG = 33
"""Steps that the scatter of step times is averaged over in the long run."""

RUNG_TOLERANCE = 1e-9
"""Rounding error allowed in sums of scales."""

_RANGES: dict[str, tuple[float, float]] = {
    "kp ki kd integral_limit": (0, math.inf),
    "min_scale max_scale": (RUNGS[0], RUNGS[-1]),
    "min_window max_window": (MIN_WINDOW, MAX_WINDOW),
    "setpoint_share": (0.1, 1),
    "max_change": (1e-3, 1),
    "derivative_memory": (0, 0.99),
    "climb_after": (1, 10_000),
}


@dataclass(frozen=True, kw_only=True)
class ControllerConfig:
    """Aim, gains and limits of a controller.

    Attributes:
        deadline_ms: time that a step may take; None when there is no deadline, which only `off` accepts.
        kp, ki, kd: proportional, integral and derivative gain, change of scale per unit of relative error.
        min_scale, max_scale: lowest and highest resolution scale that may be chosen, 0.5..1.
        min_window, max_window: shortest and longest memory window, frames, 2..8.
        setpoint_share: the aim, as a share of the deadline; at 1 a noisy device would miss every other deadline.
        max_change: largest change of scale per frame, so that quality never jumps.
        integral_limit: bound of the summed error, so that a long overload is soon forgotten.
        derivative_memory: share of the old value that the smoothed derivative keeps per frame, 0..1.
        climb_after: frames in a row that must leave room before `predictive` raises the scale; see `patience`.

    Raises:
        ConfigurationError: a value is outside its range, or no rung lies between the two scales.
    """

    deadline_ms: float | None = None
    kp: float = 0.1
    ki: float = 0.01
    kd: float = 0.05
    min_scale: float = RUNGS[0]
    max_scale: float = RUNGS[-1]
    min_window: int = MIN_WINDOW
    max_window: int = MAX_WINDOW
    setpoint_share: float = 0.8
    max_change: float = 0.05
    integral_limit: float = 2.0
    derivative_memory: float = 0.7
    climb_after: int = 30

    def __post_init__(self) -> None:
        if self.deadline_ms is not None and not 0 < self.deadline_ms < math.inf:
            raise ConfigurationError(
                f"deadline of {self.deadline_ms} ms; give a positive number, or None for no deadline"
            )
        for names, (low, high) in _RANGES.items():
            for name in names.split():
                if not low <= getattr(self, name) <= high:
                    raise ConfigurationError(f"{name} {getattr(self, name)} is outside {low}..{high}")
        if self.min_window > self.max_window:
            raise ConfigurationError(f"min_window {self.min_window} exceeds max_window {self.max_window}")
        if not self.rungs:
            raise ConfigurationError(
                f"no resolution rung lies between min_scale {self.min_scale} and max_scale {self.max_scale}; "
                f"the rungs are {', '.join(map(str, RUNGS))}"
            )

    @property
    def rungs(self) -> tuple[float, ...]:
        """The scales that may be chosen, ascending."""
        low, high = self.min_scale - RUNG_TOLERANCE, self.max_scale + RUNG_TOLERANCE
        return tuple(rung for rung in RUNGS if low <= rung <= high)

    def pid(self, error: float, integral: float, derivative: float) -> float:
        """Return the change of scale (equation 12), at most `max_change` either way."""
        change = self.kp * error + self.ki * integral + self.kd * derivative
        return clamp(change, -self.max_change, self.max_change)

    def smoothed_derivative(self, state: "ControllerState", error: float) -> float:
        """Return the smoothed change of the error since the state's."""
        jump = 0.0 if state.error is None else error - state.error
        return self.derivative_memory * state.derivative + (1 - self.derivative_memory) * jump

    @property
    def patience(self) -> int:
        """Frames of room before the scale may grow: `climb_after`, but at most those of a second, at least eight."""
        if self.deadline_ms is None:
            return self.climb_after
        return min(self.climb_after, max(8, math.ceil(1000.0 / self.deadline_ms)))


@dataclass(frozen=True)
class DeviceLatency:
    """Latency of the device as the predictive controller has learnt it.

    Attributes:
        table: step times as they are now.
        surprise: logarithm of measured over expected time of a step that was an outlier and that the next step has
            still to confirm; 0 otherwise.
        latest: such logarithms of the latest ordinary steps on this rung, oldest first, each by the table of its time.
        seen: steps that the table's spread is an average of.
        settled: steps since scale or window last changed.
        room: frames in a row, lone stalls apart, that left room for a better choice.
        room_for: the least place on the controller's ladder that the later half of them left room for.
        home: scale and window that the first of several loads drove the controller from, until it is back.
        unloaded: the table as it was when that load set in.
        overhead_ms: smoothed cost of a frame outside the step; None before the first.
        overhead_spread_ms: its mean absolute deviation.
    """

    table: LatencyTable
    surprise: float = 0.0
    latest: tuple[float, ...] = ()
    seen: int = LONG
    settled: int = 0
    room: int = 0
    room_for: int = 0
    home: tuple[float, int] | None = None
    unloaded: LatencyTable | None = None
    overhead_ms: float | None = None
    overhead_spread_ms: float = 0.0


@dataclass(frozen=True)
class ControllerState:
    """Memory of a controller between frames, and its choice for the next.

    Attributes:
        scale: resolution scale rho for the next step; one of the rungs.
        window: memory window W for the next step, frames.
        fine_scale, fine_window: rho and W before they are rounded down.
        integral: summed relative error, clamped; `plain` sums overload only.
        derivative: smoothed change of the error per frame.
        error: relative error of the latest frame; None before the first.
        device: what `predictive` has learnt; None with the other controllers.
    """

    scale: float
    window: int
    fine_scale: float
    fine_window: float
    integral: float = 0.0
    derivative: float = 0.0
    error: float | None = None
    device: DeviceLatency | None = None


class Controller(Protocol):
    """Choose scale and window from measured step times; pure, without a clock."""

    def start(self) -> ControllerState:
        """Return the state before the first frame: full resolution and the longest window, unless more is known."""

    def resume(self, state: ControllerState) -> ControllerState:
        """Carry another configuration's state over, so that a changed setting takes effect without a jump."""

    def update(self, state: ControllerState, measured_ms: float, overhead_ms: float = 0.0) -> ControllerState:
        """Return the state after a step of the state's scale and window, from wall clock in the step and outside it.

        Raises:
            ConfigurationError: a time is negative or not finite.
        """


def snap_down(scale: float, rungs: tuple[float, ...] = RUNGS) -> float:
    """Return the highest rung that does not exceed `scale`; the lowest rung when all do."""
    return max((rung for rung in rungs if rung <= scale + RUNG_TOLERANCE), default=rungs[0])


def state_at(config: ControllerConfig, fine_scale: float, fine_window: float) -> ControllerState:
    """Return a state with the outputs that belong to these fine values."""
    scale, window = snap_down(fine_scale, config.rungs), math.floor(fine_window + RUNG_TOLERANCE)
    return ControllerState(scale, window, fine_scale, fine_window)


def clamp(value: float, low: float, high: float) -> float:
    """Return the value, or the limit that it exceeds."""
    return min(max(value, low), high)


def check_times(measured_ms: float, overhead_ms: float) -> None:
    """Raise ConfigurationError unless both times could have been measured."""
    for name, time in (("step", measured_ms), ("overhead", overhead_ms)):
        if not 0 <= time < math.inf:
            raise ConfigurationError(f"measured {name} time of {time} ms; expected a finite time of at least 0")
