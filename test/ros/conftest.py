"""A tracker in a process of its own, and an operator who talks to it over DDS."""

import os
import threading
import time
from types import SimpleNamespace

import numpy as np
import pytest
import rclpy
from diagnostic_msgs.msg import DiagnosticArray
from geometry_msgs.msg import Point, PointStamped
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState, GetState
from rcl_interfaces.srv import SetParameters
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.parameter import Parameter
from rclpy.signals import SignalHandlerOptions
from sam2lite_ros.msg import TrackedObjectArray, TrackerStatus
from sam2lite_ros.srv import AddObject, RemoveObject
from sensor_msgs.msg import CompressedImage, Image, RegionOfInterest
from std_srvs.srv import Trigger

from sam2lite_core.scenes.clip import render_clip
from sam2lite_ros.conversions import rgb_to_image, rgb_to_jpeg
from sam2lite_ros.sessions.processes import isolate, process
from sam2lite_ros.tracker.node import TrackerNode

PATIENCE_S = 90.0
"""No test passes or fails by speed; this only ends one that hangs."""

TOPICS = {
    "mask": ("tracker/mask", Image),
    "png": ("tracker/mask/compressed", CompressedImage),
    "objects": ("tracker/objects", TrackedObjectArray),
    "overlay": ("tracker/overlay", Image),
    "jpeg": ("tracker/overlay/compressed", CompressedImage),
    "status": ("tracker/status", TrackerStatus),
    "diagnostics": ("/diagnostics", DiagnosticArray),
}


@pytest.fixture(scope="module")
def isolated_ros():
    """A random domain on this machine only."""
    before = dict(os.environ)
    isolate()
    yield
    os.environ.clear()
    os.environ.update(before)


class Operator:
    """Publishes images, listens to everything, calls every service of the tracker in its namespace."""

    def __init__(self, namespace="/"):
        self.context = rclpy.Context()
        rclpy.init(context=self.context, args=[], signal_handler_options=SignalHandlerOptions.NO)
        self.node = Node("operator", context=self.context, namespace=namespace)
        self.executor = SingleThreadedExecutor(context=self.context)
        self.executor.add_node(self.node)
        self.seen = SimpleNamespace(**{name: [] for name in TOPICS})
        for name, (topic, kind) in TOPICS.items():
            self.node.create_subscription(kind, topic, getattr(self.seen, name).append, 50)
        self.images = self.node.create_publisher(Image, "image", 10)
        self.compressed = self.node.create_publisher(CompressedImage, "image/compressed", 10)
        self.points = self.node.create_publisher(PointStamped, "tracker/prompt_point", 10)
        self.clicks = self.node.create_publisher(Point, "tracker/prompt_click", 10)
        self.boxes = self.node.create_publisher(RegionOfInterest, "tracker/prompt_box", 10)
        self.clients = {
            name: self.node.create_client(kind, f"tracker/{name}")
            for name, kind in {
                "change_state": ChangeState,
                "get_state": GetState,
                "set_parameters": SetParameters,
                "add_object": AddObject,
                "remove_object": RemoveObject,
                "reset": Trigger,
            }.items()
        }
        self.stamp_ns = 10_000_000_000

    def close(self):
        """Leave the graph; harmless when repeated."""
        if not self.context.ok():
            return
        self.executor.shutdown()
        self.node.destroy_node()
        rclpy.shutdown(context=self.context)

    def until(self, condition, what, patience_s=PATIENCE_S):
        """Spin until it holds; fails with what was waited for."""
        limit = time.monotonic() + patience_s
        while not condition():
            assert time.monotonic() < limit, f"waited in vain for {what}"
            self.executor.spin_once(timeout_sec=0.05)

    def spin(self, seconds):
        limit = time.monotonic() + seconds
        while time.monotonic() < limit:
            self.executor.spin_once(timeout_sec=0.05)

    def call(self, name, request):
        future = self.ask(name, request)
        self.until(future.done, f"an answer of {name}")
        return future.result()

    def ask(self, name, request):
        """Call without waiting; returns the future."""
        client = self.clients[name]
        self.until(client.service_is_ready, f"service {name}")
        return client.call_async(request)

    def change(self, transition):
        return self.call("change_state", ChangeState.Request(transition=Transition(id=transition))).success

    def state(self):
        # Asked while the node is just being discovered, it may answer before it knows where to: Fast DDS gives up after
        # 100 ms and the answer is lost (ros2/rmw_fastrtps#390, #467). A question that changes nothing can be repeated.
        futures = []
        limit = time.monotonic() + PATIENCE_S
        while not any(future.done() for future in futures):
            assert time.monotonic() < limit, f"waited in vain for an answer of get_state, asked {len(futures)} times"
            futures.append(self.ask("get_state", GetState.Request()))
            self.spin_until(futures[-1], 10.0)
        return next(future.result() for future in futures if future.done()).current_state.label

    def spin_until(self, future, seconds):
        """Spin until it is done, at most for so long."""
        limit = time.monotonic() + seconds
        while not future.done() and time.monotonic() < limit:
            self.executor.spin_once(timeout_sec=0.05)

    def set(self, **values):
        """Set parameters one by one; returns the results in order. `__` in a name stands for a dot."""
        parameters = [
            Parameter(name.replace("__", "."), value=value).to_parameter_msg() for name, value in values.items()
        ]
        return self.call("set_parameters", SetParameters.Request(parameters=parameters)).results

    def bring_down(self):
        """Unconfigured, whatever the state was."""
        if self.state() == "active":
            assert self.change(Transition.TRANSITION_DEACTIVATE)
        if self.state() == "inactive":
            assert self.change(Transition.TRANSITION_CLEANUP)
        assert self.state() == "unconfigured"

    def bring_up(self):
        """Active without objects, and matched with this node in both directions."""
        if self.state() == "unconfigured":
            assert self.change(Transition.TRANSITION_CONFIGURE)
        if self.state() == "inactive":
            assert self.change(Transition.TRANSITION_ACTIVATE)
        assert self.call("reset", Trigger.Request()).success
        self.until(
            lambda: self.images.get_subscription_count() + self.compressed.get_subscription_count() == 1,
            "the image subscription",
        )
        self.until(lambda: self.node.count_publishers("tracker/mask") == 1, "the mask publisher")
        self.until(lambda: self._mask_of(self.blank()) is not None, "the first mask")

    def _mask_of(self, image):
        """Publish until one comes through: discovery is not over for both sides at the same moment."""
        stamp = self.publish(image)
        self.spin(0.5)
        return next((mask for mask in self.seen.mask if mask.header.stamp == stamp), None)

    @staticmethod
    def blank():
        return np.full((48, 64, 3), 90, np.uint8)

    def publish(self, image, *, compressed=False, edit=lambda message: None, step_ms=33):
        """Publish an image under the next stamp, which is returned."""
        message = rgb_to_jpeg(image) if compressed else rgb_to_image(image)
        self.stamp_ns += step_ms * 1_000_000
        message.header.stamp.sec, message.header.stamp.nanosec = divmod(self.stamp_ns, 1_000_000_000)
        message.header.frame_id = "left_camera"
        edit(message)
        (self.compressed if compressed else self.images).publish(message)
        return message.header.stamp

    def track(self, image, **options):
        """Publish an image and wait for its mask, which is returned with its header."""
        stamp = self.publish(image, **options)
        return self.one("mask", stamp)

    def one(self, topic, stamp):
        """Wait for the newest message with this stamp on a topic."""
        found = []

        def look():
            found[:] = [message for message in getattr(self.seen, topic) if message.header.stamp == stamp]
            return bool(found)

        self.until(look, f"{topic} of stamp {stamp}")
        return found[-1]


