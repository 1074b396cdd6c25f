"""Settings of a tracker, checked in one place."""

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, TypedDict

from sam2lite_core.backends.base import Backend, BackendSettings
from sam2lite_core.control.base import ControllerConfig
from sam2lite_core.control.registry import DEFAULT_CONTROLLER
from sam2lite_core.errors import ConfigurationError
from sam2lite_core.frame.resolution import BASE_SHORT_SIDE, RUNGS
from sam2lite_core.graph_io import POLICIES
from sam2lite_core.variants import DEFAULT_POLICY, PATCH, get_variant

MIN_BUDGET, MAX_BUDGET = 64, 1024
PRECISIONS = ("auto", "fp32", "fp16", "int8")
AUTO = "auto"


class TrackerArguments(TypedDict, total=False):
    """Keyword arguments of `Tracker` besides the variant; its constructor explains them."""

    backend: str | Backend
    precision: str
    deadline_ms: float | None
    scale: float | None
    memory_budget: int | None
    memory_policy: str
    base_short_side: int
    threads: int | None
    model_path: str | Path | None
    presence_threshold: float
    device: str
    controller: str | None


class SettingChanges(TypedDict, total=False):
    """Keyword arguments of `Tracker.configure`: fields of `TrackerSettings` and of `ControllerConfig`."""

    controller: str
    scale: float | None
    presence_threshold: float
    deadline_ms: float | None
    kp: float
    ki: float
    kd: float
    min_scale: float
    max_scale: float
    min_window: int
    max_window: int
    setpoint_share: float
    max_change: float
    integral_limit: float
    derivative_memory: float
    climb_after: int


@dataclass(frozen=True)
class TrackerSettings:
    """Settings that may change while a tracker runs.

    Attributes:
        controller: name of the deadline controller, or auto.
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

    def changed(self, changes: Mapping[str, Any]) -> "TrackerSettings":
        """Return these settings with changes, by the names of `SettingChanges`.

        Raises:
            ConfigurationError: an unknown name, or a value outside its range.
        """
        known = {field.name for field in fields(ControllerConfig)}
        own = {name: value for name, value in changes.items() if name not in known}
        unknown = own.keys() - SettingChanges.__annotations__
        if unknown:
            raise ConfigurationError(f"unknown setting {', '.join(sorted(unknown))}")
        limits = {name: value for name, value in changes.items() if name in known}
        return replace(self, deadlines=replace(self.deadlines, **limits), **own)


def resolve_controller(settings: TrackerSettings, fixed_size: bool) -> str:
    """Return the controller's name; for auto the default: plain if the scale is fixed, else predictive.

    Auto means off where nothing can be controlled: without a deadline, or with a model of one size.
    """
    if settings.controller != AUTO:
        return settings.controller
    if settings.deadlines.deadline_ms is None or fixed_size:
        return "off"
    return DEFAULT_CONTROLLER if settings.scale is None else "plain"


@dataclass(frozen=True)
class ModelSettings:
    """Settings of a tracker's model, fixed when it is loaded; `Tracker` explains them.

    Raises:
        UnknownVariantError, ConfigurationError: a value outside its range.
    """

    variant: str = "tiny"
    backend: str | Backend = "auto"
    precision: str = "auto"
    memory_budget: int | None = None
    memory_policy: str = DEFAULT_POLICY
    base_short_side: int = BASE_SHORT_SIDE
    threads: int | None = None
    model_path: str | Path | None = None
    device: str = "auto"

    def __post_init__(self) -> None:
        check_budget(self.budget)
        check_policy(self.memory_policy)
        if not 2 * PATCH <= self.base_short_side <= 4096:
            raise ConfigurationError(f"base_short_side {self.base_short_side} is not in {2 * PATCH}..4096 px")
        if self.precision not in PRECISIONS:
            raise ConfigurationError(f"unknown precision {self.precision!r}; choose one of {', '.join(PRECISIONS)}")
        if self.threads is not None and self.threads < 1:
            raise ConfigurationError(f"threads {self.threads} is below 1; leave it out to let the runtime choose")

    @property
    def budget(self) -> int:
        """Memory budget B in tokens, the variant's unless another was chosen."""
        default = get_variant(self.variant).memory_budget
        return default if self.memory_budget is None else self.memory_budget

    def for_backend(self, folder: Path) -> BackendSettings:
        """Return the backend's settings for the model in a folder."""
        return BackendSettings(folder, self.budget, self.precision, self.threads, self.device)


def check_budget(budget: int) -> int:
    """Return the memory budget B in tokens.

    Raises:
        ConfigurationError: outside 64..1024.
    """
    if isinstance(budget, bool) or not isinstance(budget, int) or not MIN_BUDGET <= budget <= MAX_BUDGET:
        raise ConfigurationError(f"memory_budget {budget} is not a whole number in {MIN_BUDGET}..{MAX_BUDGET}")
    return budget


def check_policy(policy: str) -> str:
    """Return the memory policy.

    Raises:
        ConfigurationError: an unknown one.
    """
    if policy not in POLICIES:
        raise ConfigurationError(f"unknown memory_policy {policy!r}; choose one of {', '.join(POLICIES)}")
    return policy


def check_foreign(backend: str, model: ModelSettings, settings: TrackerSettings) -> None:
    """Refuse settings that a foreign model would ignore.

    Raises:
        ConfigurationError: a setting of the student's that differs from its default, a scale, or a controller.
    """
    default = ModelSettings()
    students = ("variant", "memory_budget", "memory_policy", "base_short_side")
    given = {name: getattr(model, name) for name in students if getattr(model, name) != getattr(default, name)}
    if settings.scale is not None:
        given["scale"] = settings.scale
    if settings.controller not in (AUTO, "off"):
        given["controller"] = settings.controller
    if given:
        names = ", ".join(f"{name} {value!r}" for name, value in given.items())
        raise ConfigurationError(
            f"backend {backend} runs a model with a size and a memory of its own, which knows no {names}; leave it out"
        )
