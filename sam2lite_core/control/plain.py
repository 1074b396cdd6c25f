"""The paper's controller (section 3.4, equations 11 and 12), and the one that does nothing."""

from dataclasses import replace

from sam2lite_core.control.base import ControllerConfig, ControllerState, check_times, clamp, state_at
from sam2lite_core.errors import ConfigurationError


class OffController:
    """Keep the highest scale and the longest window, whatever was measured; see `Controller`."""

    def __init__(self, config: ControllerConfig) -> None:
        """Use the limits of a configuration, not its deadline."""
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
        return self._inside(state.fine_scale, state.fine_window)

    def update(self, state: ControllerState, measured_ms: float, overhead_ms: float = 0.0) -> ControllerState:
        """Return the state after a step that took `measured_ms`, with the overhead, of wall clock."""
        check_times(measured_ms, overhead_ms)
        config = self._config
        # One stalled frame counts as an overload of at most 100 %.
        actual_ms = measured_ms + overhead_ms
        error = clamp((self._setpoint_ms - actual_ms) / self._setpoint_ms, -1.0, 1.0)
        derivative = config.smoothed_derivative(state, error)
        integral = state.integral
        if not self._saturated(state, error):
            # Summed room would carry the scale past the rung that just fits.
            integral = clamp(integral + error, -config.integral_limit, 0.0)
        change = config.pid(error, integral, derivative)
        return replace(self._apply(state, change), integral=integral, derivative=derivative, error=error)

    def _saturated(self, state: ControllerState, error: float) -> bool:
        """Tell if the error asks for more than the limits allow; summing it would only delay the way back."""
        config = self._config
        if error > 0:
            return state.fine_scale >= config.rungs[-1] and state.fine_window >= config.max_window
        return state.fine_scale <= config.rungs[0] and state.fine_window <= config.min_window

    def _apply(self, state: ControllerState, change: float) -> ControllerState:
        """Spend a change of scale: downwards on the scale first, upwards on the window first."""
        config = self._config
        frames_per_scale = 1 / config.max_change  # the largest change moves the window by one frame
        fine_scale, fine_window = state.fine_scale, state.fine_window
        if change > 0:
            room = (config.max_window - fine_window) / frames_per_scale
            fine_window += min(change, room) * frames_per_scale
            fine_scale += max(change - room, 0.0)
        else:
            room = fine_scale - config.rungs[0]
            fine_scale -= min(-change, room)
            fine_window -= max(-change - room, 0.0) * frames_per_scale
        return self._inside(fine_scale, fine_window)

    def _inside(self, fine_scale: float, fine_window: float) -> ControllerState:
        """Return the state of these fine values, moved inside the limits."""
        config = self._config
        fine_scale = clamp(fine_scale, config.rungs[0], config.rungs[-1])
        return state_at(config, fine_scale, clamp(fine_window, config.min_window, config.max_window))
