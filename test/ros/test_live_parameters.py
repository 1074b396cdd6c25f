"""Parameters set over DDS while frames flow: what each live one changes, at once; and how all others are refused."""

import time

import numpy as np
import pytest
from sam2lite_ros.msg import TrackedObject
from sam2lite_ros.srv import AddObject
from std_srvs.srv import Trigger

from sam2lite_core.scenes.clip import render_clip
from sam2lite_ros.conversions import label_map_to_image
from sam2lite_ros.tracker.parameter_table import SPECIFICATIONS

LIVE = {name for name, specification in SPECIFICATIONS.items() if specification.live}
CALM = {
    **{"min_scale": 0.5, "max_scale": 1.0, "min_window": 2, "max_window": 8, "controller": "plain"},
    **{"kp": 0.0, "ki": 0.0, "kd": 0.0, "frame_deadline_ms": 1.0, "presence_threshold": 0.0},
    "max_frame_age_ms": 0.0,
}
"""Before each case: no step is fast enough, and the controller does nothing about it."""

PERIOD_S = 0.03


@pytest.fixture(scope="module")
def clip():
    return render_clip(3, height=192, width=256, frames=8)


@pytest.fixture(scope="module")
def shared(in_process, make_operator):
    running, operator = in_process(), make_operator()
    operator.bring_up()
    return running, operator


@pytest.fixture
def stream(shared, clip):
    """A tracker that follows object 2 of the clip, set as CALM."""
    running, operator = shared
    made = Stream(running, operator, clip.frames)
    running.before_each_step(lambda: None)
    made.set(**CALM)
    # The controller starts anew at the highest scale.
    assert operator.call("reset", Trigger.Request()).success
    made.next()
    mask = label_map_to_image((clip.label_maps[0] == 2).astype(np.uint8) * 255, "mono8")
    assert operator.call("add_object", AddObject.Request(mask=mask)).success
    return made


class Stream:
    """Frames one after the other; more of them, by a timer, while a parameter is set."""

    def __init__(self, running, operator, images):
        self.running, self.operator, self._images = running, operator, images

    def set(self, **values):
        timer = self.operator.node.create_timer(
            PERIOD_S, lambda: self.operator.publish(self._images[0]) if values else None
        )
        try:
            for name, value in values.items():
                (result,) = self.operator.set(**{name: value})
                assert result.successful, result.reason
        finally:
            self.operator.node.destroy_timer(timer)

    def next(self):
        """The status of the next frame."""
        return self.operator.one("status", self.operator.track(self._images[0]).header.stamp)

    def skip(self, count):
        for _ in range(count):
            self.next()

    def state(self):
        """The object's state in the next frame."""
        (entry,) = self.operator.one("objects", self.next().header.stamp).objects
        return entry.state


def frame_deadline_ms(stream):
    assert stream.next().deadline_ms == 1.0
    stream.set(frame_deadline_ms=250.0)
    assert stream.next().deadline_ms == 250.0


def controller(stream):
    stream.set(kp=10.0)
    stream.skip(2)
    assert stream.next().scale < 1.0
    stream.set(controller="off")
    assert stream.next().scale == 1.0


def gain(name):
    """The gains of what is wrong, and of what has been wrong so far: the first frame's choice shows on the next."""

    def check(stream):
        stream.skip(2)
        assert stream.next().scale == 1.0
        stream.set(**{name: 10.0})
        stream.next()
        assert stream.next().scale < 1.0

    return check


def kd(stream):
    """The gain of a change: of a slow step after fast ones."""

    def after_a_slow_step():
        stream.skip(2)
        stream.running.before_each_step(lambda: time.sleep(1.5))
        stream.next()
        stream.running.before_each_step(lambda: None)
        return stream.next().scale

    stream.set(frame_deadline_ms=1000.0)
    assert after_a_slow_step() == 1.0
    stream.set(kd=10.0)
    assert after_a_slow_step() < 1.0


