"""Keeping the deadline: from measured step times to resolution scale and memory window (paper section 3.4).

Controllers are pure: a state and a measurement go in, a new state comes out. None reads a clock, so a device
that throttles can be simulated in a test.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Protocol

from sam2lite_core.errors import ConfigurationError
from sam2lite_core.variants import MAX_WINDOW, MIN_WINDOW, RUNGS

_ROUNDING = 1e-9


@dataclass(frozen=True, kw_only=True)
class ControllerConfig:
    """What a controller aims at and how hard it tries.

    Attributes:
        deadline_ms: time that a step may take; None when there is no deadline, which only `off` accepts.
        kp: proportional gain, change of scale per unit of relative error (paper section 3.4).
        ki: integral gain.
        kd: derivative gain.
        min_scale: lowest resolution scale that may be chosen, 0.5..1.
        max_scale: highest resolution scale that may be chosen, 0.5..1.
        min_window: shortest memory window, frames, 2..8.
        max_window: longest memory window, frames, 2..8.
        setpoint_share: the aim, as a share of the deadline; at 1 a noisy device would miss every other
            deadline.
        max_change: largest change of scale per frame, so that quality never jumps.
        integral_limit: bound of the summed error, so that a long overload is forgotten soon after it ends.
        derivative_memory: share of the old value that the smoothed derivative keeps per frame, 0..1.

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

    def __post_init__(self) -> None:
        """Check every value."""
        if self.deadline_ms is not None and not 0 < self.deadline_ms < math.inf:
            raise ConfigurationError(
                f"deadline of {self.deadline_ms} ms; give a positive number, or None for no deadline"
            )
        for name in ("kp", "ki", "kd"):
            _check_range(name, getattr(self, name), 0, math.inf)
        for name in ("min_scale", "max_scale"):
            _check_range(name, getattr(self, name), RUNGS[0], RUNGS[-1])
        for name in ("min_window", "max_window"):
            _check_range(name, getattr(self, name), MIN_WINDOW, MAX_WINDOW)
        _check_range("setpoint_share", self.setpoint_share, 0.1, 1)
        _check_range("max_change", self.max_change, 1e-3, 1)
        _check_range("integral_limit", self.integral_limit, 0, math.inf)
        _check_range("derivative_memory", self.derivative_memory, 0, 0.99)
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
        return tuple(
            rung for rung in RUNGS if self.min_scale - _ROUNDING <= rung <= self.max_scale + _ROUNDING
        )


@dataclass(frozen=True)
class ControllerState:
    """What a controller remembers between frames, and what it has chosen.

    Attributes:
        scale: resolution scale rho for the next step; one of the rungs.
        window: memory window W for the next step, frames.
        fine_scale: rho before it is snapped down to a rung.
        fine_window: W before it is rounded down.
        integral: summed relative error, clamped.
        derivative: smoothed change of the error per frame.
        error: relative error of the latest frame; None before the first.
    """

    scale: float
    window: int
    fine_scale: float
    fine_window: float
    integral: float = 0.0
    derivative: float = 0.0
    error: float | None = None


class Controller(Protocol):
    """Chooses scale and window from measured step times."""

    def start(self) -> ControllerState:
        """The state before the first frame: full resolution and the longest window."""

    def resume(self, state: ControllerState) -> ControllerState:
        """Carry another configuration's state over, so that a changed setting takes effect without a jump."""

    def update(self, state: ControllerState, measured_ms: float) -> ControllerState:
        """The state after a step that took `measured_ms` of wall clock.

        Raises:
            ConfigurationError: the time is negative or not finite.
        """


class OffController:
    """Always the highest scale and the longest window."""

    def __init__(self, config: ControllerConfig) -> None:
        """Use the limits of a configuration; its deadline is not looked at."""
        self._config = config

    def start(self) -> ControllerState:
        """The state before the first frame."""
        return _at(self._config, self._config.rungs[-1], float(self._config.max_window))

    def resume(self, state: ControllerState) -> ControllerState:
        """The same as `start`: there is nothing to carry over."""
        return self.start()

    def update(self, state: ControllerState, measured_ms: float) -> ControllerState:
        """The same choice, whatever was measured.

        Raises:
            ConfigurationError: the time is negative or not finite.
        """
        _check_time(measured_ms)
        return self.start()


