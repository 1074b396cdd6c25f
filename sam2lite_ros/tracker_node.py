"""The lifecycle node `tracker`: images in, masks out, before the deadline."""

import sys
import traceback
from collections.abc import Callable, Sequence
from time import monotonic
from typing import Any

import numpy as np
import rclpy
from diagnostic_msgs.msg import DiagnosticArray
from numpy.typing import NDArray
from rcl_interfaces.msg import SetParametersResult
from rclpy.clock import Clock, ClockType  # type: ignore[attr-defined]
from rclpy.exceptions import (
    InvalidParameterTypeException,
    InvalidParameterValueException,
    ParameterUninitializedException,
)
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.lifecycle import LifecycleNode, LifecycleState, TransitionCallbackReturn
from rclpy.parameter import Parameter
from rclpy.qos import QoSProfile, qos_profile_sensor_data
from rclpy.qos_overriding_options import QoSOverridingOptions
from sensor_msgs.msg import CompressedImage, Image

from sam2lite_core.errors import Sam2LiteError
from sam2lite_core.tracker import Tracker
from sam2lite_core.types import Prompt, TrackResult
from sam2lite_ros.counters import Counts, StepReport
from sam2lite_ros.diagnostics import Health, diagnose
from sam2lite_ros.outputs import Outputs
from sam2lite_ros.parameters import (
    SPECIFICATIONS,
    TrackerParameters,
    current_values,
    declare_parameters,
    refusal,
)
from sam2lite_ros.prompting import initial_prompts
from sam2lite_ros.services import OperatorInterface
from sam2lite_ros.tracker_setup import apply_live, build_tracker, warm_up
from sam2lite_ros.worker import TrackingWorker

THROTTLE_S = 5.0
"""A complaint that would come with every frame is logged once in so many seconds."""


INPUT_DEPTH = 30
"""Images that may wait for the executor: a second at 30 Hz. It takes them all at once and hands on the newest, so masks
are as fresh as with a depth of 1, but frames that are passed over are counted. On two overloaded cores a depth of 1
lost 4 to 25 of 60 VGA frames before anybody could count them."""


def input_qos() -> QoSProfile:
    """Sensor data, as deep as INPUT_DEPTH."""
    profile = qos_profile_sensor_data
    return QoSProfile(
        history=profile.history,
        depth=INPUT_DEPTH,
        reliability=profile.reliability,
        durability=profile.durability,
    )


