"""Keep the deadline: choose resolution scale and memory window from measured step times (paper section 3.4).

Controllers are pure: a state and a measurement go in, a new state comes out, and none reads a clock.
"""

from collections.abc import Callable

from sam2lite_core.control.base import Controller, ControllerConfig
from sam2lite_core.control.latency_table import LatencyTable
from sam2lite_core.control.plain import DeadlineController, OffController
from sam2lite_core.control.predictive import PredictiveController
from sam2lite_core.errors import ConfigurationError

CONTROLLERS: dict[str, Callable[[ControllerConfig, LatencyTable | None], Controller]] = {
    "plain": lambda config, _: DeadlineController(config),
    "predictive": PredictiveController,
    "off": lambda config, _: OffController(config),
}
"""Controllers by the name that parameters and options use."""

DEFAULT_CONTROLLER = "predictive"
"""The controller for a deadline without a choice; it first measures the device for some seconds. Under CPU load it
misses far fewer deadlines than plain (docs/benchmarks/controller.md)."""


def make_controller(name: str, config: ControllerConfig, table: LatencyTable | None = None) -> Controller:
    """Build a controller of `CONTROLLERS`; `predictive` needs the table of this device.

    Raises:
        ConfigurationError: no controller has this name, or the configuration does not suit it.
    """
    return CONTROLLERS[check_controller(name)](config, table)


def check_controller(name: str) -> str:
    """Return a controller's name; raise ConfigurationError if there is none of this name."""
    if name not in CONTROLLERS:
        raise ConfigurationError(f"unknown controller {name!r}; choose one of {', '.join(CONTROLLERS)}")
    return name
