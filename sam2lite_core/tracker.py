"""The tracker: frames and prompts in, masks out. The one public face of the core.

tracker = Tracker.from_pretrained("tiny")
result = tracker.step(image, [Prompt(object_id=1, box=(100, 80, 220, 300))])
for image in camera:
    result = tracker.step(image)
"""

import copy
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sam2lite_core.backends.base import Backend, BackendSettings
from sam2lite_core.backends.foreign import FrameBackend, FrameInputs
from sam2lite_core.backends.model_files import find_model, foreign_folder
from sam2lite_core.backends.registry import FRAME_BACKENDS, open_backend, open_frame_backend
from sam2lite_core.control import measuring
from sam2lite_core.control.base import Controller, ControllerConfig, ControllerState
from sam2lite_core.control.latency_table import LatencyTable
from sam2lite_core.control.registry import DEFAULT_CONTROLLER, make_controller
from sam2lite_core.errors import ConfigurationError, InvalidPromptError, UnknownObjectError
from sam2lite_core.frame import masks as postprocess
from sam2lite_core.frame import prompt_rasters, resolution
from sam2lite_core.frame.motion import Motion, MotionEstimator
from sam2lite_core.frame.resolution import REFERENCE_SOURCE
from sam2lite_core.graph_io import StepInputs, StepOutputs
from sam2lite_core.tracking import settings
from sam2lite_core.tracking.stopwatch import Stopwatch
from sam2lite_core.types import ObjectState, Prompt, StepTimings, TrackResult, check_image
from sam2lite_core.variants import DEFAULT_POLICY, PATCH, get_variant

FloatArray = NDArray[np.float32]


PROMPT_SCALE = 0.5
"""Boxes and points are read at this scale at most, and what was found is shown to memory at the frame's own: the
student finds objects better there, where the picture lies closer together (figures in the model card)."""


@dataclass(frozen=True)
class _Frame:
    """A frame on its way through a step.

    Attributes:
        image: (H, W, 3) uint8 RGB.
        motion: since the last step.
        elapsed: frames of the source since then.
        slots: of all objects.
        window: W in frames.
    """

    image: NDArray[np.uint8]
    motion: Motion | None
    elapsed: int
    slots: dict[int, int]
    window: int


def _default_controller(scale: float | None) -> str:
    """Who keeps a deadline when nobody was chosen; where the scale is fixed, the window is all that can give way."""
    return DEFAULT_CONTROLLER if scale is None else "plain"


