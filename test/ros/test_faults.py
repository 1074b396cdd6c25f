"""Faults of cameras, backends and processes, over DDS: the node lives through each, and is right afterwards."""

import gc
import os
import signal
import time
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
from diagnostic_msgs.msg import DiagnosticStatus
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState
from sam2lite_ros.srv import AddObject
from std_srvs.srv import Trigger

from sam2lite_core.errors import BackendError
from sam2lite_core.evaluation.runs.machine import resident_mb
from sam2lite_core.media.label_map import write_label_map
from sam2lite_core.scenes.clip import render_clip
from sam2lite_core.types import TrackResult
from sam2lite_ros.conversions import fill_data, label_map_to_image
from sam2lite_ros.sessions.processes import process
from sam2lite_ros.tracker import node, watchdog

PERIOD_S = 1 / 60


def labels(mask):
    return np.frombuffer(mask.data, np.uint8).reshape(mask.height, mask.width)


def assert_follows(mask, truth):
    """Object 2 is where it really is."""
    found, true = labels(mask) == 2, truth == 2
    assert np.count_nonzero(found & true) > 0.5 * np.count_nonzero(found | true)


def prompt(truth):
    mask = label_map_to_image((truth == 2).astype(np.uint8) * 255, "mono8")
    return AddObject.Request(mask=mask, object_id=2)


def follow(operator, frames):
    """Bring the tracker up and show it object 2 of the clip, which nothing hides."""
    images, truth = frames
    operator.bring_up()
    operator.track(images[0])
    answer = operator.call("add_object", prompt(truth[0]))
    assert answer.success, answer.message


def figures(operator):
    """The newest diagnosis as level, message and values."""
    status = operator.seen.diagnostics[-1].status[0]
    return status.level, status.message, {entry.key: entry.value for entry in status.values}


def diagnosed(operator, level, said):
    """Wait for a diagnosis; returns its values."""
    operator.seen.diagnostics.clear()

    def there():
        return operator.seen.diagnostics and (figures(operator)[0] == level and said in figures(operator)[1])

    operator.until(there, f"a diagnosis that says {said!r}")
    return figures(operator)[2]


def counts(operator):
    """Received, processed, dropped, failed, once nothing is under way."""
    found = []

    def settled():
        operator.seen.diagnostics.clear()
        operator.until(lambda: operator.seen.diagnostics, "a diagnosis")
        values = figures(operator)[2]
        found[:] = [int(values[f"frames {kind}"]) for kind in ("received", "processed", "dropped", "failed")]
        return found[0] == sum(found[1:])

    operator.until(settled, "counters that add up")
    return found


@pytest.fixture(scope="module")
def frames():
    """(8, 192, 256, 3) uint8 and their label maps: large enough that the student is sure of itself."""
    clip = render_clip(3, height=192, width=256, frames=8)
    return clip.frames, clip.label_maps


@pytest.fixture(scope="module")
def shared(in_process, make_operator, frames):
    """One tracker for the tests that leave it active."""
    running, operator = in_process(), make_operator()
    operator.bring_down()
    return running, operator


@pytest.fixture
def following(shared, frames):
    running, operator = shared
    follow(operator, frames)
    yield running, operator
    if operator.state() == "active":
        running.before_each_step(lambda: None)


@pytest.fixture
def operator(make_operator):
    """Somebody who has not met the shared tracker."""
    made = make_operator("/alone")
    yield made
    made.close()


# What cameras do


def in_encoding(encoding, conversion, width):
    """An edit that sends the same picture in another encoding."""

    def edit(message):
        bgr = np.frombuffer(message.data, np.uint8).reshape(message.height, message.width, 3)[..., ::-1]
        pixels = cv2.cvtColor(np.ascontiguousarray(bgr), conversion)
        message.encoding, message.step = encoding, message.width * width
        fill_data(message, pixels)

    return edit


def change_encoding(operator, images):
    edits = [
        in_encoding("bgra8", cv2.COLOR_BGR2BGRA, 4),
        in_encoding("mono8", cv2.COLOR_BGR2GRAY, 1),
        in_encoding("rgba8", cv2.COLOR_BGR2RGBA, 4),
        in_encoding("8UC1", cv2.COLOR_BGR2GRAY, 1),
        lambda message: None,
    ]
    for image, edit in zip(images[1:], edits, strict=False):
        operator.track(image, edit=edit)


def change_size(operator, images):
    for image, size in zip(images[1:], [(128, 96), (320, 240), (200, 180), (256, 192)], strict=False):
        mask = operator.track(cv2.resize(image, size))
        assert (mask.width, mask.height) == size


