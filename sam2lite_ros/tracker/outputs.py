"""Publish masks, objects, overlays and status, each only while somebody listens."""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from rclpy.lifecycle import LifecycleNode
from rclpy.qos import HistoryPolicy, QoSProfile, ReliabilityPolicy
from rclpy.qos_overriding_options import QoSOverridingOptions
from sensor_msgs.msg import CompressedImage, Image, RegionOfInterest

from sam2lite_core.media.overlay import draw_overlay
from sam2lite_core.types import TrackedObject, TrackResult
from sam2lite_ros.conversions import label_map_to_image, label_map_to_png, rgb_to_image, rgb_to_jpeg
from sam2lite_ros.msg import TrackedObject as TrackedObjectMessage
from sam2lite_ros.msg import TrackedObjectArray, TrackerStatus
from sam2lite_ros.tracker.counters import Counts

_TOPICS: dict[str, Any] = {
    "~/mask": Image,
    "~/mask/compressed": CompressedImage,
    "~/objects": TrackedObjectArray,
    "~/overlay": Image,
    "~/overlay/compressed": CompressedImage,
    "~/status": TrackerStatus,
}


class Outputs:
    """The node's result publishers, from configure to clean-up; the inference thread publishes."""

    def __init__(self, node: LifecycleNode, mask_encoding: str) -> None:
        self._node = node
        self._mask_encoding = mask_encoding
        self._publishers = {
            topic: node.create_lifecycle_publisher(
                kind,
                topic,
                # Reliable, as most viewers ask; depth 1, as an old mask is of no use. rclpy writes overrides into it.
                QoSProfile(history=HistoryPolicy.KEEP_LAST, depth=1, reliability=ReliabilityPolicy.RELIABLE),
                qos_overriding_options=QoSOverridingOptions.with_default_policies(),
            )
            for topic, kind in _TOPICS.items()
        }

    def destroy(self) -> None:
        """Remove the publishers from the graph."""
        for publisher in self._publishers.values():
            self._node.destroy_lifecycle_publisher(publisher)
        self._publishers = {}

    def publish(
        self, message: Image | CompressedImage, image: NDArray[np.uint8], result: TrackResult, labels: dict[int, str]
    ) -> None:
        """Publish a result under the header of its input message.

        The overlay needs the (H, W, 3) uint8 RGB image; `labels` maps object ids to the operator's labels.
        """
        if self._wanted("~/mask"):
            self._send("~/mask", message, label_map_to_image(result.label_map, self._mask_encoding))
        if self._wanted("~/mask/compressed"):
            self._send("~/mask/compressed", message, label_map_to_png(result.label_map, self._mask_encoding))
        if self._wanted("~/objects"):
            objects = [object_message(entry, labels.get(entry.object_id, "")) for entry in result.objects]
            self._send("~/objects", message, TrackedObjectArray(objects=objects))
        if self._wanted("~/overlay") or self._wanted("~/overlay/compressed"):
            names = {object_id: label for object_id, label in labels.items() if label}
            picture = draw_overlay(image, result.label_map, result.objects, names=names)
            if self._wanted("~/overlay"):
                self._send("~/overlay", message, rgb_to_image(picture, "bgr8"))
            if self._wanted("~/overlay/compressed"):
                self._send("~/overlay/compressed", message, rgb_to_jpeg(picture))

    def publish_status(self, message: Image | CompressedImage, counts: Counts, **fields: float) -> None:
        """Publish the counters and `fields`, the other fields of TrackerStatus by name, under the input's header."""
        if self._wanted("~/status"):
            frames = {f"frames_{name}": getattr(counts, name) for name in ("received", "processed", "dropped")}
            status = TrackerStatus(deadlines_missed=counts.deadlines_missed, **frames, **fields)
            self._send("~/status", message, status)

    def _wanted(self, topic: str) -> bool:
        return bool(self._publishers[topic].get_subscription_count() > 0)

    def _send(self, topic: str, source: Image | CompressedImage, message: Any) -> None:
        message.header = source.header
        self._publishers[topic].publish(message)


def object_message(entry: TrackedObject, label: str) -> TrackedObjectMessage:
    """Make the message of one object; `box` is half open, as RegionOfInterest is."""
    x0, y0, x1, y1 = entry.box
    return TrackedObjectMessage(
        object_id=entry.object_id,
        label=label,
        state=int(entry.state),
        score=float(entry.score),
        box=RegionOfInterest(x_offset=int(x0), y_offset=int(y0), width=int(x1 - x0), height=int(y1 - y0)),
        area=int(entry.area),
        centroid_x=float(entry.centroid[0]),
        centroid_y=float(entry.centroid[1]),
    )
