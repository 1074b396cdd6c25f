"""The inference thread: takes the newest frame, tracks, hands the result to the publishers."""

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from time import perf_counter
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray
from sensor_msgs.msg import CompressedImage, Image

from sam2lite_core.errors import Sam2LiteError
from sam2lite_core.types import Prompt, TrackResult
from sam2lite_ros.conversions import to_rgb
from sam2lite_ros.counters import FrameCounters, StepReport
from sam2lite_ros.mailbox import Command, Mailbox
from sam2lite_ros.parameters import TrackerParameters
from sam2lite_ros.prompting import PromptRequest, resolve_id, stamp_nanoseconds
from sam2lite_ros.ring import FrameRing, HeldFrame, scale_prompt, shrink, spread

if TYPE_CHECKING:
    from sam2lite_core.tracker import Tracker

HELD_SHORT_SIDE = 480
"""Short side in pixels to which frames of the ring are reduced: the model sees no more than that (scale 1)."""

CATCH_UP_STEPS = 4
"""Most frames stepped to get from an old prompted frame to the present; each costs a step of delay."""


@dataclass(frozen=True)
class ReceivedFrame:
    """A message and when it came.

    Attributes:
        message: raw or compressed image.
        stamp_ns: header stamp, nanoseconds.
        sequence: position in the order of arrival since activation, from 1.
        arrived: `perf_counter` at the subscription callback, seconds.
        receive_ms: from the header's stamp to the callback; 0 when the stamp is zero.
    """

    message: Image | CompressedImage
    stamp_ns: int
    sequence: int
    arrived: float
    receive_ms: float


class Listener(Protocol):
    """What the node does with what comes out; called from the inference thread."""

    def publish(
        self,
        message: Image | CompressedImage,
        image: NDArray[np.uint8],
        result: TrackResult,
        labels: dict[int, str],
    ) -> None:
        """Publish a result under its message's header."""

    def report(self, message: Image | CompressedImage, report: StepReport) -> None:
        """Publish how the step went."""

    def frame_failed(self, error: Exception) -> None:
        """Log that a frame could not be used."""

    def frame_too_old(self, age_ms: float, limit_ms: float) -> None:
        """Log that a frame was dropped for its age."""


