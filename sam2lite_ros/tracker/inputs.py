"""Subscribe to images, raw or compressed."""

from collections.abc import Callable, Sequence
from typing import Any

from rclpy.node import Node
from rclpy.qos import HistoryPolicy, QoSProfile, ReliabilityPolicy
from rclpy.qos_overriding_options import QoSOverridingOptions
from sensor_msgs.msg import CompressedImage, Image

INPUT_DEPTH = 30
"""Images that may wait for the executor: a second at 30 Hz. All are taken at once and the newest is tracked, so masks
are as fresh as with a depth of 1, which lost 4 to 25 of 60 VGA frames uncounted on two overloaded cores."""

THROTTLE_S = 5.0
"""Seconds between two logs of a message that would come with every frame."""


class ImageInput:
    """Subscription to `image` or `image/compressed`, from construction to `destroy`; `topic` is the resolved name."""

    def __init__(
        self, node: Node, transport: str, receive: Callable[[Sequence[Image | CompressedImage]], None]
    ) -> None:
        """Subscribe; `transport` is raw or compressed.

        `receive` gets all images that have arrived, oldest first, on the executor's thread.
        """
        self._node = node
        self._receive = receive
        compressed = transport == "compressed"
        # A remapping names the base topic; the compressed one follows it, as with image_transport.
        topic = f"{node.resolve_topic_name('image')}/compressed" if compressed else "image"
        self._subscription: Any = node.create_subscription(
            CompressedImage if compressed else Image,
            topic,
            self._on_image,
            # Sensor data but for the depth.
            QoSProfile(history=HistoryPolicy.KEEP_LAST, depth=INPUT_DEPTH, reliability=ReliabilityPolicy.BEST_EFFORT),
            qos_overriding_options=QoSOverridingOptions.with_default_policies(),
        )
        self.topic = str(self._subscription.topic_name)

    def destroy(self) -> None:
        """Unsubscribe."""
        self._node.destroy_subscription(self._subscription)

    def _on_image(self, message: Image | CompressedImage) -> None:
        try:
            self._receive([message, *self._waiting()])
        except Exception as error:
            # An exception in a callback ends the executor, and with it the node.
            self._node.get_logger().error(
                f"image not taken: {type(error).__name__}: {error}", throttle_duration_sec=THROTTLE_S
            )

    def _waiting(self) -> list[Image | CompressedImage]:
        """Take what else has arrived, as the executor itself would one wake-up at a time."""
        waiting = []
        handle = self._subscription.handle
        with handle:
            while (taken := handle.take_message(self._subscription.msg_type, False)) is not None:
                waiting.append(taken[0])
        return waiting
