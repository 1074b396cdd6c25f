"""Lifecycle node `tracker`: images in, masks out, before the deadline."""

import sys
import traceback
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import rclpy
from rcl_interfaces.msg import SetParametersResult
from rclpy.clock import Clock, ClockType  # type: ignore[attr-defined]  # not in rclpy's __all__
from rclpy.exceptions import ParameterException
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.lifecycle import LifecycleNode, LifecycleState, TransitionCallbackReturn
from rclpy.parameter import Parameter
from sensor_msgs.msg import CompressedImage, Image

from sam2lite_core.errors import BackendError, Sam2LiteError
from sam2lite_core.tracker import Tracker
from sam2lite_core.types import Prompt
from sam2lite_ros.process_memory import keep_freed_memory, spare_what_stays
from sam2lite_ros.spinning import spin_until_shutdown
from sam2lite_ros.tracker.counters import FrameCounters, FrameLog
from sam2lite_ros.tracker.diagnostics import Diagnostics, Health
from sam2lite_ros.tracker.inputs import ImageInput
from sam2lite_ros.tracker.outputs import Outputs
from sam2lite_ros.tracker.parameter_table import SPECIFICATIONS
from sam2lite_ros.tracker.parameters import TrackerParameters, current_values, declare_parameters, refusal
from sam2lite_ros.tracker.prompts import initial_prompts
from sam2lite_ros.tracker.services import OperatorInterface
from sam2lite_ros.tracker.setup import apply_live, build_tracker, warm_up
from sam2lite_ros.tracker.worker import TrackingWorker


