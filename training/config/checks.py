"""Checks of single values, shared by the configuration classes."""

from sam2lite_core.errors import ConfigurationError


def within(name: str, value: float, low: float, high: float) -> None:
    """Refuse a value outside low..high with a ConfigurationError that names it."""
    if not low <= value <= high:
        raise ConfigurationError(f"{name} is {value}, expected {low}..{high}")


def at_least(name: str, value: int, low: int) -> None:
    """Refuse a value below `low` with a ConfigurationError that names it."""
    if value < low:
        raise ConfigurationError(f"{name} is {value}, expected at least {low}")
