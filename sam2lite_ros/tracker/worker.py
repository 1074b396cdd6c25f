"""Inference thread: take the newest frame, track, publish the result."""

import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from time import perf_counter, sleep
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from sensor_msgs.msg import CompressedImage, Image

from sam2lite_core.errors import Sam2LiteError
from sam2lite_core.types import Prompt, TrackResult
from sam2lite_ros.conversions import to_rgb
from sam2lite_ros.tracker.counters import FrameCounters, FrameLog
from sam2lite_ros.tracker.frame_ring import FrameRing, HeldFrame
from sam2lite_ros.tracker.freshness import Freshness
from sam2lite_ros.tracker.late_prompts import CATCH_UP_STEPS, scale_prompt, spread
from sam2lite_ros.tracker.mailbox import Command, Mailbox, ReceivedFrame
from sam2lite_ros.tracker.outputs import Outputs
from sam2lite_ros.tracker.parameters import TrackerParameters
from sam2lite_ros.tracker.prompts import PromptRequest, resolve_id, stamp_nanoseconds
from sam2lite_ros.tracker.watchdog import Watchdog

if TYPE_CHECKING:
    from sam2lite_core.tracker import Tracker

HAND_OVER_S = 1e-4
"""Pause of the executor's thread once a frame is in the mailbox, so that the inference thread gets Python's lock: a VGA
frame then waits for 0.2 ms instead of 0.7."""

POLL_S = 0.1
"""Seconds between two checks of `stop` for a step that hangs."""


