"""SAM2-Lite's ROS-free core: follow prompted objects through a video with a bounded memory.

The names below are loaded when they are first used. They cost numpy and OpenCV; a runtime is imported when a model is
opened, torch and onnx only by the parts that need them, never on a robot's frame path.
"""

import importlib
import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sam2lite_core.tracker import Tracker
    from sam2lite_core.types import Prompt, TrackResult
    from sam2lite_core.video import VideoProcessor

__all__ = ["Prompt", "TrackResult", "Tracker", "VideoProcessor", "__version__"]

__version__ = "0.1.0"

# ONNX Runtime's wheels for Linux send events to their maker from version 1.29 on, and look at this when they are
# imported. A robot's tracker tells nobody what it runs; whoever wants otherwise sets the variable to 0.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

if not TYPE_CHECKING:

    def __getattr__(name: str) -> object:
        """Load a public name with its module (PEP 562)."""
        modules = {"Prompt": "types", "TrackResult": "types", "Tracker": "tracker", "VideoProcessor": "video"}
        if name not in modules:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        return getattr(importlib.import_module(f"{__name__}.{modules[name]}"), name)
