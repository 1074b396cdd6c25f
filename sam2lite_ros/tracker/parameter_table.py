"""Table of the tracker node's parameters: default, description and range of each."""

from dataclasses import dataclass
from typing import Any

from rcl_interfaces.msg import FloatingPointRange, IntegerRange, ParameterDescriptor

from sam2lite_core.backends.registry import BACKENDS, FRAME_BACKENDS
from sam2lite_core.control.base import ControllerConfig
from sam2lite_core.control.registry import CONTROLLERS, DEFAULT_CONTROLLER
from sam2lite_core.frame.resolution import RUNGS
from sam2lite_core.graph_io import POLICIES
from sam2lite_core.tracking.settings import MAX_BUDGET, PRECISIONS
from sam2lite_core.types import MAX_OBJECT_ID
from sam2lite_core.variants import DEFAULT_POLICY, MAX_WINDOW, MIN_WINDOW, VARIANTS
from sam2lite_ros.conversions import MASK_ENCODINGS

IMAGE_TRANSPORTS = ("raw", "compressed")


@dataclass(frozen=True)
class Specification:
    """Declaration of one parameter.

    Attributes:
        default: value when nobody sets one; also fixes the type, except that a list is declared untyped (rclpy finds
            no type in an empty one).
        description: shown by `ros2 param describe`.
        bounds: smallest and largest number allowed.
        choices: the strings allowed.
        live: takes effect while the node is active; else it is read at configure.
        read_only: is read at start only.
    """

    default: Any
    description: str
    bounds: tuple[float, float] | None = None
    choices: tuple[str, ...] | None = None
    live: bool = False
    read_only: bool = False


_CONTROLLER = ControllerConfig()
_SCALES = (RUNGS[0], RUNGS[-1])
_WINDOWS = (MIN_WINDOW, MAX_WINDOW)

SPECIFICATIONS: dict[str, Specification] = {
    "variant": Specification("tiny", "Size of the student.", choices=tuple(VARIANTS)),
    "backend": Specification(
        "auto",
        "Runtime that runs the student, auto for the best one that is here; transformers runs the SAM 2.1 or EdgeTAM "
        "in model_path, at its own size.",
        choices=("auto", *BACKENDS, *FRAME_BACKENDS),
    ),
    "model_path": Specification(
        "",
        "Folder or file of weights to use instead of those shipped; empty = shipped. For backend transformers, a "
        "folder in Hugging Face's layout.",
    ),
    "device": Specification(
        "auto", "Device for the backend: auto, cpu, cuda or cuda:N, as far as it has one; auto lets it choose."
    ),
    "precision": Specification(
        "auto", "Numeric precision of the weights; auto takes the backend's best.", choices=PRECISIONS
    ),
    "threads": Specification(0, "CPU threads of the backend; 0 lets it choose.", bounds=(0, 256)),
    "memory_budget": Specification(
        0, "Most tokens in the memory bank, 64 to 1024; 0 takes the variant's own.", bounds=(0, MAX_BUDGET)
    ),
    "memory_policy": Specification(DEFAULT_POLICY, "What decides which memory tokens are kept.", choices=POLICIES),
    "image_transport": Specification(
        "raw", "raw subscribes to image, compressed to image/compressed.", choices=IMAGE_TRANSPORTS
    ),
    "mask_encoding": Specification(
        "mono8", "Encoding of ~/mask; mono8 holds object ids up to 255, mono16 all.", choices=tuple(MASK_ENCODINGS)
    ),
    "autostart": Specification(
        False, "Configure and activate without a lifecycle manager, once, at start.", read_only=True
    ),
    "frame_deadline_ms": Specification(
        33.3,
        "Time from a frame's arrival at the node to its published mask, ms: waiting, decoding, tracking, publishing; "
        "not the way from the camera. 0 = no deadline.",
        bounds=(0.0, 10_000.0),
        live=True,
    ),
    "controller": Specification(
        DEFAULT_CONTROLLER,
        "How the deadline is kept: plain lowers the resolution by the paper's PID; predictive chooses it from a "
        "latency table, measured at configure or, when chosen while active, at once, which holds frames up for "
        "seconds; off holds max_scale.",
        choices=tuple(CONTROLLERS),
        live=True,
    ),
    "kp": Specification(_CONTROLLER.kp, "Proportional gain of the controller.", bounds=(0.0, 10.0), live=True),
    "ki": Specification(_CONTROLLER.ki, "Integral gain of the controller.", bounds=(0.0, 10.0), live=True),
    "kd": Specification(_CONTROLLER.kd, "Derivative gain of the controller.", bounds=(0.0, 10.0), live=True),
    "min_scale": Specification(
        _CONTROLLER.min_scale, "Lowest resolution scale; 1 is a short side of 480 px.", bounds=_SCALES, live=True
    ),
    "max_scale": Specification(_CONTROLLER.max_scale, "Highest resolution scale.", bounds=_SCALES, live=True),
    "min_window": Specification(_CONTROLLER.min_window, "Smallest memory window, frames.", bounds=_WINDOWS, live=True),
    "max_window": Specification(_CONTROLLER.max_window, "Largest memory window, frames.", bounds=_WINDOWS, live=True),
    "presence_threshold": Specification(
        0.5, "Presence score below which an object is LOST.", bounds=(0.0, 1.0), live=True
    ),
    "max_frame_age_ms": Specification(
        0.0, "Frames whose stamp is older than this are dropped; 0 keeps all.", bounds=(0.0, 60_000.0), live=True
    ),
    "initial_prompt.object_id": Specification(
        1,
        "Id of the object prompted on the first frame; 0 = each label of mask_file is an object of that id.",
        bounds=(0, MAX_OBJECT_ID),
    ),
    "initial_prompt.points": Specification([], "Pixels x0, y0, x1, y1, ... on the first frame."),
    "initial_prompt.point_labels": Specification([], "1 = on the object, 0 = not, one for each point; empty = all 1."),
    "initial_prompt.box": Specification([], "Pixels x0, y0, x1, y1 on the first frame."),
    "initial_prompt.mask_file": Specification("", "PNG as large as the first frame; zero is background."),
}
"""Every parameter of the node (QoS overrides and use_sim_time are declared by rclpy)."""


def descriptor(specification: Specification) -> ParameterDescriptor:
    """Describe a parameter to ROS: text, range, read-only flag."""
    when = "Read at start." if specification.read_only else "Live." if specification.live else "Read at configure."
    message = ParameterDescriptor(
        description=f"{specification.description} {when}",
        read_only=specification.read_only,
        dynamic_typing=isinstance(specification.default, list),
    )
    if specification.choices is not None:
        message.additional_constraints = "one of: " + ", ".join(specification.choices)
    if specification.bounds is not None:
        low, high = specification.bounds
        if isinstance(specification.default, float):
            message.floating_point_range = [FloatingPointRange(from_value=float(low), to_value=float(high))]
        else:
            message.integer_range = [IntegerRange(from_value=int(low), to_value=int(high), step=1)]
    return message
