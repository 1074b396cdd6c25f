"""SAM2-Lite's ROS-free core: follow prompted objects through a video with a bounded memory.

Importing this package costs numpy and OpenCV only; torch and onnx are imported by the parts that need them
(`sam2lite_core.model`, `sam2lite_core.export`), never on a robot's frame path.
"""

import os

# ONNX Runtime's wheels for Linux send events to their maker from version 1.29 on, and look at this when they are
# imported. A robot's tracker tells nobody what it runs; whoever wants otherwise sets the variable to 0.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

__version__ = "0.1.0"
