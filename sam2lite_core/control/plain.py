"""The paper's controller (section 3.4, equations 11 and 12), and the one that does nothing."""

from dataclasses import replace

from sam2lite_core.control.base import ControllerConfig, ControllerState, check_times, clamp, state_at
from sam2lite_core.errors import ConfigurationError


class OffController:
    """Keep the highest scale and the longest window, whatever was measured; see `Controller`."""

    def __init__(self, config: ControllerConfig) -> None:
        """Use the limits of a configuration; its deadline is not looked at."""
        self._config = config

    def start(self) -> ControllerState:
        """Return the only state."""
        return state_at(self._config, self._config.rungs[-1], float(self._config.max_window))

    def resume(self, state: ControllerState) -> ControllerState:
        """Return the only state."""
        return self.start()

    def update(self, state: ControllerState, measured_ms: float, overhead_ms: float = 0.0) -> ControllerState:
        """Return the only state."""
        check_times(measured_ms, overhead_ms)
        return self.start()


class DeadlineController:
    """The paper's PID controller (equations 11 and 12): relative error in, change of scale out; it sums overload only.

    The scale gives way first. Only on the lowest rung does the window shrink, and it is the first to grow again.
    """

    def __init__(self, config: ControllerConfig) -> None:
        """Use a configuration.

        Raises:
            ConfigurationError: it has no deadline.
        """
        if config.deadline_ms is None:
            raise ConfigurationError("controller 'plain' needs a deadline; set deadline_ms or choose controller 'off'")
        self._config = config
        self._setpoint_ms = config.setpoint_share * config.deadline_ms

    def start(self) -> ControllerState:
        """Return the highest scale and the longest window."""
        return state_at(self._config, self._config.rungs[-1], float(self._config.max_window))

    def resume(self, state: ControllerState) -> ControllerState:
        """Move a state inside this configuration's limits; errors against another deadline are dropped."""
        config = self._config
        return state_at(
            config,
            clamp(state.fine_scale, config.rungs[0], config.rungs[-1]),
            clamp(state.fine_window, config.min_window, config.max_window),
        )

    def update(self, state: ControllerState, measured_ms: float, overhead_ms: float = 0.0) -> ControllerState:
        """Return the state after a step that took `measured_ms`, with the overhead, of wall clock."""
        check_times(measured_ms, overhead_ms)
        config = self._config
        # One stalled frame counts as an overload of 100 %, no more: the integral would not forget it for a second.
        actual_ms = measured_ms + overhead_ms
        error = clamp((self._setpoint_ms - actual_ms) / self._setpoint_ms, -1.0, 1.0)
        jump = 0.0 if state.error is None else error - state.error
        derivative = config.derivative_memory * state.derivative + (1 - config.derivative_memory) * jump
        integral = state.integral
        if not self._saturated(state, error):
            # Overload is summed, room is not: hoarded, it would carry the scale past the rung that just fits, and
            # noise would then take one deadline in thirty.
            integral = clamp(integral + error, -config.integral_limit, 0.0)
        change = config.kp * error + config.ki * integral + config.kd * derivative
        change = clamp(change, -config.max_change, config.max_change)
        fine_scale, fine_window = self._apply(state, change)
        return replace(state_at(config, fine_scale, fine_window), integral=integral, derivative=derivative, error=error)

    def _saturated(self, state: ControllerState, error: float) -> bool:
        """Tell if the error asks for more than the limits allow; summing it would only delay the way back."""
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
        return clamp(fine_scale, low, high), clamp(fine_window, config.min_window, config.max_window)