def min_scale(stream):
    stream.set(kp=10.0, max_scale=0.6)
    stream.skip(3)
    assert stream.next().scale == 0.5
    stream.set(min_scale=0.6)
    assert stream.next().scale == pytest.approx(0.6)


def max_scale(stream):
    assert stream.next().scale == 1.0
    stream.set(max_scale=0.7)
    assert stream.next().scale == pytest.approx(0.7)


def min_window(stream):
    stream.set(kp=10.0, max_scale=0.5)
    stream.skip(3)
    assert stream.next().window < 7
    stream.set(min_window=7)
    assert stream.next().window == 7


def max_window(stream):
    assert stream.next().window == 8
    stream.set(max_window=4)
    assert stream.next().window == 4


def presence_threshold(stream):
    assert stream.state() == TrackedObject.TRACKED
    stream.set(presence_threshold=1.0)
    assert stream.state() == TrackedObject.LOST


def max_frame_age_ms(stream):
    """The stamps here are of 1970."""
    counters = stream.running.node._tracking.counters
    stream.next()
    stream.set(max_frame_age_ms=60_000.0)
    # Whatever flowed while it was set is done with once the node has answered and the frame after it is dropped.
    before = counters.snapshot()
    stamp = stream.operator.publish(stream._images[0])
    stream.operator.until(lambda: counters.snapshot().dropped > before.dropped, "the frame to be dropped")
    stream.set(max_frame_age_ms=0.0)
    stream.next()
    assert not any(mask.header.stamp == stamp for mask in stream.operator.seen.mask)


CASES = {
    **{"frame_deadline_ms": frame_deadline_ms, "controller": controller, "kp": gain("kp"), "ki": gain("ki")},
    **{"kd": kd, "min_scale": min_scale, "max_scale": max_scale, "min_window": min_window},
    **{"max_window": max_window, "presence_threshold": presence_threshold},
    "max_frame_age_ms": max_frame_age_ms,
}


def test_every_live_parameter_has_its_case():
    assert set(CASES) == LIVE == set(CALM)


@pytest.mark.parametrize("name", CASES)
def test_a_live_parameter_changes_what_the_next_frame_is_done_with(stream, name):
    CASES[name](stream)


def wrong_types(specification):
    if isinstance(specification.default, list):
        return []
    return [value for value in ("soon", 3, 0.75, True, [0.5]) if type(value) is not type(specification.default)]


def outside(specification):
    if specification.choices is not None:
        return ["fancy", ""]
    if specification.bounds is not None:
        kind = type(specification.default)
        return [kind(specification.bounds[0] - 1), kind(specification.bounds[1] + 1)]
    # Lists have no type that rclpy knows.
    return ["left", 3.0] if isinstance(specification.default, list) else []


def another(specification):
    """A value that would be right at configure."""
    if specification.choices is not None:
        return next(choice for choice in specification.choices if choice != specification.default)
    return {str: "elsewhere", int: 64, bool: True, list: [1.0, 2.0, 3.0, 4.0]}[type(specification.default)]


@pytest.mark.parametrize("name", SPECIFICATIONS)
def test_what_is_wrong_is_refused_with_the_reason_and_changes_nothing(shared, name):
    running, operator = shared
    specification = SPECIFICATIONS[name]
    before = {other: running.node.get_parameter(other).value for other in SPECIFICATIONS}
    settings, deadlines = running.node._settings, running.node._tracker._settings
    # rclpy itself refuses another type, and in its own words.
    asked = [(value, "type") for value in wrong_types(specification)]
    asked += [(value, name) for value in outside(specification)]
    if not specification.live:
        asked.append((another(specification), "while the tracker is active: deactivate"))
    for value, said in asked:
        (result,) = operator.set(**{name.replace(".", "__"): value})
        assert not result.successful, value
        assert ("read-only" if specification.read_only else said) in result.reason
    assert {other: running.node.get_parameter(other).value for other in SPECIFICATIONS} == before
    assert (running.node._settings, running.node._tracker._settings) == (settings, deadlines)