def jump_back(operator, images):
    for image, step_ms in zip(images[1:], (33, -60_000, 33, 3_600_000, -33), strict=False):
        operator.track(image, step_ms=step_ms)

    def without_stamp(message):
        message.header.stamp.sec = message.header.stamp.nanosec = 0

    operator.publish(images[6], edit=without_stamp)
    operator.until(lambda: any(mask.header.stamp.sec == 0 for mask in operator.seen.mask), "the stampless mask")


def fall_silent(operator, images):
    diagnosed(operator, DiagnosticStatus.WARN, "no image on /image")
    due = time.monotonic()
    for number in range(60):
        operator.publish(images[min(number // 8, 7)], step_ms=17)
        due += PERIOD_S
        operator.spin(max(0.0, due - time.monotonic()))


def burst(operator, images):
    for number in range(100):
        operator.publish(images[min(number // 12, 7)], step_ms=1)


@pytest.mark.parametrize("disturb", [change_encoding, change_size, jump_back, fall_silent, burst])
def test_what_a_camera_does_leaves_the_object_followed_and_every_frame_accounted_for(following, frames, disturb):
    _, operator = following
    images, truth = frames
    disturb(operator, images)
    # The newest frame always gets its mask, whatever came before it.
    assert_follows(operator.track(images[7]), truth[7])
    assert counts(operator)[3] == 0


# What backends do


def raising(error):
    def fault():
        raise error

    return fault


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (BackendError("the device is gone"), "the device is gone"),
        (RuntimeError("CUDA error 700"), "CUDA error 700"),
        (MemoryError(), "MemoryError"),
        (MemoryError("unable to allocate 9.9 TiB"), "unable to allocate 9.9 TiB"),
    ],
)
def test_a_backend_that_fails_is_reported_and_the_object_found_again(following, frames, error, said):
    running, operator = following
    images, truth = frames
    before = counts(operator)
    running.before_each_step(raising(error))
    operator.publish(images[1])
    values = diagnosed(operator, DiagnosticStatus.ERROR, f"frames fail: {said}")
    assert values["last error"] == said
    running.before_each_step(lambda: None)
    assert_follows(operator.track(images[2]), truth[2])
    assert counts(operator)[3] == before[3] + 1


@pytest.fixture
def impatient(monkeypatch):
    monkeypatch.setattr(watchdog, "STALL_S", 0.3)


def hang(running, operator, image):
    """Send a frame on which the backend hangs; returns the gate that lets it go on, and the frame's stamp."""
    gate = running.hang()
    stamp = operator.publish(image)
    operator.until(lambda: gate.entered.acquire(blocking=False), "the step to hang")
    return gate, stamp


def test_a_backend_that_hangs_is_reported_while_the_node_answers_and_goes_on_afterwards(following, frames, impatient):
    running, operator = following
    images, truth = frames
    failed = counts(operator)[3]
    gate, stamp = hang(running, operator, images[1])
    try:
        # Asked before anybody could know that the step hangs.
        early = operator.ask("reset", Trigger.Request())
        diagnosed(operator, DiagnosticStatus.ERROR, "the backend hangs: its step has taken")
        for name, request in (("add_object", prompt(truth[0])), ("reset", Trigger.Request())):
            answer = operator.call(name, request)
            assert not answer.success
            assert "the backend hangs" in answer.message
        operator.until(early.done, "an answer to whoever asked first")
        assert not early.result().success and "the backend hangs" in early.result().message
        assert operator.state() == "active"
        assert operator.set(presence_threshold=0.5)[0].successful
        operator.publish(images[2])
        operator.publish(images[3])
    finally:
        gate.opened.set()
    assert operator.one("mask", stamp)
    diagnosed(operator, DiagnosticStatus.OK, "tracking")
    running.before_each_step(lambda: None)
    assert_follows(operator.track(images[4]), truth[4])
    assert counts(operator)[3] == failed


def test_a_request_that_waits_for_a_step_keeps_nobody_else_waiting(following, frames):
    running, operator = following
    images, truth = frames
    received = counts(operator)[0]
    gate, _ = hang(running, operator, images[1])
    waiting = operator.ask("add_object", prompt(truth[1]))
    try:
        operator.publish(images[2])
        operator.seen.diagnostics.clear()
        operator.until(
            lambda: operator.seen.diagnostics and int(figures(operator)[2]["frames received"]) == received + 2,
            "the frame to be received",
        )
        assert operator.state() == "active"
        assert not waiting.done()
    finally:
        gate.opened.set()
    operator.until(waiting.done, "the answer")
    assert waiting.result().success, waiting.result().message


def test_a_tracker_that_hangs_can_be_deactivated_and_configured_anew(following, frames, impatient):
    running, operator = following
    images, truth = frames
    gate, stamp = hang(running, operator, images[1])
    try:
        assert not operator.change(Transition.TRANSITION_DEACTIVATE)
        assert operator.state() == "unconfigured"
        follow(operator, frames)
        assert_follows(operator.track(images[1]), truth[1])
    finally:
        gate.opened.set()
    # What the step that was given up had to say is not published by anybody.
    assert_follows(operator.track(images[2]), truth[2])
    assert not any(mask.header.stamp == stamp for mask in operator.seen.mask)


def test_deactivating_in_mid_step_waits_for_the_step_and_keeps_the_object(following, frames):
    running, operator = following
    images, truth = frames
    gate, stamp = hang(running, operator, images[1])
    asked = operator.ask(
        "change_state", ChangeState.Request(transition=Transition(id=Transition.TRANSITION_DEACTIVATE))
    )
    operator.spin(0.3)
    assert not asked.done()
    gate.opened.set()
    operator.until(asked.done, "the transition")
    assert asked.result().success
    assert operator.state() == "inactive"
    assert operator.one("mask", stamp)
    running.before_each_step(lambda: None)
    assert operator.change(Transition.TRANSITION_ACTIVATE)
    operator.until(lambda: operator._mask_of(images[2]) is not None, "a mask")
    assert_follows(operator.track(images[2]), truth[2])


# What processes do


def test_a_tracker_that_is_killed_comes_back_by_autostart_and_goes_on(operator, frames, tmp_path):
    """Respawn as a launch file does it: another process, with the same name and parameters."""
    images, truth = frames
    first_frame = tmp_path / "first.png"
    write_label_map(first_frame, truth[0])
    parameters = {
        **{"autostart": True, "frame_deadline_ms": 0.0, "threads": 1},
        **{"initial_prompt.mask_file": str(first_frame), "initial_prompt.object_id": 0},
    }
    for ending in (signal.SIGKILL, signal.SIGINT):
        operator.seen.mask.clear()
        with process("tracker", parameters, tmp_path, namespace="/alone") as tracker:
            operator.until(lambda log=tracker.log_tail: "active: waiting" in log(), "autostart")
            operator.until(lambda: operator._mask_of(images[0]) is not None, "the first mask")
            assert_follows(operator.track(images[1]), truth[1])
            os.kill(tracker.pid, ending)
            operator.until(lambda running=tracker: running.exit_code is not None, "the process to end")
            assert tracker.exit_code == (-signal.SIGKILL if ending == signal.SIGKILL else 0)


class FakeTracker:
    """A fake that follows nothing and loads nothing, so that only the node itself is cycled."""

    fixed_size, object_ids, memory_budget = False, (), 64
    backend = SimpleNamespace(name="fake", info=SimpleNamespace(variant="none"))

    def step(self, image, prompts=(), **_):
        return TrackResult(np.zeros(image.shape[:2], np.uint8), ())

    def reset(self):
        pass


def resources():
    """Resident memory in MB, threads and open files of this process."""
    own = Path("/proc/self")
    return resident_mb(), len(list((own / "task").iterdir())), len(list((own / "fd").iterdir()))


def test_two_hundred_lifecycle_cycles_leak_neither_threads_nor_memory_nor_files(in_process, make_operator, monkeypatch):
    monkeypatch.setattr(node, "build_tracker", lambda parameters: FakeTracker())
    in_process(namespace="/cycled")
    operator = make_operator("/cycled")
    seen = []
    for cycle in range(200):
        for transition in (
            Transition.TRANSITION_CONFIGURE,
            Transition.TRANSITION_ACTIVATE,
            Transition.TRANSITION_DEACTIVATE,
            Transition.TRANSITION_CLEANUP,
        ):
            assert operator.change(transition), f"transition {transition} in cycle {cycle}"
        if cycle % 50 == 49:
            gc.collect()
            seen.append(resources())
    assert operator.state() == "unconfigured"
    (_, *before), (memory_then, *_), _, (memory_now, *after) = seen
    assert before == after
    # Allocators settle in the first half; a subscription or a model kept each time would be far more.
    assert memory_now - memory_then < 2.0, seen
    operator.bring_up()
