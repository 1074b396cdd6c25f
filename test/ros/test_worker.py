"""The inference thread with a tracker that does nothing but remember what it was asked."""

import threading
import time
from types import SimpleNamespace

import numpy as np
import pytest

from sam2lite_core.errors import BackendError, InvalidFrameError, InvalidPromptError, UnknownObjectError
from sam2lite_core.types import ObjectState, Prompt, TrackedObject, TrackResult
from sam2lite_ros.conversions import rgb_to_image
from sam2lite_ros.tracker import frame_ring
from sam2lite_ros.tracker.frame_ring import HELD_SHORT_SIDE
from sam2lite_ros.tracker.late_prompts import CATCH_UP_STEPS
from sam2lite_ros.tracker.mailbox import MailboxClosedError
from sam2lite_ros.tracker.parameter_table import SPECIFICATIONS
from sam2lite_ros.tracker.parameters import TrackerParameters
from sam2lite_ros.tracker.prompts import PromptRequest
from sam2lite_ros.tracker.worker import TrackingWorker

PATIENCE_S = 60
MS = 1_000_000


class FakeTracker:
    """Follows ids; the red value of an image tells which frame it was."""

    memory_budget = 256

    def __init__(self):
        self.calls, self.ids, self.pace = [], set(), []
        self.go = threading.Event()
        self.go.set()
        self.entered = threading.Semaphore(0)
        self.failure = None

    @property
    def object_ids(self):
        return tuple(sorted(self.ids))

    def step(self, image, prompts=(), *, elapsed=1, overhead_ms=0.0):
        self.entered.release()
        assert self.go.wait(PATIENCE_S)
        if self.failure is not None:
            raise self.failure
        for prompt in prompts:
            prompt.check_inside(*image.shape[:2])
        self.calls.append((int(image[0, 0, 0]), image.shape[:2], tuple(prompts)))
        self.pace.append((elapsed, overhead_ms))
        self.ids.update(prompt.object_id for prompt in prompts)
        objects = tuple(TrackedObject(i, ObjectState.LOST, 0.1, (0, 0, 0, 0), 0, (0, 0)) for i in self.object_ids)
        return TrackResult(np.zeros(image.shape[:2], np.uint8), objects)

    def remove(self, object_id):
        if object_id not in self.ids:
            raise UnknownObjectError(f"object {object_id} is not followed")
        self.ids.discard(object_id)

    def reset(self):
        self.ids.clear()


class FakeOutputs:
    """Keeps what would be published."""

    def __init__(self):
        self.published, self.statuses = [], []
        self.publishing_s = 0.0

    def publish(self, message, image, result, labels):
        time.sleep(self.publishing_s)
        self.published.append((int(image[0, 0, 0]), labels))

    def publish_status(self, message, counts, **fields):
        self.statuses.append(SimpleNamespace(counts=counts, **fields))


class FakeLog:
    """Keeps what would be logged."""

    def __init__(self):
        self.failures, self.too_old = [], []

    def frame_failed(self, error):
        self.failures.append(error)

    def frame_too_old(self, age_ms, limit_ms):
        self.too_old.append((age_ms, limit_ms))