class TrackingWorker:
    """Owns the tracker while the node is active; everything that touches it runs on one thread, in order."""

    def __init__(
        self,
        tracker: "Tracker",
        parameters: TrackerParameters,
        first_prompts: Sequence[Prompt],
        labels: dict[int, str],
        listener: Listener,
        now_ns: Callable[[], int],
    ) -> None:
        self.counters = FrameCounters()
        self._tracker = tracker
        self._parameters = parameters
        self._first_prompts = tuple(first_prompts)
        self._labels = labels
        self._listener = listener
        self._now_ns = now_ns
        self._mailbox: Mailbox[ReceivedFrame] = Mailbox()
        self._ring = FrameRing()
        self._last: ReceivedFrame | None = None
        self._thread = threading.Thread(target=self._run, name="inference", daemon=True)
        self._thread.start()

    @property
    def first_prompts_pending(self) -> tuple[Prompt, ...]:
        """Prompts that still wait for a first frame; a later activation takes them over."""
        return self._first_prompts

    def receive(self, messages: Sequence[Image | CompressedImage]) -> None:
        """Accept what the subscription had, oldest first, without waiting for the model.

        The newest waits for the next step, in place of whatever waited before; the others are dropped.
        """
        arrived = perf_counter()
        for message in messages:
            stamp_ns = stamp_nanoseconds(message.header.stamp)
            receive_ms = (self._now_ns() - stamp_ns) / 1e6 if stamp_ns else 0.0
            sequence = self.counters.count_received()
            self._ring.push(HeldFrame(stamp_ns, sequence, _loader(message)))
            frame = ReceivedFrame(message, stamp_ns, sequence, arrived, receive_ms)
            if message is not messages[-1] or self._mailbox.put_frame(frame) is not None:
                self.counters.count_dropped()

    def add_object(self, request: PromptRequest) -> "Future[Any]":
        """Prompt as soon as the running step ends; the future carries the object's id."""
        return self._mailbox.post(lambda: self._prompt(request))

    def remove_object(self, object_id: int) -> "Future[Any]":
        """Forget an object between two steps; UnknownObjectError through the future."""

        def remove() -> None:
            self._tracker.remove(object_id)
            self._labels.pop(object_id, None)

        return self._mailbox.post(remove)

    def reset(self) -> "Future[Any]":
        """Forget every object and all memory between two steps."""

        def reset() -> None:
            self._tracker.reset()
            self._labels.clear()
            self._first_prompts = ()

        return self._mailbox.post(reset)

    def apply(self, parameters: TrackerParameters, change: Callable[[], None]) -> "Future[Any]":
        """Take over live parameters between two steps."""

        def take_over() -> None:
            change()
            self._parameters = parameters

        return self._mailbox.post(take_over)

    def stop(self) -> None:
        """End the thread after the running step; a waiting frame is counted as dropped."""
        if self._mailbox.close() is not None:
            self.counters.count_dropped()
        self._thread.join()

    def _run(self) -> None:
        while (item := self._mailbox.next()) is not None:
            if isinstance(item, Command):
                item.run()
            else:
                self._take_safely(item)

    def _take_safely(self, frame: ReceivedFrame) -> None:
        """Process a frame; whatever goes wrong with it is counted and logged, and the next one gets its chance."""
        try:
            self._take(frame)
        except Exception as error:
            self.counters.count_failed(error)
            self._listener.frame_failed(error)

    def _take(self, frame: ReceivedFrame) -> None:
        """Process a frame from the mailbox, unless it is too old already."""
        limit = self._parameters.max_frame_age_ms
        age_ms = (self._now_ns() - frame.stamp_ns) / 1e6 if frame.stamp_ns else 0.0
        if limit is not None and age_ms > limit:
            self.counters.count_dropped()
            self._listener.frame_too_old(age_ms, limit)
            return
        self._process(frame, self._first_prompts)

    def _process(self, frame: ReceivedFrame, prompts: Sequence[Prompt], again: bool = False) -> None:
        """Decode, step, publish, report.

        Args:
            frame: what to process.
            prompts: prompts on this frame, in its own pixels.
            again: the frame was processed before and is published once more because of a prompt; not counted.
        """
        started = perf_counter()
        image = to_rgb(frame.message)
        decode_ms = (perf_counter() - started) * 1e3
        result = self._step(image, prompts)
        self._last = frame
        publishing = perf_counter()
        self._listener.publish(frame.message, image, result, dict(self._labels))
        finished = perf_counter()
        total_ms = (finished - (started if again else frame.arrived)) * 1e3
        deadline = self._parameters.frame_deadline_ms or 0.0
        missed = deadline > 0 and total_ms > deadline
        if not again:
            self.counters.count_processed(total_ms, missed)
        timings = result.timings
        self._listener.report(
            frame.message,
            StepReport(
                receive_ms=frame.receive_ms,
                queue_ms=0.0 if again else (started - frame.arrived) * 1e3,
                preprocess_ms=decode_ms + timings.preprocess_ms + timings.motion_ms,
                inference_ms=timings.inference_ms,
                publish_ms=timings.postprocess_ms + (finished - publishing) * 1e3,
                age_ms=(self._now_ns() - frame.stamp_ns) / 1e6 if frame.stamp_ns else total_ms,
                deadline_ms=deadline,
                deadline_missed=missed,
                scale=result.scale,
                window=result.window,
                memory_tokens=result.memory_tokens_used,
                memory_budget=self._tracker.memory_budget,
                counts=self.counters.snapshot(),
            ),
        )

    def _step(self, image: NDArray[np.uint8], prompts: Sequence[Prompt]) -> TrackResult:
        """Step with prompts; when the first frame's prompts are refused, say so once and go on without them."""
        if not prompts or prompts is not self._first_prompts:
            return self._tracker.step(image, prompts)
        self._first_prompts = ()
        try:
            return self._tracker.step(image, prompts)
        except Sam2LiteError as error:
            self._listener.frame_failed(error)
            return self._tracker.step(image)

    def _prompt(self, request: PromptRequest) -> int:
        """Apply a prompt on the frame that the operator saw, then catch up with the present."""
        held = self._ring.find(request.stamp_ns)
        object_id = resolve_id(request.object_id, self._tracker.object_ids, self._parameters.mask_encoding)
        prompt = request.prompt(object_id)
        image, size = held.load()
        prompt.check_inside(*size)
        waiting = self._mailbox.take_frame_if(lambda frame: frame.sequence == held.sequence)
        if waiting is not None:
            self._process_prompted(waiting, prompt)
        elif self._last is not None and self._last.sequence == held.sequence:
            self._process(self._last, [prompt], again=True)
        else:
            self._tracker.step(image, [scale_prompt(prompt, size, image.shape[:2])])
            self._catch_up(held)
        self._labels[object_id] = request.label
        return object_id

    def _process_prompted(self, frame: ReceivedFrame, prompt: Prompt) -> None:
        """Process the frame that was waiting, with the prompt; a refused prompt does not cost the frame."""
        try:
            self._process(frame, [prompt])
        except Sam2LiteError:
            self._take_safely(frame)
            raise

    def _catch_up(self, held: HeldFrame) -> None:
        """Step through some of the frames after an old one, so that the object is found where it is now."""
        waiting = self._mailbox.waiting_frame()
        newer = [
            frame
            for frame in self._ring.since(held.sequence)
            if waiting is None or frame.sequence < waiting.sequence
        ]
        for frame in spread(newer, CATCH_UP_STEPS):
            if self._last is not None and frame.sequence == self._last.sequence:
                self._process(self._last, (), again=True)
            else:
                self._tracker.step(frame.load()[0])


def _loader(message: Image | CompressedImage) -> Callable[[], tuple[NDArray[np.uint8], tuple[int, int]]]:
    """Return what gives the image at no more than scale 1, and the (height, width) of the source.

    Small and compressed messages are kept as they are, which costs nothing; a large raw one is reduced now,
    since a second of them would fill hundreds of megabytes.
    """

    def load() -> tuple[NDArray[np.uint8], tuple[int, int]]:
        image = to_rgb(message)
        return shrink(image, HELD_SHORT_SIDE), (image.shape[0], image.shape[1])

    if isinstance(message, CompressedImage) or min(message.height, message.width) <= HELD_SHORT_SIDE:
        return load
    try:
        reduced = load()
    except Exception:
        # The inference thread reports the bad message; whoever prompts on it gets the same error.
        return load
    return lambda: reduced
