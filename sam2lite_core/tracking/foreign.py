"""Follow objects with a foreign model, SAM 2.1 or EdgeTAM, that has a size and a memory of its own."""

from sam2lite_core.backends.foreign import FrameBackend, FrameInputs
from sam2lite_core.control.latency_table import LatencyTable
from sam2lite_core.errors import ConfigurationError
from sam2lite_core.frame.masks import read_objects
from sam2lite_core.frame.prompt_rasters import separate_masks
from sam2lite_core.tracking.follower import ObjectSlots, StepReport, StepRequest
from sam2lite_core.tracking.settings import ModelSettings, TrackerSettings, check_foreign
from sam2lite_core.tracking.stopwatch import Stopwatch
from sam2lite_core.types import StepTimings, TrackResult


class ForeignFollower:
    """Hands each source frame and its prompts to a foreign model as they are; see `Follower`."""

    fixed_size = True

    def __init__(self, backend: FrameBackend) -> None:
        """Use a model that is open already."""
        self.backend = backend
        self.objects = ObjectSlots(backend.info.max_objects)
        self._frame = 0

    def check(self, settings: TrackerSettings) -> None:
        """Refuse a scale and a controller."""
        check_foreign(self.backend.name, ModelSettings(), settings)

    def step(self, request: StepRequest) -> StepReport:
        """Follow the objects into a frame; the model prepares it itself, so that counts as inference."""
        slots = self.objects.with_prompted(request.prompts, *request.size)
        prompts = separate_masks(request.prompts)
        ids, followed = tuple(sorted(slots)), frozenset(self.objects.ids)
        clock = Stopwatch()
        outputs = None
        if ids:
            outputs = self.backend.step_frame(
                FrameInputs(request.image, ids, prompts, followed, self._frame, request.presence_threshold)
            )
        inference_ms = clock.lap()
        self.objects.assign(slots)
        labels, objects = read_objects(outputs, ids, prompts, request.size, request.presence_threshold)
        timings = StepTimings(inference_ms=inference_ms, postprocess_ms=clock.lap())
        frame, self._frame = self._frame, self._frame + 1
        tokens = 0 if outputs is None else outputs.tokens_used
        return StepReport(TrackResult(labels, objects, timings, 1.0, self.backend.window, tokens, frame))

    def measure(self, size: tuple[int, int], objects: int) -> LatencyTable:
        """Refuse: there are no rungs to measure."""
        raise ConfigurationError(f"backend {self.backend.name} has one size only; there are no rungs to measure")

    def remove(self, object_id: int) -> None:
        """Stop following an object."""
        self.objects.remove(object_id)
        if not self.objects.ids:
            self.backend.reset()

    def reset(self) -> None:
        """Forget every object and the memory."""
        self.backend.reset()
        self.objects.assign({})
        self._frame = 0
