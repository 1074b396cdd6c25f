"""SAM2-Lite's ROS-free core: follow prompted objects through a video with a bounded memory.

Importing this package costs numpy and OpenCV only; torch and onnx are imported by the parts that need them
(`sam2lite_core.model`, `sam2lite_core.export`), never on a robot's frame path.
"""

__version__ = "0.1.0"
