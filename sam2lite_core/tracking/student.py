"""Follow objects with the student: its memory bank, the motion between frames and the previous masks."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sam2lite_core.backends.base import Backend
from sam2lite_core.control.latency_table import LatencyTable
from sam2lite_core.control.measuring import measure_latency
from sam2lite_core.frame.geometry import Geometry
from sam2lite_core.frame.masks import impose_mask, label_map, probabilities, read_objects
from sam2lite_core.frame.motion import Motion, MotionEstimator
from sam2lite_core.frame.prompt_rasters import separate_masks
from sam2lite_core.graph_io import StepInputs, StepOutputs
from sam2lite_core.tracking.follower import ObjectSlots, StepReport, StepRequest
from sam2lite_core.tracking.settings import TrackerSettings
from sam2lite_core.tracking.stopwatch import Stopwatch
from sam2lite_core.types import ObjectState, Prompt, StepTimings, TrackResult

PROMPT_SCALE = 0.5
"""Boxes and points are read at this scale at most, and what was found is shown to memory at the frame's own: the
student finds objects better there, where the picture lies closer together (figures in the model card)."""


@dataclass(frozen=True)
class _Frame:
    """A frame on its way through a step.

    Attributes:
        request: what was asked for.
        motion: since the last step; None when it is not known.
        slots: object slot of each object.
    """

    request: StepRequest
    motion: Motion | None
    slots: dict[int, int]

    @property
    def ids(self) -> tuple[int, ...]:
        """Ids of the objects in the graphs' order."""
        return tuple(sorted(self.slots))