class TrackerNode(LifecycleNode):
    """Configure builds the tracker, activate subscribes and starts the inference thread.

    rclpy drops exceptions of lifecycle callbacks without a word, so each goes through `_transition`, which
    logs them.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__("tracker", **options)
        declare_parameters(self)
        self._settings = TrackerParameters.from_values(current_values(self))
        self._tracker: Tracker | None = None
        self._tracking: TrackingWorker | None = None
        self._outputs: Outputs | None = None
        self._image_subscription: Any = None
        self._first_prompts: tuple[Prompt, ...] = ()
        self._labels: dict[int, str] = {}
        self._last_image = monotonic()
        self._previous_counts = Counts()
        self._operators = OperatorInterface(self, lambda: self._tracking, lambda: self.state_label)
        self._diagnostics_publisher = self.create_publisher(DiagnosticArray, "/diagnostics", 10)
        # Timers of the node's own clock stand still under use_sim_time until somebody publishes /clock.
        steady = Clock(clock_type=ClockType.STEADY_TIME)
        self._diagnostics_timer = self.create_timer(1.0, self._publish_diagnostics, clock=steady)
        self._autostart_timer = self.create_timer(0.0, self._autostart, clock=steady)
        self.add_on_set_parameters_callback(self._on_set_parameters)

    @property
    def state_label(self) -> str:
        """The primary lifecycle state: active, inactive or unconfigured."""
        if self._tracking is not None:
            return "active"
        return "inactive" if self._tracker is not None else "unconfigured"

    # Lifecycle
    # -----------------------------------------------------------------------------------------------------

    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Read the parameters, load the model, warm it up; on failure everything is taken back."""
        return self._transition("configure", self._configure, undo=self._release)

    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Subscribe, and start the inference thread."""

        def activate() -> None:
            super(TrackerNode, self).on_activate(state)
            self._activate()

        return self._transition("activate", activate, undo=self._halt)

    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Stop taking images; objects and memory stay for the next activation."""

        def deactivate() -> None:
            self._halt()
            super(TrackerNode, self).on_deactivate(state)

        return self._transition("deactivate", deactivate)

    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Let go of the model and the publishers."""
        return self._transition("clean up", self._release)

    def on_shutdown(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Let go of everything, from whatever state."""
        return self._transition("shut down", self.close)

    def on_error(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Go back to unconfigured, from where the node can be brought up again."""
        return self._transition("recover", self.close)

    def _transition(
        self, name: str, work: Callable[[], None], undo: Callable[[], None] | None = None
    ) -> TransitionCallbackReturn:
        """Run a transition's work; FAILURE keeps the state that the node was in, and the log says why."""
        try:
            work()
            return TransitionCallbackReturn.SUCCESS
        except Sam2LiteError as error:
            self.get_logger().error(f"cannot {name}: {error}")
        except Exception:
            self.get_logger().error(f"cannot {name}: unexpected error\n{traceback.format_exc()}")
        if undo is None:
            return TransitionCallbackReturn.ERROR
        undo()
        return TransitionCallbackReturn.FAILURE

    def _configure(self) -> None:
        self._settings = TrackerParameters.from_values(current_values(self))
        self._first_prompts = initial_prompts(self._settings.initial_prompt)
        tracker = build_tracker(self._settings)
        warm_up(tracker)
        self._outputs = Outputs(self, self._settings.mask_encoding)
        self._tracker = tracker
        self._labels = {}
        self.get_logger().info(f"configured: {self._settings.variant}, {self._settings.backend} backend")

    def _activate(self) -> None:
        assert self._tracker is not None
        self._previous_counts = Counts()
        self._last_image = monotonic()
        self._tracking = TrackingWorker(
            self._tracker, self._settings, self._first_prompts, self._labels, self, self._now_ns
        )
        # A remapping names the base topic; the compressed one follows it, as image_transport does.
        base = self.resolve_topic_name("image")
        compressed = self._settings.image_transport == "compressed"
        self._image_subscription = self.create_subscription(
            CompressedImage if compressed else Image,
            f"{base}/compressed" if compressed else "image",
            self._on_image,
            input_qos(),
            qos_overriding_options=QoSOverridingOptions.with_default_policies(),
        )
        self.get_logger().info(f"active: waiting for images on {self._image_subscription.topic_name}")

    def _halt(self) -> None:
        """Unsubscribe and end the inference thread."""
        if self._image_subscription is not None:
            self.destroy_subscription(self._image_subscription)
            self._image_subscription = None
        worker, self._tracking = self._tracking, None
        if worker is not None:
            worker.stop()
            self._first_prompts = worker.first_prompts_pending

    def _release(self) -> None:
        self._tracker = None
        outputs, self._outputs = self._outputs, None
        if outputs is not None:
            outputs.destroy()

    def close(self) -> None:
        """End the inference thread and let go of the model; harmless when repeated."""
        self._halt()
        self._release()

    def _autostart(self) -> None:
        """Bring the node up once, when asked to; a failure is logged and leaves the node to its managers."""
        self.destroy_timer(self._autostart_timer)
        if not self._settings.autostart or self.state_label != "unconfigured":
            return
        if self.trigger_configure() == TransitionCallbackReturn.SUCCESS:
            self.trigger_activate()

    # Parameters
    # ----------------------------------------------------------------------------------------------------

    def _on_set_parameters(self, changes: list[Parameter[Any]]) -> SetParametersResult:
        """Accept or refuse with a reason; rclpy lets an exception from here escape into the executor."""
        try:
            asked = {change.name: change.value for change in changes}
            values = current_values(self)
            reason = refusal(values, asked, active=self._tracking is not None)
            if reason is None:
                self._take_over({**values, **{name: asked[name] for name in asked if name in SPECIFICATIONS}})
                return SetParametersResult(successful=True)
        except Exception as error:
            reason = f"unexpected {type(error).__name__}: {error}"
        return SetParametersResult(successful=False, reason=reason)

    def _take_over(self, values: dict[str, Any]) -> None:
        """Apply live parameters; the others wait for the next configure."""
        tracker, worker = self._tracker, self._tracking
        if tracker is None:
            return
        settings = TrackerParameters.from_values(values)
        if worker is None:
            apply_live(tracker, settings)
        else:
            worker.apply(settings, lambda: apply_live(tracker, settings)).add_done_callback(self._log_failure)
        self._settings = settings

    def _log_failure(self, work: Any) -> None:
        if work.exception() is not None:
            self.get_logger().error(f"parameter not applied: {work.exception()}")

    # Frames
    # --------------------------------------------------------------------------------------------------------

    def _now_ns(self) -> int:
        return int(self.get_clock().now().nanoseconds)

    def _on_image(self, message: Image | CompressedImage) -> None:
        self._last_image = monotonic()
        if self._tracking is not None:
            self._tracking.receive([message, *self._images_waiting()])

    def _images_waiting(self) -> list[Image | CompressedImage]:
        """Take what else has arrived, oldest first, as the executor itself would one wake-up at a time."""
        subscription = self._image_subscription
        waiting = []
        with subscription.handle:
            while (taken := subscription.handle.take_message(subscription.msg_type, False)) is not None:
                waiting.append(taken[0])
        return waiting

    def publish(
        self,
        message: Image | CompressedImage,
        image: NDArray[np.uint8],
        result: TrackResult,
        labels: dict[int, str],
    ) -> None:
        """Publish a result; called from the inference thread."""
        if self._outputs is not None:
            self._outputs.publish(message, image, result, labels)

    def report(self, message: Image | CompressedImage, report: StepReport) -> None:
        """Publish how a step went; called from the inference thread."""
        if self._outputs is not None:
            self._outputs.report(message, report)

    def frame_failed(self, error: Exception) -> None:
        """Log a frame that could not be used; called from the inference thread."""
        kind = "" if isinstance(error, Sam2LiteError) else f"unexpected {type(error).__name__}: "
        self.get_logger().error(f"frame not tracked: {kind}{error}", throttle_duration_sec=THROTTLE_S)

    def frame_too_old(self, age_ms: float, limit_ms: float) -> None:
        """Log a frame dropped for its age; called from the inference thread."""
        self.get_logger().warning(
            f"frame dropped: {age_ms:.0f} ms old, max_frame_age_ms is {limit_ms:.0f}; replays need use_sim_time",
            throttle_duration_sec=THROTTLE_S,
        )

    # Diagnostics
    # ---------------------------------------------------------------------------------------------------

    def _publish_diagnostics(self) -> None:
        counts, latencies, last_error = self._previous_counts, [], ""
        if self._tracking is not None:
            counters = self._tracking.counters
            counts, latencies, last_error = counters.snapshot(), counters.latencies(), counters.last_error
        topic = "" if self._image_subscription is None else self._image_subscription.topic_name
        health = Health(
            name=self.get_fully_qualified_name(),
            state=self.state_label,
            topic=topic,
            publishers=self.count_publishers(topic) if topic else 0,
            silent_s=monotonic() - self._last_image,
            counts=counts,
            before=self._previous_counts,
            latencies=latencies,
            last_error=last_error,
            objects=0 if self._tracker is None else len(self._tracker.object_ids),
        )
        self._previous_counts = counts
        message = DiagnosticArray(status=[diagnose(health)])
        message.header.stamp = self.get_clock().now().to_msg()
        self._diagnostics_publisher.publish(message)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the node until it is told to stop.

    Returns:
        0 after an ordinary stop, 2 when a parameter given at start is wrong.
    """
    rclpy.init(args=None if arguments is None else list(arguments))
    node: TrackerNode | None = None
    try:
        node = TrackerNode()
        executor = SingleThreadedExecutor()
        executor.add_node(node)
        executor.spin()
    except (KeyboardInterrupt, ExternalShutdownException):
        pass
    except (
        InvalidParameterTypeException,
        InvalidParameterValueException,
        ParameterUninitializedException,
        Sam2LiteError,
    ) as error:
        print(f"tracker: {error}", file=sys.stderr)
        return 2
    finally:
        if node is not None:
            node.close()
            node.destroy_node()
        rclpy.try_shutdown()
    return 0


if __name__ == "__main__":
    sys.exit(main())
