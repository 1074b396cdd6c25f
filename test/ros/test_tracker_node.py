"""The node in its own process, over DDS: lifecycle, frames, prompts, and everything that must not bring it down."""

import cv2
import numpy as np
import pytest
from geometry_msgs.msg import Point, PointStamped
from lifecycle_msgs.msg import Transition
from sam2lite_ros.msg import TrackedObject
from sam2lite_ros.srv import AddObject, RemoveObject
from sensor_msgs.msg import RegionOfInterest
from std_srvs.srv import Trigger

from sam2lite_ros.conversions import label_map_to_image


def labels(message):
    dtype = np.uint8 if message.encoding == "mono8" else np.dtype("<u2")
    return np.frombuffer(message.data, dtype).reshape(message.height, message.width)


def request(**fields):
    stamp = fields.pop("stamp", None)
    made = AddObject.Request(**fields)
    if stamp is not None:
        made.header.stamp = stamp
    return made


def mask_prompt(mask, **fields):
    return request(mask=label_map_to_image(mask.astype(np.uint8) * 255, "mono8"), **fields)


def box(x, y, width, height):
    return RegionOfInterest(x_offset=x, y_offset=y, width=width, height=height)


def test_the_lifecycle_runs_round_and_ends_finalized(isolated_ros, connected, frames):
    images, _ = frames
    connected.bring_down()
    assert connected.change(Transition.TRANSITION_CONFIGURE)
    assert connected.state() == "inactive"
    assert connected.change(Transition.TRANSITION_ACTIVATE)
    connected.bring_up()
    mask = connected.track(images[0])
    assert mask.header.frame_id == "left_camera"
    assert (mask.height, mask.width, mask.encoding) == (96, 128, "mono8")
    assert connected.change(Transition.TRANSITION_DEACTIVATE)
    seen = len(connected.seen.mask)
    connected.publish(images[1])
    connected.spin(1.0)
    assert len(connected.seen.mask) == seen
    assert connected.node.count_publishers("/tracker/mask") == 1
    assert connected.change(Transition.TRANSITION_CLEANUP)
    connected.until(lambda: connected.node.count_publishers("/tracker/mask") == 0, "the publisher to go")
    assert connected.state() == "unconfigured"


def test_what_is_read_at_configure_holds_until_the_next_one(connected, frames):
    connected.bring_down()
    assert connected.change(Transition.TRANSITION_CONFIGURE)
    changed = connected.set(
        mask_encoding="mono16", memory_budget=64, image_transport="compressed", presence_threshold=0.4
    )
    try:
        assert [result.successful for result in changed] == [True] * 4
        connected.bring_up()
        mask = connected.track(frames[0][0])
        assert mask.encoding == "mono8"
        assert connected.one("status", mask.header.stamp).memory_budget > 64
        answer = connected.call("add_object", request(points_xy=[64.0, 48.0], object_id=300))
        assert not answer.success
        assert "mono8" in answer.message
    finally:
        connected.bring_down()
        connected.set(mask_encoding="mono8", memory_budget=0, image_transport="raw", presence_threshold=0.5)


def test_a_first_prompt_that_the_mask_cannot_hold_is_refused_at_configure(connected, tracker):
    connected.bring_down()
    prompt = connected.set(initial_prompt__box=[1.0, 1.0, 9.0, 9.0], initial_prompt__object_id=300)
    try:
        assert all(result.successful for result in prompt)
        assert not connected.change(Transition.TRANSITION_CONFIGURE)
        assert "object id 300 does not fit mask_encoding mono8" in tracker.log_tail()
    finally:
        connected.set(initial_prompt__object_id=1, initial_prompt__box=[])


def test_services_in_the_wrong_state_name_the_state(connected):
    connected.bring_down()
    answer = connected.call("add_object", request(points_xy=[1.0, 1.0]))
    assert not answer.success
    assert "unconfigured" in answer.message
    assert "unconfigured" in connected.call("reset", Trigger.Request()).message


def test_bad_weights_leave_it_unconfigured_and_good_ones_work_afterwards(connected, tracker):
    connected.bring_down()
    assert connected.set(model_path="/nowhere/at/all")[0].successful
    assert not connected.change(Transition.TRANSITION_CONFIGURE)
    assert connected.state() == "unconfigured"
    assert "/nowhere/at/all" in tracker.log_tail()
    assert connected.set(model_path="")[0].successful
    assert connected.change(Transition.TRANSITION_CONFIGURE)
    assert connected.state() == "inactive"