class Tracker:
    """Follows prompted objects from frame to frame with a bounded memory.

    Not thread-safe: call it from one thread.
    """

    def __init__(
        self,
        variant: str = "tiny",
        backend: str | Backend = "auto",
        precision: str = "auto",
        deadline_ms: float | None = None,
        scale: float | None = None,
        memory_budget: int | None = None,
        memory_policy: str = DEFAULT_POLICY,
        base_short_side: int = 480,
        threads: int | None = None,
        model_path: str | Path | None = None,
        presence_threshold: float = 0.5,
        device: str = "auto",
        controller: str | None = None,
    ) -> None:
        """Load a model.

        Args:
            variant: tiny, small or base.
            backend: one of `backends.registry.BACKENDS`, or auto for the best that is installed; transformers for a SAM
                2.1 or EdgeTAM of your own, which has a size and a memory of its own: leave variant, scale,
                memory_budget, memory_policy, base_short_side and controller as they are by default. Or a Backend that
                is open already, and then precision, threads, model_path and device were its opener's choice.
            precision: auto, fp32, fp16 or int8, as far as the backend has it.
            deadline_ms: time a step may take; the controller lowers the resolution to keep it. None: full resolution.
            scale: fixes the resolution scale, 0.5..1; the controller then leaves it alone.
            memory_budget: tokens in memory, 64..1024; None for the variant's.
            memory_policy: learned, fifo, random or uniform: what memory keeps.
            base_short_side: short side of the network's input at scale 1, px.
            threads: CPU threads of the runtime; None for its own choice.
            model_path: folder of an exported model instead of the shipped one; for transformers, a folder in Hugging
                Face's layout.
            presence_threshold: an object below it is LOST.
            device: where the backend computes, as it names its devices; auto for the best that it finds.
            controller: plain, predictive or off: how the deadline is kept; None for predictive when there is a
                deadline, plain when the scale is fixed besides. For predictive, loading includes measuring the device,
                see `measure_latency`.

        Raises:
            UnknownVariantError, BackendError, ModelFileError, ConfigurationError: naming the value and what is allowed.
        """
        definition = get_variant(variant)
        self._budget = settings.check_budget(
            definition.memory_budget if memory_budget is None else memory_budget
        )
        self._policy = settings.check_policy(memory_policy)
        self._short_side = settings.check_short_side(base_short_side)
        uncontrolled = deadline_ms is None or backend in FRAME_BACKENDS
        self._controller_chosen = controller is not None
        self._settings = settings.TrackerSettings(
            controller or ("off" if uncontrolled else _default_controller(scale)),
            ControllerConfig(deadline_ms=deadline_ms),
            scale,
            presence_threshold,
        )
        own = settings.check_precision(precision), settings.check_threads(threads), device
        self._backend: Backend | FrameBackend
        if not isinstance(backend, str):
            self._backend = backend
            self._check_variant(variant, f"backend {backend.name}")
        elif backend in FRAME_BACKENDS:
            chosen = settings.StudentChoices(variant, memory_budget, memory_policy, base_short_side)
            settings.check_foreign(backend, chosen, self._settings)
            folder = foreign_folder(backend, model_path)
            self._backend = open_frame_backend(backend, BackendSettings(folder, self._budget, *own))
        else:
            folder = find_model(definition, model_path)
            self._backend = open_backend(backend, BackendSettings(folder, self._budget, *own))
            self._check_variant(variant, str(folder))
        self._motion = MotionEstimator()
        self._slot_of: dict[int, int] = {}
        self._masks: dict[int, FloatArray] = {}  # last probability of each object that is not LOST, stride 4
        self._frame = 0
        self._source = REFERENCE_SOURCE  # height and width of the last frame
        self._table: LatencyTable | None = None
        # Measuring for `predictive` steps a copy of this tracker, which is uncontrolled and needs a state all the same.
        self._controller: Controller = make_controller("off", ControllerConfig())
        self._control: ControllerState = self._controller.start()
        self._controller = self._make_controller(self._settings)
        self._control = self._controller.start()

    @classmethod
    def from_pretrained(cls, variant: str = "tiny", **options: Any) -> "Tracker":
        """Load the weights that ship with the package; options as for the constructor."""
        return cls(variant, **options)

    # ---- what a caller may read and set ---------------------------------------------------------------------------

    @property
    def object_ids(self) -> tuple[int, ...]:
        """Ids of the objects that are followed, ascending."""
        return tuple(sorted(self._slot_of))

    @property
    def backend(self) -> Backend | FrameBackend:
        """The runtime in use."""
        return self._backend

    @property
    def fixed_size(self) -> bool:
        """Whether the model takes every frame at a size of its own, so that no scale or controller has a say."""
        return isinstance(self._backend, FrameBackend)

    @property
    def memory_budget(self) -> int:
        """Most tokens that memory may hold."""
        return self._budget

    @property
    def max_objects(self) -> int:
        """Most objects that can be followed at once."""
        return self._backend.info.max_objects

    def _check_variant(self, variant: str, place: str) -> None:
        if self._backend.info.variant != variant:
            raise ConfigurationError(f"{place} holds variant {self._backend.info.variant}, not {variant}")

    @property
    def presence_threshold(self) -> float:
        """An object whose presence is below it is LOST, 0..1."""
        return self._settings.presence_threshold

    @presence_threshold.setter
    def presence_threshold(self, value: float) -> None:
        self.configure(presence_threshold=value)

    @property
    def scale(self) -> float | None:
        """Fixed resolution scale, or None when the controller chooses."""
        return self._settings.scale

    @scale.setter
    def scale(self, value: float | None) -> None:
        self.configure(scale=value)

    @property
    def controller(self) -> str:
        """Name of the deadline controller."""
        return self._settings.controller

    @controller.setter
    def controller(self, value: str) -> None:
        self.configure(controller=value)

    @property
    def deadline_ms(self) -> float | None:
        """Time a step may take, ms; None without a deadline. Setting one switches the controller on."""
        return self._settings.deadlines.deadline_ms

    @deadline_ms.setter
    def deadline_ms(self, value: float | None) -> None:
        if value is None:
            self.configure(controller="off", deadline_ms=None)
        else:
            # Only a tracker that never had a deadline is switched on: "off" may be the caller's wish.
            fresh = self.deadline_ms is None and self.controller == "off" and not self.fixed_size
            chosen = self._controller_chosen
            self.configure(
                deadline_ms=value, **({"controller": _default_controller(self.scale)} if fresh else {})
            )
            self._controller_chosen = chosen

    def configure(self, **changes: Any) -> None:
        """Change several settings at once, all or none.

        Args:
            **changes: controller, scale, presence_threshold, and the fields of `ControllerConfig` (deadline_ms, kp,
                ki, kd, min_scale, max_scale, min_window, max_window, …).

        Raises:
            ConfigurationError: a value outside its range; nothing has changed then.
        """
        own = {
            name: changes.pop(name)
            for name in ("controller", "scale", "presence_threshold")
            if name in changes
        }
        chosen = "controller" in own
        if "scale" in own and self.controller != "off" and not (chosen or self._controller_chosen):
            own["controller"] = _default_controller(own["scale"])
        try:
            deadlines = replace(self._settings.deadlines, **changes)
        except TypeError as error:
            raise ConfigurationError(f"unknown setting among {', '.join(changes)}") from error
        wanted = replace(self._settings, deadlines=deadlines, **own)
        if isinstance(self._backend, FrameBackend):
            settings.check_foreign(self._backend.name, settings.StudentChoices(), wanted)
        controller = self._make_controller(wanted)
        self._settings, self._controller = wanted, controller
        self._controller_chosen = self._controller_chosen or chosen
        self._control = controller.resume(self._control)

    def measure_latency(
        self, size: tuple[int, int] | None = None, objects: int | None = None
    ) -> LatencyTable:
        """Time steps at every resolution rung, for the controller `predictive`; takes seconds on a slow CPU.

        That controller measures by itself when it is chosen for the first time; measure again when the camera or the
        device's clock has changed. Objects, memory and settings stay as they are.

        Args:
            size: (height, width) of the frames to come, px; None for the last frame's, or 480x854 before the first.
            objects: how many objects to time with; None for those that are followed, at least one.

        Returns:
            The table, which the controller uses from now on.

        Raises:
            BackendError: the runtime failed.
            ConfigurationError: the model has one size only.
        """
        if self.fixed_size:
            raise ConfigurationError(
                f"backend {self._backend.name} has one size only; there are no rungs to measure"
            )
        table = self._timed(size or self._source, objects or max(1, len(self._slot_of)))
        self._table = table
        if self.controller == "predictive":
            self._controller = self._make_controller(self._settings)
            self._control = self._controller.start()
        return table

    def _timed(self, size: tuple[int, int], objects: int) -> LatencyTable:
        """Step a second tracker around the same backend, whose memory is put back afterwards."""
        restore = self._backend.keep()
        probe = copy.copy(self)
        probe._settings = settings.TrackerSettings("off", ControllerConfig())
        probe._motion, probe._slot_of, probe._masks = MotionEstimator(), {}, {}
        frames = measuring.moving_frames(*size)

        def step(scale: float, window: int) -> float:
            probe.configure(scale=scale, min_window=window, max_window=window)
            return probe.step(next(frames)).timings.total_ms

        try:
            probe.configure()
            probe.reset()
            probe.step(next(frames), measuring.boxes(objects, *size))
            return measuring.measure_table(step)
        finally:
            restore()

    def _make_controller(self, wanted: settings.TrackerSettings) -> Controller:
        """Build the controller; `predictive` measures the device first, unless that was done."""
        predicts = wanted.controller == "predictive" and wanted.deadlines.deadline_ms is not None
        if predicts and self._table is None:
            self._table = self._timed(self._source, max(1, len(self._slot_of)))
        return make_controller(wanted.controller, wanted.deadlines, self._table)

    # ---- tracking -------------------------------------------------------------------------------------------------

    def step(
        self,
        image: NDArray[np.uint8],
        prompts: Sequence[Prompt] = (),
        *,
        elapsed: int = 1,
        overhead_ms: float = 0.0,
    ) -> TrackResult:
        """Track every object into the next frame.

        Args:
            image: (H, W, 3) uint8 RGB; another size than the last frame's is legal.
            prompts: objects shown on this frame: new ones, or known ones shown again. Where given masks overlap, the
                smaller one is on top.
            elapsed: frames of the source since the last step, 1 when none was skipped; motion is per frame.
            overhead_ms: what this frame costs outside the step (queueing, decoding, publishing), for the controller.

        Returns:
            Masks at the image's size, and how they came about.

        Raises:
            InvalidFrameError, InvalidPromptError: before anything has changed.
            BackendError: the runtime failed; the memory is as before, the previous masks are not carried on.
        """
        height, width = check_image(image)
        slots = self._assign(prompts, height, width)
        prompts = prompt_rasters.separate_masks(prompts)
        if isinstance(self._backend, FrameBackend):
            return self._step_whole(self._backend, image, slots, prompts)
        clock = Stopwatch()
        scale = self._settings.scale if self._settings.scale is not None else self._control.scale
        rows, columns = resolution.network_size(height, width, scale, self._short_side)
        small = resolution.resize(image, rows, columns)
        preprocess_ms = clock.lap()
        motion = self._motion.update(image)
        ids = tuple(sorted(slots))
        warped = self._warp(ids, motion, rows // prompt_rasters.STRIDE, columns // prompt_rasters.STRIDE)
        motion_ms = clock.lap()
        window = self._control.window
        outputs, reading_ms = None, 0.0
        if ids:
            current = _Frame(image, motion, elapsed, slots, window)
            try:
                if scale > PROMPT_SCALE and any(prompt.mask is None for prompt in prompts):
                    prompts = self._as_masks(current, prompts, (rows, columns))
                    reading_ms = clock.lap()
                outputs = self._backend.step(self._inputs(current, prompts, small, warped))
            except Exception:
                # The flow has moved on by a frame that the masks have not seen.
                self._masks.clear()
                raise
        inference_ms = clock.lap()
        self._slot_of, self._source = slots, (height, width)
        result = self._result(outputs, ids, prompts, height, width)
        timings = StepTimings(preprocess_ms, motion_ms, reading_ms + inference_ms, clock.lap())
        if ids:
            # A step without objects runs no model, one with a box two: they say nothing about those that run one.
            usual_ms = timings.total_ms - reading_ms
            self._control = self._controller.update(self._control, usual_ms, overhead_ms)
        frame, self._frame = self._frame, self._frame + 1
        return replace(result, timings=timings, scale=scale, window=window, frame_index=frame)

    def _inputs(
        self, frame: _Frame, prompts: Sequence[Prompt], small: NDArray[np.uint8], warped: FloatArray
    ) -> StepInputs:
        """What the graphs take. small: the frame at the network's size; warped: from `_warp`, at a quarter of it."""
        height, width = frame.image.shape[:2]
        size = rows, columns = small.shape[0], small.shape[1]
        ids = sorted(frame.slots)
        return StepInputs(
            image=small,
            motion=prompt_rasters.motion_map(frame.motion, rows // PATCH, columns // PATCH, frame.elapsed),
            warped=warped,
            slots=tuple(frame.slots[i] for i in ids),
            active=self._active(),
            window=frame.window,
            budget=self._budget,
            frame=self._frame,
            policy=self._policy,
            presence_threshold=self._settings.presence_threshold,
            token_pool=resolution.token_pool(height, width, size, self._short_side),
            prompt=prompt_rasters.prompt_inputs(ids, prompts, (height, width), size) if prompts else None,
        )

    def _as_masks(
        self, frame: _Frame, prompts: Sequence[Prompt], network: tuple[int, int]
    ) -> Sequence[Prompt]:
        """Read boxes and points at `PROMPT_SCALE`, and give what they found as masks; memory stays as it is.

        Args:
            frame: that they speak of.
            prompts: of the frame; given masks are handed on.
            network: (H, W) of the network's input for the frame itself; small frames have the same at any scale, and
                then there is nothing to do.

        Returns:
            The prompts, with a mask in place of every box and point that found something.

        Raises:
            BackendError: the runtime failed.
        """
        height, width = frame.image.shape[:2]
        ids = sorted(frame.slots)
        rows, columns = resolution.network_size(height, width, PROMPT_SCALE, self._short_side)
        if (rows, columns) == network:
            return prompts
        small = resolution.resize(frame.image, rows, columns)
        warped = self._warp(
            ids, frame.motion, rows // prompt_rasters.STRIDE, columns // prompt_rasters.STRIDE
        )
        assert not isinstance(self._backend, FrameBackend), "foreign models read prompts themselves"
        restore = self._backend.keep()
        try:
            outputs = self._backend.step(self._inputs(frame, prompts, small, warped))
        finally:
            restore()
        labels = postprocess.label_map(outputs.logits, ids, height, width)
        for prompt in prompts:
            if prompt.mask is not None:
                postprocess.impose_mask(labels, prompt.object_id, prompt.mask)
        found = set(np.unique(labels).tolist())
        return tuple(
            Prompt(object_id=prompt.object_id, mask=labels == prompt.object_id)
            if prompt.mask is None and prompt.object_id in found
            else prompt
            for prompt in prompts
        )

    def _step_whole(
        self,
        backend: FrameBackend,
        image: NDArray[np.uint8],
        slots: dict[int, int],
        prompts: Sequence[Prompt],
    ) -> TrackResult:
        """A step of a foreign model, which prepares the frame itself: that counts as inference."""
        height, width = image.shape[:2]
        ids = tuple(sorted(slots))
        clock = Stopwatch()
        outputs = None
        if ids:
            followed = frozenset(self._slot_of)
            threshold = self._settings.presence_threshold
            outputs = backend.step_frame(FrameInputs(image, ids, prompts, followed, self._frame, threshold))
        inference_ms = clock.lap()
        self._slot_of, self._source = slots, (height, width)
        result = self._result(outputs, ids, prompts, height, width)
        timings = StepTimings(inference_ms=inference_ms, postprocess_ms=clock.lap())
        frame, self._frame = self._frame, self._frame + 1
        return replace(result, timings=timings, window=backend.window, frame_index=frame)

    def remove(self, object_id: int) -> None:
        """Stop following an object; its memory is forgotten on the next step.

        Raises:
            UnknownObjectError: no such object.
        """
        if object_id not in self._slot_of:
            known = ", ".join(map(str, self.object_ids)) or "none"
            raise UnknownObjectError(f"object {object_id} is not followed; followed are: {known}")
        del self._slot_of[object_id]
        self._masks.pop(object_id, None)
        if not self._slot_of:
            self._backend.reset()

    def reset(self) -> None:
        """Forget every object, the memory and the previous frame."""
        self._backend.reset()
        self._motion.reset()
        self._slot_of.clear()
        self._masks.clear()
        self._control = self._controller.start()
        self._frame = 0

    # ---- parts of a step ------------------------------------------------------------------------------------------

    def _assign(self, prompts: Sequence[Prompt], height: int, width: int) -> dict[int, int]:
        """Slots of all objects after these prompts; raises before anything has changed."""
        slots = dict(self._slot_of)
        seen: set[int] = set()
        for prompt in prompts:
            prompt.check_inside(height, width)
            if prompt.object_id in seen:
                raise InvalidPromptError(
                    f"object {prompt.object_id} is prompted twice on one frame; merge the prompts"
                )
            seen.add(prompt.object_id)
            if prompt.object_id in slots:
                continue
            free = sorted(set(range(self.max_objects)) - set(slots.values()))
            if not free:
                raise InvalidPromptError(
                    f"object {prompt.object_id} is one too many: this model follows {self.max_objects} at once; "
                    "remove one, or export with more slots"
                )
            slots[prompt.object_id] = free[0]
        return slots

    def _warp(self, ids: Sequence[int], motion: Motion | None, rows: int, columns: int) -> FloatArray:
        """Previous masks (K, rows, columns) carried along the flow, -1..1; 0 where nothing is known."""
        warped = np.zeros((len(ids), rows, columns), np.float32)
        if motion is None:
            return warped
        known = [index for index, object_id in enumerate(ids) if object_id in self._masks]
        if not known:
            return warped
        # All at once: where pixels came from is the same for every object, and costs more than fetching them.
        carried = motion.warp([self._masks[ids[index]] for index in known], rows, columns)
        warped[known] = carried * 2.0 - 1.0
        return warped

    def _active(self) -> FloatArray:
        """Slots (M,) of objects followed before this frame; an object new to a slot starts without the slot's past."""
        active = np.zeros(self.max_objects, np.float32)
        active[list(self._slot_of.values())] = 1.0
        return active

    def _result(
        self,
        outputs: StepOutputs | None,
        ids: Sequence[int],
        prompts: Sequence[Prompt],
        height: int,
        width: int,
    ) -> TrackResult:
        """Masks at the source's size; keeps what the next frame's warp needs."""
        if outputs is None:
            return TrackResult(np.zeros((height, width), np.uint8), ())
        labels, windows = postprocess.paint(outputs.logits, ids, height, width)
        for prompt in prompts:
            if prompt.mask is not None:
                postprocess.impose_mask(labels, prompt.object_id, prompt.mask)
                windows.pop(prompt.object_id, None)
        objects = []
        masks = postprocess.probabilities(outputs.logits)
        self._masks.clear()
        for index, object_id in enumerate(ids):
            score = float(outputs.presence[index])
            state = ObjectState.TRACKED if score >= self._settings.presence_threshold else ObjectState.LOST
            objects.append(postprocess.describe(labels, object_id, score, state, windows.get(object_id)))
            if state is ObjectState.TRACKED:
                # A LOST object's place is unknown, not "nowhere": no mask is carried to the next frame.
                self._masks[object_id] = masks[index]
        return TrackResult(labels, tuple(objects), memory_tokens_used=outputs.tokens_used)
