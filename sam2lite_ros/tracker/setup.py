"""Build a tracker from the node's parameters, ready for its first frame."""

import numpy as np

from sam2lite_core.tracker import Tracker
from sam2lite_core.types import Prompt
from sam2lite_ros.tracker.parameters import CONTROLLER_SETTINGS, TrackerParameters

MODEL_SETTINGS = (
    "variant",
    "backend",
    "device",
    "precision",
    "memory_budget",
    "memory_policy",
    "threads",
    "model_path",
)
"""Parameters that the tracker takes by the same name when it is built."""

WARM_UP_SIZE = (480, 640)
"""(height, width) of the blank frames, pixels: VGA, what most cameras send."""


def build_tracker(parameters: TrackerParameters) -> Tracker:
    """Load the model, and measure the device where the controller asks for it.

    Raises:
        BackendError: an unknown backend, a device that it does not have, or a measurement that failed.
        ModelFileError: weights that are missing or not ours.
        ConfigurationError: a setting that the core refuses.
    """
    tracker = Tracker(**{name: getattr(parameters, name) for name in MODEL_SETTINGS})
    # With its controller: a deadline alone would have the device measured for a controller that nobody chose.
    apply_live(tracker, parameters)
    if parameters.controller == "predictive" and tracker.deadline_ms is None and not tracker.fixed_size:
        # Measured now, since a deadline may be set while frames flow.
        tracker.measure_latency()
    return tracker


def apply_live(tracker: Tracker, parameters: TrackerParameters) -> None:
    """Set the live parameters, between two frames; errors as `build_tracker` raises them."""
    tracker.configure(
        # Without a deadline there is nothing to control for, and a model with one size has nothing to control.
        controller="off" if parameters.frame_deadline_ms is None or tracker.fixed_size else parameters.controller,
        deadline_ms=parameters.frame_deadline_ms,
        presence_threshold=parameters.presence_threshold,
        **{name: getattr(parameters, name) for name in CONTROLLER_SETTINGS},
    )


def warm_up(tracker: Tracker) -> None:
    """Run both graphs once on blank frames: the first run allocates, which would cost the first deadlines."""
    blank = np.zeros((*WARM_UP_SIZE, 3), np.uint8)
    box = np.array([0, 0, WARM_UP_SIZE[1] / 2, WARM_UP_SIZE[0] / 2], np.float32)
    tracker.step(blank, [Prompt(object_id=1, box=box)])
    tracker.step(blank)
    tracker.reset()
