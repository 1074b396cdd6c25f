"""Declare and check the tracker node's parameters."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rclpy.node import Node

from sam2lite_core.control.base import ControllerConfig
from sam2lite_core.errors import ConfigurationError
from sam2lite_core.tracking.settings import MAX_BUDGET, MIN_BUDGET
from sam2lite_ros.tracker.parameter_table import SPECIFICATIONS, Specification, descriptor

CONTROLLER_SETTINGS = ("kp", "ki", "kd", "min_scale", "max_scale", "min_window", "max_window")
"""Parameters that the controller takes by the same name."""


@dataclass(frozen=True)
class InitialPrompt:
    """Prompt of the first frame, if `given`.

    Attributes:
        object_id: 1..65535, or 0 when each label of the mask file is an object.
        points: (x, y) source pixels.
        point_labels: 1 or 0 for each point; empty when all are 1.
        box: x0, y0, x1, y1 source pixels, or None.
        mask_file: PNG of the source's size, or None.
    """

    object_id: int
    points: tuple[tuple[float, float], ...]
    point_labels: tuple[int, ...]
    box: tuple[float, float, float, float] | None
    mask_file: Path | None

    @property
    def given(self) -> bool:
        """True when there is a point, a box or a mask."""
        return bool(self.points) or self.box is not None or self.mask_file is not None


@dataclass(frozen=True)
class TrackerParameters:
    """A consistent set of values; SPECIFICATIONS describes each."""

    variant: str
    backend: str
    model_path: Path | None
    device: str
    precision: str
    threads: int | None
    memory_budget: int | None
    memory_policy: str
    image_transport: str
    mask_encoding: str
    autostart: bool
    frame_deadline_ms: float | None
    controller: str
    kp: float
    ki: float
    kd: float
    min_scale: float
    max_scale: float
    min_window: int
    max_window: int
    presence_threshold: float
    max_frame_age_ms: float | None
    initial_prompt: InitialPrompt

    @classmethod
    def from_values(cls, values: Mapping[str, Any]) -> "TrackerParameters":
        """Check a value for every name in SPECIFICATIONS, alone and against each other.

        Raises:
            ConfigurationError: naming the parameter, its value and what is allowed.
        """
        for name, specification in SPECIFICATIONS.items():
            _check_alone(name, values[name], specification)
        for limit in ("scale", "window"):
            low, high = values[f"min_{limit}"], values[f"max_{limit}"]
            if low > high:
                raise ConfigurationError(f"min_{limit} {low} is above max_{limit} {high}")
        ControllerConfig(
            deadline_ms=values["frame_deadline_ms"] or None, **{name: values[name] for name in CONTROLLER_SETTINGS}
        )
        if 0 < values["memory_budget"] < MIN_BUDGET:
            raise ConfigurationError(
                f"memory_budget {values['memory_budget']} is not 0 or {MIN_BUDGET} to {MAX_BUDGET}"
            )
        plain = {name: value for name, value in values.items() if "." not in name and name in SPECIFICATIONS}
        plain["model_path"] = Path(values["model_path"]) if values["model_path"] else None
        for optional in ("threads", "memory_budget", "frame_deadline_ms", "max_frame_age_ms"):
            plain[optional] = values[optional] or None
        return cls(**plain, initial_prompt=_initial_prompt(values))

    def with_live(self, newer: "TrackerParameters") -> "TrackerParameters":
        """Return these with the live values of `newer`; the rest holds until the next configure."""
        live = [name for name, specification in SPECIFICATIONS.items() if specification.live]
        return replace(self, **{name: getattr(newer, name) for name in live})


def _check_alone(name: str, value: Any, specification: Specification) -> None:
    default = specification.default
    allowed = (list, tuple) if isinstance(default, list) else type(default)
    if not isinstance(value, allowed) and not (isinstance(default, list) and hasattr(value, "tolist")):
        raise ConfigurationError(f"{name} is {value!r}; give a {type(default).__name__}")
    if specification.choices is not None and value not in specification.choices:
        raise ConfigurationError(f"{name} is {value!r}; choose one of {', '.join(specification.choices)}")
    if specification.bounds is not None and not specification.bounds[0] <= value <= specification.bounds[1]:
        raise ConfigurationError(f"{name} is {value}; give {specification.bounds[0]} to {specification.bounds[1]}")


def _numbers(name: str, values: Sequence[Any]) -> list[float]:
    if any(isinstance(value, bool) or not isinstance(value, (int, float)) for value in values):
        raise ConfigurationError(f"{name} is {list(values)}; give numbers")
    return [float(value) for value in values]


def _initial_prompt(values: Mapping[str, Any]) -> InitialPrompt:
    flat = _numbers("initial_prompt.points", values["initial_prompt.points"])
    labels = _numbers("initial_prompt.point_labels", values["initial_prompt.point_labels"])
    box = _numbers("initial_prompt.box", values["initial_prompt.box"])
    if len(flat) % 2:
        raise ConfigurationError(f"initial_prompt.points has {len(flat)} numbers; give x and y for each point")
    if labels and len(labels) != len(flat) // 2:
        raise ConfigurationError(
            f"initial_prompt.point_labels has {len(labels)} entries for {len(flat) // 2} points; give one each"
        )
    if any(label not in (0.0, 1.0) for label in labels):
        raise ConfigurationError(f"initial_prompt.point_labels is {labels}; give 1 or 0 for each point")
    if box and (len(box) != 4 or not (box[0] < box[2] and box[1] < box[3])):
        raise ConfigurationError(f"initial_prompt.box is {box}; give x0, y0, x1, y1 with x0 < x1 and y0 < y1")
    object_id, mask_file = values["initial_prompt.object_id"], values["initial_prompt.mask_file"]
    if object_id == 0 and (flat or box):
        raise ConfigurationError("initial_prompt.object_id is 0, which only goes with mask_file; give 1 or more")
    return InitialPrompt(
        object_id=object_id,
        points=tuple(zip(flat[::2], flat[1::2], strict=True)),
        point_labels=tuple(int(label) for label in labels),
        box=(box[0], box[1], box[2], box[3]) if box else None,
        mask_file=Path(mask_file) if mask_file else None,
    )


def declare_parameters(node: Node) -> None:
    """Declare every parameter on the node; command-line and file overrides take effect here."""
    for name, specification in SPECIFICATIONS.items():
        node.declare_parameter(name, specification.default, descriptor(specification))


def current_values(node: Node) -> dict[str, Any]:
    """Return the node's present values by name, unchecked."""
    return {name: node.get_parameter(name).value for name in SPECIFICATIONS}


def refusal(values: Mapping[str, Any], changes: Mapping[str, Any], active: bool) -> str | None:
    """Return the reason to refuse a change of parameters, or None to accept it.

    Args:
        values: the present value of every parameter.
        changes: the values asked for; names that are not ours are left to rclpy.
        active: True while frames are processed.
    """
    ours = {name: value for name, value in changes.items() if name in SPECIFICATIONS}
    if active:
        fixed = [name for name in ours if not SPECIFICATIONS[name].live and ours[name] != values[name]]
        if fixed:
            return f"{', '.join(fixed)} cannot change while the tracker is active: deactivate, set, clean up, configure"
    try:
        TrackerParameters.from_values({**values, **ours})
    except ConfigurationError as error:
        return str(error)
    return None