def test_a_prompt_by_service_is_followed_until_it_is_removed(operator, frames):
    images, truth = frames
    stamp = operator.track(images[0]).header.stamp
    answer = operator.call("add_object", mask_prompt(truth[0] == 1, label="red ball", stamp=stamp))
    assert (answer.success, answer.object_id) == (True, 1), answer.message
    # The frame was the newest, so it is published once more, now with the object as it was drawn.
    operator.until(lambda: len(operator.seen.mask) == 2, "the prompted mask")
    assert np.array_equal(labels(operator.one("mask", stamp)) == 1, truth[0] == 1)

    answer = operator.call("add_object", mask_prompt(truth[0] == 2))
    assert (answer.success, answer.object_id) == (True, 2), answer.message
    stamp = operator.track(images[1]).header.stamp
    objects = operator.one("objects", stamp).objects
    assert [(entry.object_id, entry.label) for entry in objects] == [(1, "red ball"), (2, "")]
    mask = labels(operator.one("mask", stamp))
    for entry in objects:
        assert entry.area == np.count_nonzero(mask == entry.object_id)
        assert entry.state in (TrackedObject.TRACKED, TrackedObject.LOST)

    answer = operator.call("remove_object", RemoveObject.Request(object_id=7))
    assert not answer.success
    assert "7" in answer.message and "1, 2" in answer.message
    assert operator.call("remove_object", RemoveObject.Request(object_id=1)).success
    stamp = operator.track(images[2]).header.stamp
    assert [entry.object_id for entry in operator.one("objects", stamp).objects] == [2]
    assert operator.call("reset", Trigger.Request()).success
    stamp = operator.track(images[3]).header.stamp
    assert operator.one("objects", stamp).objects == []
    assert not labels(operator.one("mask", stamp)).any()


def test_a_prompt_on_an_old_frame_catches_up_and_too_old_is_refused(operator, frames):
    images, truth = frames
    stamps = [operator.track(image).header.stamp for image in images[:5]]
    answer = operator.call("add_object", mask_prompt(truth[1] == 1, stamp=stamps[1]))
    assert (answer.success, answer.object_id) == (True, 1), answer.message
    # Catching up ended on the newest frame, whose mask is published again with the object in the list.
    operator.until(
        lambda: any(m.header.stamp == stamps[4] and m.objects for m in operator.seen.objects), "the object now"
    )
    operator.track(images[5], step_ms=2000)
    answer = operator.call("add_object", mask_prompt(truth[1] == 1, stamp=stamps[1]))
    assert not answer.success
    assert "oldest held" in answer.message


def test_a_frame_of_another_size_is_tracked_at_its_size(operator, frames):
    images, truth = frames
    operator.track(images[0])
    assert operator.call("add_object", mask_prompt(truth[0] == 1)).success
    for size in ((640, 200), (64, 48), (128, 96)):
        mask = operator.track(cv2.resize(images[1], size))
        assert (mask.width, mask.height) == size


def bad_encoding(message):
    message.encoding = "infrared12"


def truncated(message):
    del message.data[100:]


def zero_size(message):
    message.height = 0


def short_step(message):
    message.step = 5


@pytest.mark.parametrize(
    ("edit", "named"),
    [(bad_encoding, "infrared12"), (truncated, "100 bytes"), (zero_size, "0"), (short_step, "step is 5")],
)
def test_a_bad_image_is_reported_and_the_next_good_one_is_tracked(operator, frames, edit, named):
    images, _ = frames
    stamp = operator.publish(images[0], edit=edit)
    operator.until(
        lambda: any(
            named in value.value
            for message in operator.seen.diagnostics
            for value in message.status[0].values
            if value.key == "last error"
        ),
        f"diagnostics that name {named}",
    )
    good = operator.track(images[1]).header.stamp
    assert not any(mask.header.stamp == stamp for mask in operator.seen.mask)
    status = operator.one("status", good)
    assert status.frames_received > status.frames_processed


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"points_xy": [500.0, 10.0]}, "500"),
        ({"points_xy": [1.0, 2.0, 3.0]}, "3 numbers"),
        ({"points_xy": [5.0, 5.0] * 1025}, "1025 points; give at most 1024"),
        ({"points_xy": [5.0, 5.0], "point_labels": [1, 0]}, "2 point labels for 1 points"),
        ({"points_xy": [5.0, 5.0], "point_labels": [0]}, "positive"),
        ({"box": box(200, 200, 5, 5)}, "outside"),
        ({}, "give points, a box or a mask"),
        ({"points_xy": [5.0, 5.0], "object_id": 300}, "mono16"),
    ],
)
def test_bad_prompts_are_refused_by_name_and_change_nothing(operator, frames, fields, named):
    images, _ = frames
    operator.track(images[0])
    answer = operator.call("add_object", request(**fields))
    assert not answer.success
    assert named in answer.message
    stamp = operator.track(images[1]).header.stamp
    assert operator.one("objects", stamp).objects == []


@pytest.mark.parametrize(("shape", "named"), [((50, 50), "50x50"), ((96, 128), "empty")])
def test_bad_prompt_masks_are_refused(operator, frames, shape, named):
    operator.track(frames[0][0])
    answer = operator.call("add_object", mask_prompt(np.zeros(shape, bool) if named == "empty" else np.ones(shape)))
    assert not answer.success
    assert named in answer.message


