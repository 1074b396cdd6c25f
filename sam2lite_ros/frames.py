"""What the inference thread takes in, and whom it tells what came out."""

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from sensor_msgs.msg import CompressedImage, Image

from sam2lite_core.types import TrackResult
from sam2lite_ros.counters import StepReport


@dataclass(frozen=True)
class ReceivedFrame:
    """A message and when it came.

    Attributes:
        message: raw or compressed image.
        stamp_ns: header stamp, nanoseconds.
        sequence: position in the order of arrival since activation, from 1.
        arrived: `perf_counter` at the subscription callback, seconds.
        receive_ms: from the header's stamp to the callback; 0 when the stamp is zero.
    """

    message: Image | CompressedImage
    stamp_ns: int
    sequence: int
    arrived: float
    receive_ms: float


class Listener(Protocol):
    """What the node does with what comes out; called from the inference thread."""

    def publish(
        self,
        message: Image | CompressedImage,
        image: NDArray[np.uint8],
        result: TrackResult,
        labels: dict[int, str],
    ) -> None:
        """Publish a result under its message's header."""

    def report(self, message: Image | CompressedImage, report: StepReport) -> None:
        """Publish how the step went."""

    def frame_failed(self, error: Exception) -> None:
        """Log that a frame could not be used."""

    def frame_too_old(self, age_ms: float, limit_ms: float) -> None:
        """Log that a frame was dropped for its age."""