class StudentFollower:
    """Runs the student's graphs on each frame; see `Follower`."""

    fixed_size = False

    def __init__(self, backend: Backend, budget: int, policy: str, short_side: int) -> None:
        """Use a model that is open already.

        Args:
            backend: the runtime; its memory bank is this follower's.
            budget: memory budget B, tokens.
            policy: what memory keeps, one of `graph_io.POLICIES`.
            short_side: short side of the network's input at scale 1, px.
        """
        self.backend = backend
        self.short_side = short_side
        self.objects = ObjectSlots(backend.info.max_objects)
        self._budget, self._policy = budget, policy
        self._motion = MotionEstimator()
        self._masks: dict[int, NDArray[np.float32]] = {}  # (H/4, W/4) probability of each TRACKED object
        self._frame = 0

    def check(self, settings: TrackerSettings) -> None:
        """Accept: the student heeds every setting."""

    def step(self, request: StepRequest) -> StepReport:
        """Follow the objects into a frame: resize, measure motion, run the graphs, read the masks."""
        slots = self.objects.with_prompted(request.prompts, *request.size)
        prompts = separate_masks(request.prompts)
        clock = Stopwatch()
        geometry = Geometry.at_scale(request.size, request.scale, self.short_side)
        picture = geometry.picture(request.image)
        preprocess_ms = clock.lap()
        frame = _Frame(request, self._motion.update(request.image), slots)
        carried = geometry.carry(self._masks, frame.ids, frame.motion)
        motion_ms = clock.lap()
        outputs, reading_ms = None, 0.0
        if slots:
            try:
                if request.scale > PROMPT_SCALE and any(prompt.mask is None for prompt in prompts):
                    prompts = self._as_masks(frame, geometry, prompts)
                    reading_ms = clock.lap()
                outputs = self.backend.step(self._inputs(frame, geometry, prompts, picture, carried))
            except Exception:
                # The flow has moved on by a frame that the masks have not seen.
                self._masks.clear()
                raise
        inference_ms = reading_ms + clock.lap()
        self.objects.assign(slots)
        labels, objects = read_objects(outputs, frame.ids, prompts, request.size, request.presence_threshold)
        if outputs is not None:
            # A LOST object's place is unknown, not "nowhere": no mask is carried to the next frame.
            masks = zip(objects, probabilities(outputs.logits), strict=True)
            self._masks = {o.object_id: mask for o, mask in masks if o.state is ObjectState.TRACKED}
        timings = StepTimings(preprocess_ms, motion_ms, inference_ms, clock.lap())
        index, self._frame = self._frame, self._frame + 1
        tokens = 0 if outputs is None else outputs.tokens_used
        result = TrackResult(labels, objects, timings, request.scale, request.window, tokens, index)
        # A step without objects runs no model, one with a box two: they say nothing about those that run one.
        return StepReport(result, None if outputs is None else timings.total_ms - reading_ms)

    def measure(self, size: tuple[int, int], objects: int) -> LatencyTable:
        """Time a second follower around the same backend, whose memory is put back afterwards."""
        restore = self.backend.keep()
        second = StudentFollower(self.backend, self._budget, self._policy, self.short_side)

        def step(image: NDArray[np.uint8], prompts: Sequence[Prompt], scale: float, window: int) -> float:
            return second.step(StepRequest(image, prompts, scale, window)).result.timings.total_ms

        try:
            second.reset()
            return measure_latency(step, size, objects)
        finally:
            restore()

    def remove(self, object_id: int) -> None:
        """Stop following an object; its memory is forgotten on the next step."""
        self.objects.remove(object_id)
        self._masks.pop(object_id, None)
        if not self.objects.ids:
            self.backend.reset()

    def reset(self) -> None:
        """Forget every object, the memory bank and the previous frame."""
        self.backend.reset()
        self._motion.reset()
        self.objects.assign({})
        self._masks.clear()
        self._frame = 0

    def _inputs(
        self,
        frame: _Frame,
        geometry: Geometry,
        prompts: Sequence[Prompt],
        picture: NDArray[np.uint8],
        carried: NDArray[np.float32],
    ) -> StepInputs:
        """Collect the graphs' inputs; picture and carried masks come from the geometry."""
        request = frame.request
        return StepInputs(
            image=picture,
            motion=geometry.motion_map(frame.motion, request.elapsed),
            warped=carried,
            slots=tuple(frame.slots[object_id] for object_id in frame.ids),
            active=self.objects.active(),
            window=request.window,
            budget=self._budget,
            frame=self._frame,
            policy=self._policy,
            presence_threshold=request.presence_threshold,
            token_pool=geometry.token_pool(),
            prompt=geometry.prompt_inputs(frame.ids, prompts) if prompts else None,
        )

    def _as_masks(self, frame: _Frame, geometry: Geometry, prompts: tuple[Prompt, ...]) -> tuple[Prompt, ...]:
        """Read boxes and points at `PROMPT_SCALE` and return what they found as masks; memory stays as it is."""
        image, size = frame.request.image, frame.request.size
        coarse = Geometry.at_scale(size, PROMPT_SCALE, self.short_side)
        if coarse == geometry:
            return prompts
        carried = coarse.carry(self._masks, frame.ids, frame.motion)
        restore = self.backend.keep()
        try:
            outputs = self.backend.step(self._inputs(frame, coarse, prompts, coarse.picture(image), carried))
        finally:
            restore()
        return _found_masks(outputs, frame.ids, prompts, size)


def _found_masks(
    outputs: StepOutputs, ids: Sequence[int], prompts: Sequence[Prompt], size: tuple[int, int]
) -> tuple[Prompt, ...]:
    """Replace each box and point by the mask that it found, if any; size: (height, width) of the source, px."""
    labels = label_map(outputs.logits, ids, *size)
    for prompt in prompts:
        if prompt.mask is not None:
            impose_mask(labels, prompt.object_id, prompt.mask)
    found = set(np.unique(labels).tolist())
    return tuple(
        Prompt(object_id=prompt.object_id, mask=labels == prompt.object_id)
        if prompt.mask is None and prompt.object_id in found
        else prompt
        for prompt in prompts
    )