@pytest.fixture(scope="module")
def tracker(isolated_ros, tmp_path_factory):
    """The tracker's process, shared by the tests of a module: each leaves it alive."""
    with process("tracker", {"frame_deadline_ms": 0.0, "threads": 1}, tmp_path_factory.mktemp("tracker")) as running:
        yield running
        assert running.exit_code is None, running.log_tail()


@pytest.fixture(scope="module")
def make_operator():
    """Makes operators, and takes them off the graph at the end."""
    made = []

    def make(namespace="/"):
        made.append(Operator(namespace))
        return made[-1]

    yield make
    for operator in made:
        operator.close()


@pytest.fixture(scope="module")
def connected(tracker, make_operator):
    return make_operator()


@pytest.fixture
def operator(connected):
    """The operator of an active tracker that follows nothing."""
    connected.bring_up()
    for messages in vars(connected.seen).values():
        messages.clear()
    return connected


DEFAULTS = {"frame_deadline_ms": 0.0, "threads": 1}


class FaultyBackend:
    """A fake around the real backend: each step first does what the test wants, and may not get past that."""

    def __init__(self, backend, before):
        self._backend, self._before = backend, before

    def __getattr__(self, name):
        return getattr(self._backend, name)

    def step(self, inputs):
        self._before()
        return self._backend.step(inputs)


class Gate:
    """Holds steps up until it is opened."""

    def __init__(self):
        self.entered, self.opened = threading.Semaphore(0), threading.Event()

    def __call__(self):
        self.entered.release()
        assert self.opened.wait(90.0)


class InProcess:
    """The node, spun by a thread of its own."""

    def __init__(self, namespace="/", arguments=(), **parameters):
        self.context = rclpy.Context()
        rclpy.init(context=self.context, args=[], signal_handler_options=SignalHandlerOptions.NO)
        values = {**DEFAULTS, **parameters}
        self.node = TrackerNode(
            context=self.context,
            namespace=namespace,
            cli_args=["--ros-args", *arguments],
            parameter_overrides=[Parameter(name.replace("__", "."), value=value) for name, value in values.items()],
        )
        self._executor = SingleThreadedExecutor(context=self.context)
        self._executor.add_node(self.node)
        self._running = True
        self._thread = threading.Thread(target=self._spin, daemon=True)
        self._thread.start()

    def _spin(self):
        while self._running:
            self._executor.spin_once(timeout_sec=0.1)

    def before_each_step(self, fault):
        """Let a fault in: called by the inference thread before each step of the backend that is now loaded."""
        follower = self.node._tracker._follower
        if isinstance(follower.backend, FaultyBackend):
            follower.backend._before = fault
        else:
            follower.backend = FaultyBackend(follower.backend, fault)

    def hang(self):
        """Make the next step of the backend hang; returns the gate that lets it go on."""
        gate = Gate()
        self.before_each_step(gate)
        return gate

    def close(self):
        self._running = False
        self._thread.join()
        self.node.close()
        self._executor.shutdown()
        self.node.destroy_node()
        rclpy.shutdown(context=self.context)


@pytest.fixture(scope="module")
def in_process(isolated_ros):
    """Makes trackers in this process, where faults can be let in; on the graph like any other."""
    made = []

    def make(**options):
        made.append(InProcess(**options))
        return made[-1]

    yield make
    for running in made:
        running.close()


@pytest.fixture(scope="session")
def frames():
    """(8, 96, 128, 3) uint8 and their (8, 96, 128) true label maps."""
    clip = render_clip(3, height=96, width=128, frames=8)
    return clip.frames, clip.label_maps
