"""Settings of a tracker, checked in one place."""

from dataclasses import dataclass

from sam2lite_core.control.base import ControllerConfig
from sam2lite_core.errors import ConfigurationError
from sam2lite_core.frame.resolution import BASE_SHORT_SIDE, RUNGS
from sam2lite_core.graph_io import POLICIES
from sam2lite_core.variants import DEFAULT_POLICY, PATCH

MIN_BUDGET, MAX_BUDGET = 64, 1024
PRECISIONS = ("auto", "fp32", "fp16", "int8")


@dataclass(frozen=True)
class TrackerSettings:
    """What may change while a tracker runs.

    Attributes:
        controller: name of the deadline controller.
        deadlines: its configuration: deadline, gains, limits of scale and window.
        scale: fixes the resolution scale, 0.5..1; None leaves it to the controller.
        presence_threshold: an object whose presence is below it is LOST, 0..1.

    Raises:
        ConfigurationError: a value outside its range.
    """

    controller: str
    deadlines: ControllerConfig
    scale: float | None = None
    presence_threshold: float = 0.5

    def __post_init__(self) -> None:
        if self.scale is not None and not RUNGS[0] <= self.scale <= RUNGS[-1]:
            raise ConfigurationError(f"scale {self.scale} is not in {RUNGS[0]}..{RUNGS[-1]}")
        if self.scale is not None and self.controller == "predictive":
            raise ConfigurationError(
                f"scale {self.scale} is fixed, which leaves controller 'predictive' nothing to choose; "
                "choose 'off', or limit the scales by min_scale and max_scale"
            )
        if not 0.0 <= self.presence_threshold <= 1.0:
            raise ConfigurationError(f"presence_threshold {self.presence_threshold} is not in 0..1")


def check_budget(budget: int) -> int:
    """Return the memory budget B in tokens.

    Raises:
        ConfigurationError: outside 64..1024.
    """
    if isinstance(budget, bool) or not isinstance(budget, int) or not MIN_BUDGET <= budget <= MAX_BUDGET:
        raise ConfigurationError(
            f"memory_budget {budget} is not a whole number in {MIN_BUDGET}..{MAX_BUDGET}"
        )
    return budget


def check_policy(policy: str) -> str:
    """Return the memory policy.

    Raises:
        ConfigurationError: an unknown one.
    """
    if policy not in POLICIES:
        raise ConfigurationError(f"unknown memory_policy {policy!r}; choose one of {', '.join(POLICIES)}")
    return policy


def check_short_side(pixels: int) -> int:
    """Return the short side of the network's input at scale 1, px.

    Raises:
        ConfigurationError: below two patches or beyond 4096.
    """
    if not 2 * PATCH <= pixels <= 4096:
        raise ConfigurationError(f"base_short_side {pixels} is not in {2 * PATCH}..4096 px")
    return pixels


def check_threads(threads: int | None) -> int | None:
    """Return the number of CPU threads.

    Raises:
        ConfigurationError: below 1.
    """
    if threads is not None and threads < 1:
        raise ConfigurationError(f"threads {threads} is below 1; leave it out to let the runtime choose")
    return threads


def check_precision(precision: str) -> str:
    """Return the precision's name.

    Raises:
        ConfigurationError: an unknown one.
    """
    if precision not in PRECISIONS:
        raise ConfigurationError(f"unknown precision {precision!r}; choose one of {', '.join(PRECISIONS)}")
    return precision


@dataclass(frozen=True)
class StudentChoices:
    """What a caller may choose about the student alone; a foreign model has none of it."""

    variant: str = "tiny"
    memory_budget: int | None = None
    memory_policy: str = DEFAULT_POLICY
    base_short_side: int = BASE_SHORT_SIDE


def check_foreign(backend: str, choices: StudentChoices, wanted: TrackerSettings) -> None:
    """Refuse what a foreign model would not heed.

    Args:
        backend: its name.
        choices, wanted: what the caller asked for.

    Raises:
        ConfigurationError: a choice that differs from its default, a scale, or a controller.
    """
    usual = StudentChoices()
    given = {name: value for name, value in vars(choices).items() if value != getattr(usual, name)}
    if wanted.scale is not None:
        given["scale"] = wanted.scale
    if wanted.controller != "off":
        given["controller"] = wanted.controller
    if given:
        names = ", ".join(f"{name} {value!r}" for name, value in given.items())
        raise ConfigurationError(
            f"backend {backend} runs a model with a size and a memory of its own, which knows no {names}; leave it out"
        )