class DeadlineController:
    """The paper's PID controller (equations 11 and 12): relative error in, change of scale out.

    The scale gives way first. Only on the lowest rung does the window shrink, and it is the first to grow
    again.
    """

    def __init__(self, config: ControllerConfig) -> None:
        """Use a configuration.

        Raises:
            ConfigurationError: it has no deadline.
        """
        if config.deadline_ms is None:
            raise ConfigurationError(
                "controller 'plain' needs a deadline; set deadline_ms or choose controller 'off'"
            )
        self._config = config
        self._setpoint_ms = config.setpoint_share * config.deadline_ms

    def start(self) -> ControllerState:
        """The state before the first frame."""
        return _at(self._config, self._config.rungs[-1], float(self._config.max_window))

    def resume(self, state: ControllerState) -> ControllerState:
        """The state moved inside this configuration's limits; errors against another deadline are dropped."""
        config = self._config
        return _at(
            config,
            _clamp(state.fine_scale, config.rungs[0], config.rungs[-1]),
            _clamp(state.fine_window, config.min_window, config.max_window),
        )

    def update(self, state: ControllerState, measured_ms: float) -> ControllerState:
        """The state after a step that took `measured_ms` of wall clock.

        Raises:
            ConfigurationError: the time is negative or not finite.
        """
        _check_time(measured_ms)
        config = self._config
        # One stalled frame counts as an overload of 100 %, no more: the integral would not forget it for a
        # second.
        error = _clamp((self._setpoint_ms - measured_ms) / self._setpoint_ms, -1.0, 1.0)
        jump = 0.0 if state.error is None else error - state.error
        derivative = config.derivative_memory * state.derivative + (1 - config.derivative_memory) * jump
        integral = state.integral
        if not self._saturated(state, error):
            integral = _clamp(integral + error, -config.integral_limit, config.integral_limit)
        change = config.kp * error + config.ki * integral + config.kd * derivative
        change = _clamp(change, -config.max_change, config.max_change)
        fine_scale, fine_window = self._apply(state, change)
        return replace(
            _at(config, fine_scale, fine_window), integral=integral, derivative=derivative, error=error
        )

    def _saturated(self, state: ControllerState, error: float) -> bool:
        """Whether the error asks for more than the limits allow; summing it would only delay the way back."""
        config = self._config
        if error > 0:
            return state.fine_scale >= config.rungs[-1] and state.fine_window >= config.max_window
        return state.fine_scale <= config.rungs[0] and state.fine_window <= config.min_window

    def _apply(self, state: ControllerState, change: float) -> tuple[float, float]:
        """Spend a change of scale: downwards on the scale first, upwards on the window first.

        The largest change moves the window by one frame.
        """
        config = self._config
        low, high = config.rungs[0], config.rungs[-1]
        frames_per_scale = 1 / config.max_change
        fine_scale, fine_window = state.fine_scale, state.fine_window
        if change > 0:
            room = (config.max_window - fine_window) / frames_per_scale
            fine_window += min(change, room) * frames_per_scale
            fine_scale += max(change - room, 0.0)
        else:
            room = fine_scale - low
            fine_scale -= min(-change, room)
            fine_window -= max(-change - room, 0.0) * frames_per_scale
        return _clamp(fine_scale, low, high), _clamp(fine_window, config.min_window, config.max_window)


CONTROLLERS: dict[str, Callable[[ControllerConfig], Controller]] = {
    "plain": DeadlineController,
    "off": OffController,
}
"""Controllers by the name that parameters and options use."""


def make_controller(name: str, config: ControllerConfig) -> Controller:
    """Build a controller.

    Args:
        name: one of `CONTROLLERS`.
        config: its configuration.

    Raises:
        ConfigurationError: no controller has this name, or the configuration does not suit it.
    """
    if name not in CONTROLLERS:
        raise ConfigurationError(f"unknown controller {name!r}; choose one of {', '.join(CONTROLLERS)}")
    return CONTROLLERS[name](config)


def snap_down(scale: float, rungs: tuple[float, ...] = RUNGS) -> float:
    """The highest rung that does not exceed `scale`; the lowest rung when all do."""
    return max((rung for rung in rungs if rung <= scale + _ROUNDING), default=rungs[0])


def _at(config: ControllerConfig, fine_scale: float, fine_window: float) -> ControllerState:
    """A state with the outputs that belong to these fine values."""
    return ControllerState(
        scale=snap_down(fine_scale, config.rungs),
        window=math.floor(fine_window + _ROUNDING),
        fine_scale=fine_scale,
        fine_window=fine_window,
    )


def _clamp(value: float, low: float, high: float) -> float:
    return min(max(value, low), high)


def _check_range(name: str, value: float, low: float, high: float) -> None:
    if not low <= value <= high:
        raise ConfigurationError(f"{name} {value} is outside {low}..{high}")


def _check_time(measured_ms: float) -> None:
    if not 0 <= measured_ms < math.inf:
        raise ConfigurationError(
            f"measured step time of {measured_ms} ms; expected a finite time of at least 0"
        )