class TrackingWorker:
    """Inference thread, from construction to `stop`; only it touches the tracker."""

    def __init__(
        self,
        tracker: "Tracker",
        parameters: TrackerParameters,
        first_prompts: Sequence[Prompt],
        labels: dict[int, str],
        outputs: Outputs,
        log: FrameLog,
        now_ns: Callable[[], int],
    ) -> None:
        self.counters = FrameCounters()
        self.watchdog = Watchdog()
        self._tracker = tracker
        self._parameters = parameters
        self._first_prompts = tuple(first_prompts)
        self._labels = labels
        self._outputs = outputs
        self._log = log
        self._now_ns = now_ns
        self._freshness = Freshness()
        self._mailbox: Mailbox[ReceivedFrame] = Mailbox(self._hold_s)
        self._ring = FrameRing()
        self._last: ReceivedFrame | None = None
        self._stepped: int | None = None  # sequence of the frame stepped last
        self._published_ms = 0.0  # what publishing took last time
        self._objects = len(tracker.object_ids)
        self._thread = threading.Thread(target=self._run, name="inference", daemon=True)
        self._thread.start()

    @property
    def first_prompts_pending(self) -> tuple[Prompt, ...]:
        """Prompts that still wait for a first frame; a later activation takes them over."""
        return self._first_prompts

    @property
    def objects(self) -> int:
        """Number of objects in the newest result; may be read from any thread."""
        return self._objects

    def receive(self, messages: Sequence[Image | CompressedImage]) -> None:
        """Accept images, oldest first, without waiting for the model.

        The newest replaces the frame that waits for the next step; the others are dropped.
        """
        arrived = perf_counter()
        frames = []
        for message in messages:
            stamp_ns = stamp_nanoseconds(message.header.stamp)
            receive_ms = (self._now_ns() - stamp_ns) / 1e6 if stamp_ns else 0.0
            frames.append(ReceivedFrame(message, stamp_ns, self.counters.count_received(), arrived, receive_ms))
            self._freshness.seen(stamp_ns / 1e9 if stamp_ns else arrived)
            self._ring.push(HeldFrame(message, stamp_ns, frames[-1].sequence))
        for _ in frames[:-1]:
            self.counters.count_dropped()
        if self._mailbox.put_frame(frames[-1]) is not None:
            self.counters.count_dropped()
        sleep(HAND_OVER_S)
        # Reducing a large image takes milliseconds: last, and only for frames that the ring still holds.
        for held in self._ring.since(frames[0].sequence - 1):
            held.reduce()

    def add_object(self, request: PromptRequest) -> "Future[Any]":
        """Prompt as soon as the running step ends; the future carries the object's id."""
        return self._mailbox.post(lambda: self._prompt(request), awaited=True)

    def remove_object(self, object_id: int) -> "Future[Any]":
        """Forget an object between two steps; UnknownObjectError through the future."""

        def remove() -> None:
            self._tracker.remove(object_id)
            self._labels.pop(object_id, None)

        return self._mailbox.post(remove, awaited=True)

    def reset(self) -> "Future[Any]":
        """Forget every object and all memory between two steps."""

        def reset() -> None:
            self._tracker.reset()
            self._stepped = None
            self._labels.clear()
            self._first_prompts = ()

        return self._mailbox.post(reset, awaited=True)

    def apply(self, parameters: TrackerParameters, change: Callable[[], None]) -> "Future[Any]":
        """Take over live parameters between two steps."""

        def take_over() -> None:
            change()
            self._parameters = parameters

        return self._mailbox.post(take_over)

    def refuse_while_hanging(self) -> None:
        """Answer operators who wait while a step hangs; to be called now and then."""
        if hang := self.watchdog.hang():
            self._mailbox.refuse_awaited(hang)

    def stop(self) -> bool:
        """End the thread after the running step; return False when that hangs: thread and tracker are given up."""
        if self._mailbox.close() is not None:
            self.counters.count_dropped()
        while self._thread.is_alive():
            self._thread.join(POLL_S)
            if self.watchdog.give_up():
                return False
        return True

    def _run(self) -> None:
        while (item := self._mailbox.next()) is not None:
            if isinstance(item, Command):
                item.run()
            else:
                self._take(item)

    def _hold_s(self, frame: ReceivedFrame) -> float:
        """Return the seconds for which a waiting frame is held back for its successor."""
        limit_ms = self._parameters.max_frame_age_ms
        return self._freshness.hold_s(
            perf_counter() - frame.arrived, frame.receive_ms / 1e3, None if limit_ms is None else limit_ms / 1e3
        )

    def _take(self, frame: ReceivedFrame) -> None:
        """Process a frame unless it is too old; count and log a failure."""
        limit = self._parameters.max_frame_age_ms
        age_ms = (self._now_ns() - frame.stamp_ns) / 1e6 if frame.stamp_ns else 0.0
        if limit is not None and age_ms > limit:
            self.counters.count_dropped()
            self._log.frame_too_old(age_ms, limit)
            return
        try:
            self._process(frame, self._first_prompts)
        except Exception as error:
            self.counters.count_failed(error)
            self._log.frame_failed(error)

    def _process(
        self,
        frame: ReceivedFrame,
        prompts: Sequence[Prompt],
        labels: Mapping[int, str] | None = None,
        again: bool = False,
    ) -> None:
        """Decode, step, publish, report.

        Args:
            frame: the frame.
            prompts: prompts on this frame, in its own pixels.
            labels: the operator's labels of the objects prompted here.
            again: the frame was processed before and is published once more for a prompt; not counted.
        """
        started = perf_counter()
        image = to_rgb(frame.message)
        decode_ms = (perf_counter() - started) * 1e3
        queue_ms = 0.0 if again else (started - frame.arrived) * 1e3
        # Publishing comes after the step; the last frame's time is the best guess.
        result = self._step(image, prompts, frame.sequence, queue_ms + decode_ms + self._published_ms)
        self._name(labels or {})
        self._last = frame
        publishing = perf_counter()
        self._outputs.publish(frame.message, image, result, dict(self._labels))
        finished = perf_counter()
        self._published_ms = (finished - publishing) * 1e3
        total_ms = (finished - (started if again else frame.arrived)) * 1e3
        deadline = self._parameters.frame_deadline_ms or 0.0
        missed = deadline > 0 and total_ms > deadline
        if not again:
            self.counters.count_processed(total_ms, missed)
        timings = result.timings
        self._outputs.publish_status(
            frame.message,
            self.counters.snapshot(),
            receive_ms=frame.receive_ms,
            queue_ms=queue_ms,
            preprocess_ms=decode_ms + timings.preprocess_ms + timings.motion_ms,
            inference_ms=timings.inference_ms,
            publish_ms=timings.postprocess_ms + self._published_ms,
            age_ms=(self._now_ns() - frame.stamp_ns) / 1e6 if frame.stamp_ns else total_ms,
            deadline_ms=deadline,
            deadline_missed=missed,
            scale=float(result.scale),
            window=int(result.window),
            memory_tokens=int(result.memory_tokens_used),
            memory_budget=int(self._tracker.memory_budget),
        )

    def _step(
        self, image: NDArray[np.uint8], prompts: Sequence[Prompt], sequence: int, overhead_ms: float
    ) -> TrackResult:
        """Step with prompts; when the first frame's prompts are refused, log it and go on without them."""
        first = bool(prompts) and prompts is self._first_prompts
        if first:
            self._first_prompts = ()
        try:
            return self._advance(image, prompts, sequence, overhead_ms)
        except Sam2LiteError as error:
            if not first:
                raise
            self._log.frame_failed(error)
            return self._advance(image, (), sequence, overhead_ms)

    def _advance(
        self, image: NDArray[np.uint8], prompts: Sequence[Prompt], sequence: int, overhead_ms: float = 0.0
    ) -> TrackResult:
        """Step the tracker to the frame of this number, which may lie before the one stepped last."""
        elapsed = 1 if self._stepped is None else max(1, abs(sequence - self._stepped))
        with self.watchdog.watching():
            result = self._tracker.step(image, prompts, elapsed=elapsed, overhead_ms=overhead_ms)
        self._stepped = sequence
        self._objects = len(result.objects)
        if prompts:
            # A first prompt that still waits must not take over an object prompted meanwhile.
            ids = {prompt.object_id for prompt in prompts}
            self._first_prompts = tuple(prompt for prompt in self._first_prompts if prompt.object_id not in ids)
        return result

    def _name(self, labels: Mapping[int, str]) -> None:
        """Keep the labels of objects just prompted; an empty one does not replace another."""
        for object_id, label in labels.items():
            if label or object_id not in self._labels:
                self._labels[object_id] = label

    def _prompt(self, request: PromptRequest) -> int:
        """Apply a prompt on the frame that the operator saw, then catch up with the present; return the id."""
        taken = {*self._tracker.object_ids, *(prompt.object_id for prompt in self._first_prompts)}
        held = self._ring.find(request.stamp_ns)
        prompt = request.prompt(resolve_id(request.object_id, taken, self._parameters.mask_encoding))
        image, size = held.load()
        prompt.check_inside(*size)
        labels = {prompt.object_id: request.label}
        waiting = self._mailbox.take_frame_if(lambda frame: frame.sequence == held.sequence)
        if waiting is not None:
            self._process_prompted(waiting, prompt, labels)
        elif self._last is not None and self._last.sequence == held.sequence:
            self._process(self._last, [prompt], labels, again=True)
        else:
            self._advance(image, [scale_prompt(prompt, size, image.shape[:2])], held.sequence)
            self._name(labels)
            self._catch_up(held.sequence)
        return prompt.object_id

    def _process_prompted(self, frame: ReceivedFrame, prompt: Prompt, labels: Mapping[int, str]) -> None:
        """Process the waiting frame with the prompt; when that is refused, without it."""
        first = [other for other in self._first_prompts if other.object_id != prompt.object_id]
        try:
            self._process(frame, [*first, prompt], labels)
        except Sam2LiteError:
            self._take(frame)
            raise

    def _catch_up(self, sequence: int) -> None:
        """Step through at most `CATCH_UP_STEPS` frames after an old one, to find the object where it is now.

        A frame that cannot be used is logged and passed over.
        """
        last = self._last
        if last is None:
            return
        later = [frame for frame in self._ring.since(sequence) if frame.sequence <= last.sequence]
        for frame in spread(later, CATCH_UP_STEPS):
            try:
                if frame.sequence == last.sequence:
                    self._process(last, (), again=True)
                else:
                    self._advance(frame.load()[0], (), frame.sequence)
            except Exception as error:
                self._log.frame_failed(error)