class Bench:
    """A worker with its surroundings; `now_ms` is its clock."""

    def __init__(self, first_prompts=(), **changes):
        values = {name: specification.default for name, specification in SPECIFICATIONS.items()}
        values.update(frame_deadline_ms=0.0)
        self.tracker, self.outputs, self.log, self.now_ms = FakeTracker(), FakeOutputs(), FakeLog(), 0
        self.worker = TrackingWorker(
            self.tracker,
            TrackerParameters.from_values({**values, **changes}),
            first_prompts,
            {},
            self.outputs,
            self.log,
            lambda: self.now_ms * MS,
        )

    def send(self, *numbers, size=(48, 64), together=False, edit=lambda message: None):
        """Frames that are told apart by their number, 33 ms from one to the next."""
        messages = []
        for number in numbers:
            message = rgb_to_image(np.full((*size, 3), number, np.uint8))
            stamp = stamp_of(number)
            message.header.stamp.sec, message.header.stamp.nanosec = divmod(stamp, 10**9)
            self.now_ms = max(self.now_ms, stamp // MS)
            edit(message)
            messages.append(message)
        for batch in [messages] if together else [[message] for message in messages]:
            self.worker.receive(batch)

    def settle(self, count):
        """Wait until so many frames are done with."""
        limit = time.monotonic() + PATIENCE_S
        while True:
            counts = self.worker.counters.snapshot()
            if counts.processed + counts.failed + counts.dropped >= count:
                # A command runs after the frame is done entirely.
                self.worker.apply(self.worker._parameters, lambda: None).result(PATIENCE_S)
                return self.worker.counters.snapshot()
            assert time.monotonic() < limit, counts
            time.sleep(0.002)

    def run(self, *numbers, **options):
        """Send frames one at a time, each once the one before it is done."""
        for number in numbers:
            done = self.worker.counters.snapshot()
            self.send(number, **options)
            self.settle(done.processed + done.failed + done.dropped + 1)


def stamp_of(number):
    return 10**9 + number * 33 * MS


@pytest.fixture
def bench():
    made = []

    def make(*arguments, **options):
        made.append(Bench(*arguments, **options))
        return made[-1]

    yield make
    for one in made:
        one.tracker.go.set()
        one.worker.stop()


def box(object_id=1):
    return Prompt(object_id=object_id, box=np.array([1, 1, 20, 20], np.float32))


def request(stamp_ns=0, **fields):
    return PromptRequest(stamp_ns=stamp_ns, box=np.array([1, 1, 20, 20], np.float32), **fields)


def test_while_a_step_runs_only_the_newest_frame_waits_and_the_others_are_counted(bench):
    one = bench()
    one.tracker.go.clear()
    one.send(1)
    assert one.tracker.entered.acquire(timeout=PATIENCE_S)
    one.send(2, 3, 4)
    assert one.worker.counters.snapshot().dropped == 2
    one.tracker.go.set()
    counts = one.settle(4)
    assert [number for number, _ in one.outputs.published] == [1, 4]
    assert (counts.received, counts.processed, counts.dropped, counts.failed) == (4, 2, 2, 0)


def test_frames_that_arrive_together_leave_only_the_newest(bench):
    one = bench()
    one.send(1, 2, 3, together=True)
    counts = one.settle(3)
    assert [number for number, _ in one.outputs.published] == [3]
    assert (counts.received, counts.processed, counts.dropped) == (3, 1, 2)


def test_the_first_frame_carries_the_initial_prompt_and_no_other_does(bench):
    one = bench([box()])
    one.run(1, 2)
    assert [len(prompts) for _, _, prompts in one.tracker.calls] == [1, 0]
    assert one.worker.first_prompts_pending == ()


def test_an_initial_prompt_that_does_not_fit_is_reported_and_the_frame_tracked(bench):
    one = bench([Prompt(object_id=1, mask=np.ones((5, 5), bool))])
    one.run(1)
    assert [type(error) for error in one.log.failures] == [InvalidPromptError]
    assert [number for number, _ in one.outputs.published] == [1]


@pytest.mark.parametrize("failure", [BackendError("the device is gone"), RuntimeError("anything at all")])
def test_a_step_that_fails_is_counted_and_the_next_frame_is_tracked(bench, failure):
    one = bench()
    one.tracker.failure = failure
    one.run(1)
    one.tracker.failure = None
    one.run(2)
    counts = one.worker.counters.snapshot()
    assert (counts.processed, counts.failed) == (1, 1)
    assert one.log.failures == [failure]
    assert one.worker.counters.last_error == str(failure)


def test_a_prompt_on_the_newest_frame_publishes_it_again_without_counting_it(bench):
    one = bench()
    one.run(1)
    assert one.worker.add_object(request(label="cup")).result(PATIENCE_S) == 1
    assert [number for number, _ in one.outputs.published] == [1, 1]
    assert one.worker.counters.snapshot().processed == 1
    one.run(2)
    assert one.outputs.published[-1] == (2, {1: "cup"})


def test_a_prompt_on_the_waiting_frame_goes_with_it(bench):
    one = bench()
    one.tracker.go.clear()
    one.send(1)
    assert one.tracker.entered.acquire(timeout=PATIENCE_S)
    one.send(2)
    added = one.worker.add_object(request(stamp_of(2)))
    one.tracker.go.set()
    assert added.result(PATIENCE_S) == 1
    assert [(number, len(prompts)) for number, _, prompts in one.tracker.calls] == [(1, 0), (2, 1)]
    counts = one.worker.counters.snapshot()
    assert (counts.received, counts.processed, counts.dropped) == (2, 2, 0)


def test_a_prompt_on_an_old_frame_steps_there_and_catches_up_in_few_steps(bench):
    one = bench()
    one.run(*range(1, 11))
    one.tracker.calls.clear()
    assert one.worker.add_object(request(stamp_of(2))).result(PATIENCE_S) == 1
    numbers = [number for number, _, _ in one.tracker.calls]
    assert numbers[0] == 2
    assert len(numbers) == 1 + CATCH_UP_STEPS
    assert numbers == sorted(numbers)
    assert numbers[-1] == 10
    assert one.outputs.published[-1][0] == 10
    assert [len(prompts) for _, _, prompts in one.tracker.calls] == [1, 0, 0, 0, 0]


def test_old_frames_are_held_small_and_prompts_scaled_to_them(bench):
    one = bench()
    one.run(1, 2, size=(960, 1280))
    one.tracker.calls.clear()
    points = np.array([[1000, 500]], np.float32)
    one.worker.add_object(PromptRequest(stamp_of(1), points=points)).result(PATIENCE_S)
    number, size, (prompt,) = one.tracker.calls[0]
    assert (number, size) == (1, (HELD_SHORT_SIDE, 640))
    assert prompt.points.tolist() == [[500, 250]]


@pytest.mark.parametrize(
    ("made", "named"),
    [
        (PromptRequest(0, points=np.array([[64, 0]], np.float32)), "outside the 64x48"),
        (PromptRequest(0), "give points, a box or a mask"),
        (request(5), "oldest held is 1.033000000"),
        (request(object_id=256), "mono16"),
    ],
)
def test_refused_prompts_change_nothing(bench, made, named):
    one = bench()
    one.run(1)
    with pytest.raises(InvalidPromptError, match=named):
        one.worker.add_object(made).result(PATIENCE_S)
    assert one.tracker.object_ids == ()
    assert len(one.tracker.calls) == 1


def test_ids_are_chosen_from_below_and_labels_go_with_their_object(bench):
    one = bench()
    one.run(1)
    asked = [one.worker.add_object(request(object_id=i, label=str(i))).result(PATIENCE_S) for i in (0, 3, 0, 0)]
    assert asked == [1, 3, 2, 4]
    one.worker.remove_object(2).result(PATIENCE_S)
    with pytest.raises(UnknownObjectError, match="2"):
        one.worker.remove_object(2).result(PATIENCE_S)
    one.run(2)
    assert one.outputs.published[-1][1] == {1: "0", 3: "3", 4: "0"}
    one.worker.reset().result(PATIENCE_S)
    one.run(3)
    assert one.outputs.published[-1][1] == {}


def test_frames_older_than_the_limit_are_dropped(bench):
    one = bench(max_frame_age_ms=100.0)
    one.now_ms = stamp_of(1) // MS + 101
    one.send(1)
    assert one.settle(1).dropped == 1
    assert one.log.too_old == [(101.0, 100.0)]
    one.send(10)
    assert one.settle(2).processed == 1


def test_deadlines_are_counted_from_arrival_to_mask(bench):
    one = bench(frame_deadline_ms=1.0)
    one.tracker.go.clear()
    one.send(1)
    assert one.tracker.entered.acquire(timeout=PATIENCE_S)
    time.sleep(0.005)
    one.tracker.go.set()
    assert one.settle(1).deadlines_missed == 1
    report = one.outputs.statuses[0]
    assert report.deadline_missed
    assert report.deadline_ms == 1.0
    assert report.counts.processed == 1


def test_stopping_counts_the_waiting_frame_and_refuses_what_waits(bench):
    one = bench([box()])
    one.tracker.go.clear()
    one.send(1)
    assert one.tracker.entered.acquire(timeout=PATIENCE_S)
    one.send(2)
    waiting = one.worker.reset()
    closing = threading.Thread(target=one.worker.stop)
    closing.start()
    with pytest.raises(MailboxClosedError):
        waiting.result(PATIENCE_S)
    one.tracker.go.set()
    closing.join(PATIENCE_S)
    counts = one.worker.counters.snapshot()
    assert (counts.received, counts.processed, counts.dropped) == (2, 1, 1)
    with pytest.raises(MailboxClosedError):
        one.worker.reset().result(0)


def test_an_initial_prompt_waits_for_a_frame_across_activations(bench):
    one = bench([box(7)])
    one.worker.stop()
    assert [prompt.object_id for prompt in one.worker.first_prompts_pending] == [7]


def truncated(message):
    message.data = message.data[:10]


def test_a_corrupt_frame_on_the_way_does_not_make_a_prompt_fail(bench):
    one = bench()
    one.run(1, 2)
    one.run(3, edit=truncated)
    one.run(4)
    one.run(5, edit=truncated)
    one.tracker.calls.clear()
    one.log.failures.clear()
    assert one.worker.add_object(request(stamp_of(1), label="cup")).result(PATIENCE_S) == 1
    assert [number for number, _, _ in one.tracker.calls] == [1, 2, 4]
    assert len(one.log.failures) == 1
    assert one.outputs.published[-1] == (4, {1: "cup"})


def test_a_step_that_fails_while_catching_up_leaves_the_object_its_label(bench):
    one = bench()
    one.run(1, 2, 3)
    step, steps = one.tracker.step, []

    def fails_after_the_prompt(*arguments, **options):
        steps.append(arguments)
        one.tracker.failure = BackendError("once") if len(steps) == 2 else None
        return step(*arguments, **options)

    one.tracker.step = fails_after_the_prompt
    assert one.worker.add_object(request(stamp_of(1), label="cup")).result(PATIENCE_S) == 1
    assert one.outputs.published[-1] == (3, {1: "cup"})
    assert [str(error) for error in one.log.failures] == ["once"]


def test_a_frame_that_cannot_be_loaded_cannot_be_prompted(bench):
    one = bench()
    one.run(1, edit=truncated)
    with pytest.raises(InvalidFrameError, match="10 bytes"):
        one.worker.add_object(request(stamp_of(1), label="cup")).result(PATIENCE_S)
    one.run(2)
    assert one.outputs.published == [(2, {})]


def waiting_prompt(one, made):
    """Prompt on the very first frame while it still waits, as an operator who is quick can."""
    one.tracker.go.clear()
    blocker = one.worker.apply(one.worker._parameters, lambda: one.tracker.go.wait(PATIENCE_S))
    one.send(1)
    added = one.worker.add_object(made)
    one.tracker.go.set()
    blocker.result(PATIENCE_S)
    return added


def test_an_operators_object_gets_another_id_than_a_first_prompt_that_waits(bench):
    one = bench([box(1), box(3)])
    assert waiting_prompt(one, request(label="cup")).result(PATIENCE_S) == 2
    one.run(2)
    assert [[prompt.object_id for prompt in prompts] for _, _, prompts in one.tracker.calls] == [[1, 3, 2], []]
    assert one.worker.first_prompts_pending == ()


def test_an_id_that_the_operator_claims_is_not_prompted_again_at_first(bench):
    one = bench([box(1), box(3)])
    mine = PromptRequest(0, object_id=3, points=np.array([[5, 5]], np.float32))
    assert waiting_prompt(one, mine).result(PATIENCE_S) == 3
    one.run(2)
    assert [[prompt.object_id for prompt in prompts] for _, _, prompts in one.tracker.calls] == [[1, 3], []]
    assert one.tracker.calls[0][2][1].points.tolist() == [[5, 5]]


def test_a_first_prompt_outlives_a_frame_that_fails_but_not_a_claim_of_its_id(bench):
    one = bench([box(1), box(3)])
    one.send(1, 2, together=True, edit=lambda message: None if message.data[0] == 1 else truncated(message))
    one.settle(2)
    assert len(one.worker.first_prompts_pending) == 2
    assert one.worker.add_object(request(stamp_of(1), object_id=3)).result(PATIENCE_S) == 3
    assert [prompt.object_id for prompt in one.worker.first_prompts_pending] == [1]
    one.run(3)
    assert [[prompt.object_id for prompt in prompts] for _, _, prompts in one.tracker.calls] == [[3], [1]]


def test_a_refused_prompt_leaves_the_first_ones_to_their_frame(bench):
    one = bench([box(1)])
    outside = PromptRequest(0, object_id=1, mask=np.ones((5, 5), bool))
    with pytest.raises(InvalidPromptError):
        waiting_prompt(one, outside).result(PATIENCE_S)
    one.settle(1)
    assert [[prompt.object_id for prompt in prompts] for _, _, prompts in one.tracker.calls] == [[1]]


def test_a_label_is_published_with_the_frame_prompted_and_kept_when_none_is_given(bench):
    one = bench()
    one.run(1)
    one.worker.add_object(request(object_id=4, label="cup")).result(PATIENCE_S)
    assert one.outputs.published[-1] == (1, {4: "cup"})
    one.worker.add_object(request(object_id=4)).result(PATIENCE_S)
    assert one.outputs.published[-1] == (1, {4: "cup"})
    one.worker.add_object(request(object_id=4, label="mug")).result(PATIENCE_S)
    assert one.outputs.published[-1] == (1, {4: "mug"})
    with pytest.raises(InvalidPromptError):
        outside = PromptRequest(0, object_id=4, label="jug", points=np.array([[99, 0]], np.float32))
        one.worker.add_object(outside).result(PATIENCE_S)
    one.tracker.failure = BackendError("the device is gone")
    for object_id in (4, 5):
        with pytest.raises(BackendError):
            one.worker.add_object(request(object_id=object_id, label="jug")).result(PATIENCE_S)
    one.tracker.failure = None
    one.worker.remove_object(4).result(PATIENCE_S)
    one.worker.add_object(request(object_id=4)).result(PATIENCE_S)
    assert one.outputs.published[-1] == (1, {4: ""})


def test_the_tracker_learns_how_many_frames_lie_between_its_steps(bench):
    one = bench()
    one.run(1)
    one.send(2, 3, 4, together=True)
    one.settle(4)
    one.run(5, edit=truncated)
    one.run(6)
    assert [elapsed for elapsed, _ in one.tracker.pace] == [1, 3, 2]
    # Back to frame 2, on to 4 and 6; then the next frame.
    one.tracker.pace.clear()
    one.tracker.calls.clear()
    one.worker.add_object(request(stamp_of(2))).result(PATIENCE_S)
    one.run(7)
    assert [number for number, _, _ in one.tracker.calls] == [2, 3, 4, 6, 7]
    assert [elapsed for elapsed, _ in one.tracker.pace] == [4, 1, 1, 2, 1]
    # Without memory there is nothing to lead on from.
    one.worker.reset().result(PATIENCE_S)
    one.send(8, 9, together=True)
    one.settle(9)
    assert one.tracker.pace[-1][0] == 1


def test_the_tracker_learns_what_a_frame_costs_outside_the_step(bench):
    one = bench()
    one.tracker.go.clear()
    one.send(1)
    assert one.tracker.entered.acquire(timeout=PATIENCE_S)
    one.send(2)
    time.sleep(0.03)
    one.outputs.publishing_s = 0.02
    one.tracker.go.set()
    one.settle(2)
    first, second = (overhead for _, overhead in one.tracker.pace)
    report = one.outputs.statuses[1]
    # Frame 2 waited through the pause and through the publishing of frame 1, which counts once more as a forecast.
    assert second >= 30 + 20 + 20
    assert report.queue_ms + report.preprocess_ms >= second - one.outputs.statuses[0].publish_ms - 1e-6
    assert 0 <= first < second


def test_the_newest_frame_is_on_its_way_before_older_ones_are_reduced(bench, monkeypatch):
    one, reduced, on_its_way = bench(), [], []

    def reduce(image, side):
        # Were it the other way round, the step would wait for this, and this in vain for the step.
        on_its_way.append(one.tracker.entered.acquire(timeout=PATIENCE_S / 20))
        one.tracker.entered.release()
        reduced.append(int(image[0, 0, 0]))
        return image

    monkeypatch.setattr(frame_ring, "shrink", reduce)
    one.send(1, 2, 3, together=True, size=(482, 484))
    assert reduced == [1, 2, 3]
    assert all(on_its_way)
    # A second later nothing of those is held, and of the new ones only what is no older than the newest allows.
    one.send(40, 80, 81, together=True, size=(482, 484))
    assert reduced == [1, 2, 3, 80, 81]


def test_objects_are_counted_from_the_newest_result(bench):
    one = bench([box(1), box(3)])
    assert one.worker.objects == 0
    one.run(1)
    assert one.worker.objects == 2
    one.worker.remove_object(3).result(PATIENCE_S)
    one.run(2)
    assert one.worker.objects == 1


class SpyingFreshness:
    """Holds the first frame that it is asked about for ten minutes, the others not at all."""

    def __init__(self):
        self.stamps, self.asked, self.held = [], [], threading.Event()

    def seen(self, at):
        self.stamps.append(at)

    def hold_s(self, waited_s, receive_s, limit_s):
        self.asked.append((waited_s, receive_s, limit_s))
        first = not self.held.is_set()
        self.held.set()
        return 600.0 if first else 0.0


def test_a_frame_that_is_held_back_gives_way_to_the_next(bench):
    one = bench(max_frame_age_ms=900.0)
    spy = one.worker._freshness = SpyingFreshness()
    one.send(1)
    assert spy.held.wait(PATIENCE_S)
    one.now_ms += 20
    one.send(2)
    counts = one.settle(2)
    assert [number for number, _ in one.outputs.published] == [2]
    assert (counts.received, counts.processed, counts.dropped) == (2, 1, 1)
    assert spy.stamps == [stamp_of(1) / 1e9, stamp_of(2) / 1e9]
    waited, receive, limit = spy.asked[0]
    assert 0.0 <= waited < PATIENCE_S
    assert receive == pytest.approx(0.0) and limit == pytest.approx(0.9)


def test_a_worker_stops_while_it_holds_a_frame(bench):
    one = bench()
    spy = one.worker._freshness = SpyingFreshness()
    one.send(1)
    assert spy.held.wait(PATIENCE_S)
    one.worker.stop()
    assert one.worker.counters.snapshot().dropped == 1
