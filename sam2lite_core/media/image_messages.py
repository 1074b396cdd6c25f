"""Turn image messages of rclpy or `rosbags` into RGB frames, without cv_bridge; sizes are checked before decoding."""

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from sam2lite_core.errors import InvalidFrameError
from sam2lite_core.media.encoded_size import check_encoded_size
from sam2lite_core.media.pictures import to_rgb

Pixels = NDArray[np.uint8]

_PACKED: dict[str, tuple[int, int | None]] = {
    "rgb8": (3, None),
    "bgr8": (3, cv2.COLOR_BGR2RGB),
    "rgba8": (4, cv2.COLOR_RGBA2RGB),
    "bgra8": (4, cv2.COLOR_BGRA2RGB),
    "mono8": (1, cv2.COLOR_GRAY2RGB),
    "8UC1": (1, cv2.COLOR_GRAY2RGB),
    "8UC3": (3, cv2.COLOR_BGR2RGB),
    "8UC4": (4, cv2.COLOR_BGRA2RGB),
    "yuv422": (2, cv2.COLOR_YUV2RGB_UYVY),
    "uyvy": (2, cv2.COLOR_YUV2RGB_UYVY),
    "yuv422_yuy2": (2, cv2.COLOR_YUV2RGB_YUY2),
    "yuyv": (2, cv2.COLOR_YUV2RGB_YUY2),
}
"""Encoding to (bytes per pixel, OpenCV's conversion to RGB); 8UC3 and 8UC4 have OpenCV's channel order."""

SUPPORTED_ENCODINGS = tuple(_PACKED)
"""Encodings of sensor_msgs/Image that need no cv_bridge."""


def raw_to_rgb(message: Any) -> Pixels:
    """Turn a sensor_msgs/Image of SUPPORTED_ENCODINGS into an RGB frame.

    Returns:
        (H, W, 3) uint8 RGB. For rgb8 it is a view of the message's bytes: do not write to it.

    Raises:
        InvalidFrameError: unknown encoding, zero size, or fewer bytes than height, width and step announce.
    """
    encoding = message.encoding
    if encoding not in _PACKED:
        raise InvalidFrameError(f"encoding {encoding!r} is not supported; use one of {', '.join(SUPPORTED_ENCODINGS)}")
    bytes_per_pixel, convert = _PACKED[encoding]
    if bytes_per_pixel == 2 and message.width % 2:
        raise InvalidFrameError(f"{encoding} image is {message.width} px wide; 4:2:2 needs an even width")
    pixels = packed_view(message, bytes_per_pixel)
    return pixels if convert is None else np.asarray(cv2.cvtColor(pixels, convert), dtype=np.uint8)


def packed_view(message: Any, bytes_per_pixel: int) -> Pixels:
    """View the bytes of a sensor_msgs/Image as (H, W, bytes_per_pixel), without a copy and without the padding.

    Raises:
        InvalidFrameError: zero size, or fewer bytes than height, width and step announce.
    """
    height, width, step = message.height, message.width, message.step
    if height == 0 or width == 0:
        raise InvalidFrameError(f"image is {width}x{height}; both sides must be positive")
    row = width * bytes_per_pixel
    if step < row:
        raise InvalidFrameError(f"step is {step} bytes; a row of {width} {message.encoding} pixels needs {row}")
    if len(message.data) < step * height:
        raise InvalidFrameError(
            f"image data is {len(message.data)} bytes; {height} rows of {step} bytes need {step * height}"
        )
    rows = np.frombuffer(message.data, np.uint8, count=step * height).reshape(height, step)
    return rows[:, :row].reshape(height, width, bytes_per_pixel)


def compressed_to_rgb(message: Any) -> Pixels:
    """Decode a sensor_msgs/CompressedImage, JPEG or PNG.

    Returns:
        (H, W, 3) uint8 RGB. An EXIF orientation is ignored: prompts and masks are in the sensor's pixels.

    Raises:
        InvalidFrameError: no bytes, another format, more pixels than `MAX_PIXELS`, or bytes that do not decode.
    """
    described = f"compressed image ({message.format!r}, {len(message.data)} bytes)"
    if len(message.data) == 0:
        raise InvalidFrameError(f"{described} has no data")
    data = np.frombuffer(message.data, np.uint8)
    check_encoded_size(data.data.cast("B"), described)
    try:
        bgr = cv2.imdecode(data, cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)
    except cv2.error as error:
        raise InvalidFrameError(f"{described} cannot be decoded: {error}") from error
    if bgr is None:
        raise InvalidFrameError(f"{described} cannot be decoded; send JPEG or PNG")
    return to_rgb(bgr)