class TrackerNode(LifecycleNode):
    """Lifecycle node: configure builds the tracker, activate subscribes and starts the inference thread.

    rclpy drops exceptions of lifecycle callbacks silently, so each runs in `_transition`, which logs them.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__("tracker", **options)
        declare_parameters(self)
        self._settings = TrackerParameters.from_values(current_values(self))
        self._tracker: Tracker | None = None
        self._tracking: TrackingWorker | None = None
        self._outputs: Outputs | None = None
        self._images: ImageInput | None = None
        self._first_prompts: tuple[Prompt, ...] = ()
        self._labels: dict[int, str] = {}
        self._frame_log = FrameLog(self.get_logger())
        self._operators = OperatorInterface(self, lambda: self._tracking, lambda: self.state_label)
        # Timers of the node's own clock stand still under use_sim_time until somebody publishes /clock.
        steady = Clock(clock_type=ClockType.STEADY_TIME)
        self._diagnostics = Diagnostics(self, self._health)
        self._diagnostics_timer = self.create_timer(1.0, self._each_second, clock=steady)
        self._autostart_timer = self.create_timer(0.0, self._autostart, clock=steady)
        self.add_on_set_parameters_callback(self._on_set_parameters)

    @property
    def state_label(self) -> str:
        """The primary lifecycle state: active, inactive or unconfigured."""
        if self._tracking is not None:
            return "active"
        return "inactive" if self._tracker is not None else "unconfigured"

    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Read the parameters, load the model, warm it up; undo all on failure."""
        return self._transition("configure", self._configure, undo=self._release)

    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Subscribe, and start the inference thread."""
        enable = partial(super().on_activate, state)
        return self._transition("activate", enable, self._activate, undo=self._halt)

    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Stop taking images; objects and memory stay for the next activation."""
        return self._transition("deactivate", self._halt, partial(super().on_deactivate, state))

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
        self, name: str, *work: Callable[[], Any], undo: Callable[[], None] | None = None
    ) -> TransitionCallbackReturn:
        """Run a transition's work; FAILURE keeps the state that the node was in, and the log says why."""
        try:
            for part in work:
                part()
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
        self._first_prompts = initial_prompts(self._settings.initial_prompt, self._settings.mask_encoding)
        tracker = build_tracker(self._settings)
        warm_up(tracker)
        self._outputs = Outputs(self, self._settings.mask_encoding)
        self._tracker = tracker
        self._labels = {}
        backend = tracker.backend
        self.get_logger().info(f"configured: {backend.info.variant}, {backend.name} backend")
        if tracker.fixed_size and self._settings.frame_deadline_ms is not None:
            self.get_logger().warning(
                f"backend {backend.name} has one size only: frame_deadline_ms is watched, and nothing keeps it"
            )

    def _activate(self) -> None:
        assert self._tracker is not None and self._outputs is not None
        self._tracking = TrackingWorker(
            self._tracker,
            self._settings,
            self._first_prompts,
            self._labels,
            self._outputs,
            self._frame_log,
            lambda: int(self.get_clock().now().nanoseconds),
        )
        self._diagnostics.restart()
        self._images = ImageInput(self, self._settings.image_transport, self._receive)
        self.get_logger().info(f"active: waiting for images on {self._images.topic}")

    def _halt(self) -> None:
        """Unsubscribe and end the inference thread.

        Raises:
            BackendError: its step hangs; model and thread are given up, and only a new configure helps.
        """
        images, self._images = self._images, None
        if images is not None:
            images.destroy()
        worker, self._tracking = self._tracking, None
        if worker is None:
            return
        ended = worker.stop()
        self._first_prompts = worker.first_prompts_pending
        if not ended:
            self._release()
            raise BackendError("the backend hangs: its step is given up, and the model with it; configure anew")

    def _release(self) -> None:
        self._tracker = None
        outputs, self._outputs = self._outputs, None
        if outputs is not None:
            outputs.destroy()

    def close(self) -> None:
        """End the inference thread and let go of the model; harmless when repeated."""
        try:
            self._halt()
        except BackendError as error:
            self.get_logger().error(str(error))
        self._release()

    def _autostart(self) -> None:
        """Bring the node up once, when asked to; a failure is logged and leaves the node to its managers."""
        self.destroy_timer(self._autostart_timer)
        if not self._settings.autostart or self.state_label != "unconfigured":
            return
        if self.trigger_configure() == TransitionCallbackReturn.SUCCESS:
            self.trigger_activate()

    def _on_set_parameters(self, changes: "list[Parameter[Any]]") -> SetParametersResult:
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
        tracker = self._tracker
        if tracker is None:
            return
        settings = self._settings.with_live(TrackerParameters.from_values(values))
        if self._tracking is None:
            apply_live(tracker, settings)
        else:
            work = self._tracking.apply(settings, lambda: apply_live(tracker, settings))
            work.add_done_callback(self._log_failure)
        self._settings = settings

    def _log_failure(self, work: Any) -> None:
        if work.exception() is not None:
            self.get_logger().error(f"parameter not applied: {work.exception()}")

    def _receive(self, messages: Sequence[Image | CompressedImage]) -> None:
        self._diagnostics.image_arrived()
        if self._tracking is not None:
            self._tracking.receive(messages)

    def _each_second(self) -> None:
        if self._tracking is not None:
            self._tracking.refuse_while_hanging()
        self._diagnostics.publish()

    def _health(self) -> Health:
        """Return the figures of the moment for diagnostics."""
        topic = "" if self._images is None else self._images.topic
        worker = self._tracking
        counters = FrameCounters() if worker is None else worker.counters
        kept = len(self._tracker.object_ids) if worker is None and self._tracker is not None else 0
        return Health(
            name=self.get_fully_qualified_name(),
            state=self.state_label,
            topic=topic,
            publishers=self.count_publishers(topic) if topic else 0,
            counts=counters.snapshot(),
            latencies=counters.latencies(),
            last_error=counters.last_error,
            objects=kept if worker is None else worker.objects,
            stalled_s=0.0 if worker is None else worker.watchdog.stalled_s,
        )


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the node; return 0 after an ordinary stop, 2 when a parameter given at start is wrong."""
    keep_freed_memory()
    rclpy.init(args=None if arguments is None else list(arguments))
    node: TrackerNode | None = None
    try:
        node = TrackerNode()
        spare_what_stays()
        executor = SingleThreadedExecutor()
        executor.add_node(node)
        spin_until_shutdown(executor)
    except (KeyboardInterrupt, ExternalShutdownException):
        pass
    except (ParameterException, Sam2LiteError) as error:
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
