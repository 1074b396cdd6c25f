"""The tracker in a system: two of them on two cameras, simulated time, somebody else's QoS and security."""

from contextlib import ExitStack
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from rclpy.qos import ReliabilityPolicy
from rosgraph_msgs.msg import Clock
from sam2lite_ros.srv import AddObject

from sam2lite_core.scenes.clip import render_clip
from sam2lite_ros.conversions import label_map_to_image
from sam2lite_ros.sessions.processes import process

SECOND = 1_000_000_000
POLICY = Path(__file__).resolve().parents[2] / "config" / "tracker.policy.xml"


def test_two_trackers_follow_two_cameras_without_hearing_of_each_other(isolated_ros, make_operator, tmp_path):
    """Two children of one process, as a launch file with two namespaces starts them."""
    sizes = {"/left": (96, 128), "/right": (128, 192)}
    clips = {name: render_clip(3, height=h, width=w, frames=4) for name, (h, w) in sizes.items()}
    operators = {name: make_operator(name) for name in sizes}
    with ExitStack() as stack:
        trackers = {}
        for name in sizes:
            folder = tmp_path / name[1:]
            folder.mkdir()
            parameters = {"autostart": True, "frame_deadline_ms": 0.0, "threads": 1}
            trackers[name] = stack.enter_context(process("tracker", parameters, folder, namespace=name))
        for name, operator in operators.items():
            operator.until(lambda name=name: "active: waiting" in trackers[name].log_tail(), "autostart")
            assert f"{name}/image" in trackers[name].log_tail()
            operator.bring_up()
        for topics in (vars(operator.seen).values() for operator in operators.values()):
            for messages in topics:
                messages.clear()
        left, right = operators.values()
        left.track(clips["/left"].frames[0])
        mask = label_map_to_image((clips["/left"].label_maps[0] == 2).astype(np.uint8) * 255, "mono8")
        answer = left.call("add_object", AddObject.Request(mask=mask, object_id=7))
        assert answer.success, answer.message
        for number in range(1, 4):
            seen = {
                name: operator.one("objects", operator.track(clips[name].frames[number]).header.stamp).objects
                for name, operator in operators.items()
            }
            assert [[entry.object_id for entry in objects] for objects in seen.values()] == [[7], []]
        for name, operator in operators.items():
            assert {(mask.height, mask.width) for mask in operator.seen.mask} == {sizes[name]}
        # One is taken down; the other goes on.
        left.bring_down()
        right.track(clips["/right"].frames[0])
        told = {"left/tracker: tracking", "right/tracker: tracking"}
        right.until(lambda: {message.status[0].name for message in right.seen.diagnostics} == told, "both diagnoses")


@pytest.fixture
def simulated(in_process, make_operator):
    """A tracker that takes its time from /clock, and a function that sets the clock."""
    running = in_process(namespace="/simulated", use_sim_time=True)
    operator = make_operator("/simulated")
    clock = operator.node.create_publisher(Clock, "/clock", 10)

    def set_clock(stamp_ns):
        message = Clock()
        message.clock.sec, message.clock.nanosec = divmod(stamp_ns, SECOND)

        def there():
            clock.publish(message)
            return running.node.get_clock().now().nanoseconds == stamp_ns

        operator.until(there, "the clock to be set")

    return operator, set_clock


def test_ages_are_told_by_the_simulated_clock(simulated):
    operator, set_clock = simulated
    operator.bring_up()
    assert operator.set(max_frame_age_ms=500.0)[0].successful
    # The next stamp is 33 ms later: a picture of 100 ms ago, by a clock that says 1970.
    set_clock(operator.stamp_ns + 133_000_000)
    status = operator.one("status", operator.track(operator.blank()).header.stamp)
    assert status.receive_ms == pytest.approx(100.0)
    assert status.age_ms == pytest.approx(100.0)
    dropped = status.frames_dropped
    set_clock(operator.stamp_ns + SECOND)
    old = operator.publish(operator.blank())
    set_clock(operator.stamp_ns + SECOND)
    operator.until(
        lambda: any(
            entry.key == "frames dropped" and int(entry.value) > dropped
            for message in operator.seen.diagnostics
            if message.status[0].name.startswith("simulated")
            for entry in message.status[0].values
        ),
        "the old frame to be dropped",
    )
    set_clock(operator.stamp_ns + 40_000_000)
    operator.track(operator.blank())
    assert not any(mask.header.stamp == old for mask in operator.seen.mask)


@pytest.mark.parametrize("overridden", [False, True])
def test_qos_can_be_overridden_by_parameters(in_process, make_operator, overridden):
    name = "/overridden" if overridden else "/by_default"
    overrides = {
        f"qos_overrides.{name}/image.subscription.reliability": "reliable",
        f"qos_overrides.{name}/tracker/mask.publisher.reliability": "best_effort",
        f"qos_overrides.{name}/tracker/status.publisher.depth": 7,
    }
    running = in_process(namespace=name, **(overrides if overridden else {}))
    operator = make_operator(name)
    assert operator.change(1) and operator.change(3)
    operator.until(lambda: operator.images.get_subscription_count() == 1, "the subscription")
    (image,) = operator.node.get_subscriptions_info_by_topic(f"{name}/image")
    (mask,) = operator.node.get_publishers_info_by_topic(f"{name}/tracker/mask")
    expected = (ReliabilityPolicy.BEST_EFFORT, ReliabilityPolicy.RELIABLE)
    seen = (image.qos_profile.reliability, mask.qos_profile.reliability)
    assert seen == (expected[::-1] if overridden else expected)
    # The graph does not tell a depth; the parameter that rclpy declares is the one that it took.
    depth = running.node.get_parameter(f"qos_overrides.{name}/tracker/status.publisher.depth").value
    assert depth == (7 if overridden else 1)


# Topics and services that not every distribution or setting has.
SOMETIMES = {"/image/compressed", "/clock", "/parameter_events", "/tracker/get_type_description"}


def allowed(rule):
    """Full names that the shipped policy allows for a node `tracker` in namespace /."""
    root = ElementTree.parse(POLICY).getroot()
    (profile,) = root.iter("profile")
    assert profile.attrib == {"ns": "/", "node": "tracker"}
    lists = [entry for entry in profile if entry.attrib.get(rule) == "ALLOW"]
    names = [name.text for entry in lists for name in entry]
    assert len(names) == len(set(names))
    return {name if name[0] == "/" else f"/tracker{name[1:]}" if name[0] == "~" else f"/{name}" for name in names}


def test_the_security_policy_allows_exactly_what_the_node_does(in_process, make_operator):
    """`ros2 security` compiles it; here it is held against what the graph says of an active tracker."""
    in_process()
    operator = make_operator()
    operator.bring_up()
    node = operator.node
    for rule, ask in {
        "subscribe": node.get_subscriber_names_and_types_by_node,
        "publish": node.get_publisher_names_and_types_by_node,
        "reply": node.get_service_names_and_types_by_node,
    }.items():
        names = {name for name, _ in ask("tracker", "/")}
        assert names <= allowed(rule)
        assert allowed(rule) - names <= SOMETIMES
