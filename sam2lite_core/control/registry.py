"""Keeping the deadline: from measured step times to resolution scale and memory window (paper section 3.4).

Controllers are pure: a state and a measurement go in, a new state comes out. None reads a clock, so a device
that throttles can be simulated in a test.
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
"""The controller of whoever gives a deadline and chooses none: under CPU load it missed nothing after the first
second where plain missed one deadline in twenty, and it changes the resolution a tenth as often
(docs/benchmarks/speed.md, controller.md). It measures the device first, which takes seconds."""


def make_controller(name: str, config: ControllerConfig, table: LatencyTable | None = None) -> Controller:
    """Build a controller.

    Args:
        name: one of `CONTROLLERS`.
        config: its configuration.
        table: step times of this device, which `predictive` needs.

    Raises:
        ConfigurationError: no controller has this name, or the configuration does not suit it.
    """
    check_controller(name)
    return CONTROLLERS[name](config, table)


def check_controller(name: str) -> str:
    """Return a controller's name.

    Raises:
        ConfigurationError: no controller has this name.
    """
    if name not in CONTROLLERS:
        raise ConfigurationError(f"unknown controller {name!r}; choose one of {', '.join(CONTROLLERS)}")
    return name
