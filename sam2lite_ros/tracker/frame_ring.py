"""Hold the last second of frames, so that a prompt on an old picture lands on that picture."""

import threading
from collections import deque
from contextlib import suppress

import cv2
import numpy as np
from numpy.typing import NDArray
from sensor_msgs.msg import CompressedImage, Image

from sam2lite_core.errors import InvalidPromptError
from sam2lite_ros.conversions import to_rgb

HELD_SHORT_SIDE = 480
"""Short side in pixels to which held frames are reduced: the model sees no more (scale 1)."""

HELD_NANOSECONDS = 1_000_000_000
MAX_FRAMES = 240
"""Bound on the frames held when stamps do not advance as they should (equal stamps, kilohertz sources)."""


class HeldFrame:
    """One frame of the ring, kept as its message until `reduce`; safe to use from any thread.

    Attributes:
        stamp_ns: the header's stamp in nanoseconds.
        sequence: position in the order of arrival, from 1.
    """

    def __init__(self, message: Image | CompressedImage, stamp_ns: int, sequence: int) -> None:
        self.stamp_ns = stamp_ns
        self.sequence = sequence
        self._content: Image | CompressedImage | tuple[NDArray[np.uint8], tuple[int, int]] = message

    def load(self) -> tuple[NDArray[np.uint8], tuple[int, int]]:
        """Return the (H, W, 3) uint8 RGB image at no more than scale 1, and the (height, width) of the source.

        InvalidFrameError for a bad message.
        """
        content = self._content
        if isinstance(content, tuple):
            return content
        image = to_rgb(content)
        return shrink(image, HELD_SHORT_SIDE), (image.shape[0], image.shape[1])

    def reduce(self) -> None:
        """Make a large raw message small, since a second of them would fill hundreds of megabytes.

        A bad one stays as it is: the inference thread logs it, and a prompt on it gets the same error.
        """
        content = self._content
        if isinstance(content, Image) and min(content.height, content.width) > HELD_SHORT_SIDE:
            with suppress(Exception):
                self._content = self.load()


class FrameRing:
    """Frames by stamp, none more than a second older than the newest; safe to use from any thread."""

    def __init__(self, max_frames: int = MAX_FRAMES) -> None:
        self._frames: deque[HeldFrame] = deque(maxlen=max_frames)
        self._lock = threading.Lock()

    def push(self, frame: HeldFrame) -> None:
        """Add the newest frame and let go of those that are now too old."""
        with self._lock:
            if self._frames and frame.stamp_ns < self._frames[-1].stamp_ns:
                # Time went back: a bag or clip started over, which makes stamps ambiguous.
                self._frames.clear()
            self._frames.append(frame)
            while self._frames[0].stamp_ns < frame.stamp_ns - HELD_NANOSECONDS:
                self._frames.popleft()

    def find(self, stamp_ns: int) -> HeldFrame:
        """Return the frame with exactly this stamp; 0 means the newest.

        Raises:
            InvalidPromptError: no frame yet, or none with this stamp; the message names the stamps held.
        """
        with self._lock:
            if not self._frames:
                raise InvalidPromptError("no image has been received yet, so there is nothing to prompt on")
            if stamp_ns == 0:
                return self._frames[-1]
            for frame in reversed(self._frames):
                if frame.stamp_ns == stamp_ns:
                    return frame
            oldest, newest = self._frames[0].stamp_ns, self._frames[-1].stamp_ns
        raise InvalidPromptError(
            f"no frame is held with stamp {seconds(stamp_ns)}: the oldest held is {seconds(oldest)}, "
            f"the newest {seconds(newest)}; prompt on one of those or leave the stamp zero"
        )

    def since(self, sequence: int) -> list[HeldFrame]:
        """Return the frames that arrived after this one, oldest first."""
        with self._lock:
            return [frame for frame in self._frames if frame.sequence > sequence]


def seconds(stamp_ns: int) -> str:
    """Write a stamp as ROS tools print it: seconds, a dot, nine digits."""
    return f"{stamp_ns // 1_000_000_000}.{stamp_ns % 1_000_000_000:09d}"


def shrink(image: NDArray[np.uint8], short_side: int) -> NDArray[np.uint8]:
    """Scale an (H, W, 3) image down to this short side in pixels; a smaller one is returned as it is."""
    height, width = image.shape[:2]
    factor = short_side / min(height, width)
    if factor >= 1:
        return image
    size = (max(1, round(width * factor)), max(1, round(height * factor)))
    return np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), dtype=np.uint8)