def test_clicks_and_boxes_from_viewers_become_objects(operator, frames):
    images, truth = frames
    stamp = operator.track(images[0]).header.stamp
    y, x = np.argwhere(truth[0] == 1).mean(axis=0)
    click = PointStamped()
    click.header.stamp = stamp
    click.point.x, click.point.y = float(x), float(y)
    operator.until(lambda: operator.points.get_subscription_count() == 1, "the click subscription")
    operator.points.publish(click)
    operator.until(lambda: any(message.objects for message in operator.seen.objects), "the clicked object")
    operator.boxes.publish(box(70, 10, 30, 30))
    operator.until(lambda: any(len(message.objects) == 2 for message in operator.seen.objects), "the boxed object")
    operator.clicks.publish(Point(x=20.0, y=80.0))
    operator.until(lambda: any(len(message.objects) == 3 for message in operator.seen.objects), "the second click")
    stamp = operator.track(images[1]).header.stamp
    assert [entry.object_id for entry in operator.one("objects", stamp).objects] == [1, 2, 3]


def test_live_parameters_take_effect_and_the_others_are_refused_while_active(operator, frames):
    accepted = operator.set(frame_deadline_ms=250.0, controller="off", max_scale=0.6, presence_threshold=0.4)
    assert [result.successful for result in accepted] == [True] * 4
    stamp = operator.track(frames[0][0]).header.stamp
    status = operator.one("status", stamp)
    assert status.deadline_ms == 250.0
    assert status.scale == pytest.approx(0.6)
    refused = operator.set(variant="small", image_transport="compressed", controller="fancy", min_scale=0.7)
    assert [result.successful for result in refused] == [False] * 4
    for result, named in zip(
        refused, ("while the tracker is active", "active", "plain, predictive, off", "min_scale"), strict=True
    ):
        assert named in result.reason
    # The table is measured between two frames.
    assert operator.set(controller="predictive", frame_deadline_ms=1e4, max_scale=0.5)[0].successful
    status = operator.one("status", operator.track(frames[0][1]).header.stamp)
    assert (status.deadline_ms, status.scale) == (1e4, 0.5)
    restored = operator.set(max_scale=1.0, controller="plain", frame_deadline_ms=0.0, presence_threshold=0.5)
    assert all(result.successful for result in restored)


def test_everything_published_agrees_on_one_frame(operator, frames):
    images, truth = frames
    operator.track(images[0])
    assert operator.call("add_object", mask_prompt(truth[0] == 1)).success
    stamp = operator.track(images[1]).header.stamp
    mask = labels(operator.one("mask", stamp))
    png = operator.one("png", stamp)
    assert np.array_equal(cv2.imdecode(np.frombuffer(png.data, np.uint8), cv2.IMREAD_UNCHANGED), mask)
    overlay = operator.one("overlay", stamp)
    assert (overlay.encoding, overlay.height, overlay.width) == ("bgr8", 96, 128)
    assert operator.one("jpeg", stamp).format.endswith("jpeg compressed bgr8")
    status = operator.one("status", stamp)
    assert status.header.frame_id == "left_camera"
    assert 0 < status.memory_tokens <= status.memory_budget


def test_frames_that_come_too_fast_are_dropped_oldest_first_and_counted(operator, frames):
    images, _ = frames
    before = operator.one("status", operator.track(images[0]).header.stamp)
    # The burst is shorter than what the subscription holds, so each frame is either processed or counted as dropped.
    stamps = [operator.publish(images[i % 8]) for i in range(8)]
    operator.one("mask", stamps[-1])
    last = operator.one("status", stamps[-1])
    assert last.frames_received - before.frames_received == 8
    processed = last.frames_processed - before.frames_processed
    assert processed + last.frames_dropped - before.frames_dropped == 8
    order = [(mask.header.stamp.sec, mask.header.stamp.nanosec) for mask in operator.seen.mask]
    assert order == sorted(order)


def test_compressed_images_are_tracked_when_asked_for(connected, frames):
    connected.bring_down()
    assert connected.set(image_transport="compressed", mask_encoding="mono16")[0].successful
    try:
        assert connected.change(Transition.TRANSITION_CONFIGURE)
        assert connected.change(Transition.TRANSITION_ACTIVATE)
        connected.until(lambda: connected.compressed.get_subscription_count() == 1, "the subscription")

        def tracked():
            stamp = connected.publish(frames[0][0], compressed=True)
            connected.spin(0.5)
            return any(mask.header.stamp == stamp for mask in connected.seen.mask)

        connected.until(tracked, "a mask of a compressed image")
        assert connected.seen.mask[-1].encoding == "mono16"
        answer = connected.call("add_object", request(points_xy=[64.0, 48.0], object_id=300))
        assert (answer.success, answer.object_id) == (True, 300), answer.message
    finally:
        connected.bring_down()
        connected.set(image_transport="raw", mask_encoding="mono8")
