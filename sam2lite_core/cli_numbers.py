"""Lists of numbers on the command line."""

from sam2lite_core.errors import ConfigurationError


def numbers(text: str, name: str) -> tuple[float, ...]:
    """Comma-separated numbers of an option.

    Raises:
        ConfigurationError: something else; the message names the option.
    """
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError:
        raise ConfigurationError(f"{name} {text!r} is not a list of numbers like 0.5,1") from None
