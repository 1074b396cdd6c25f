"""The tracker: frames and prompts in, masks out. The one public face of the core."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from sam2lite_core.backends.base import Backend
from sam2lite_core.backends.foreign import FrameBackend
from sam2lite_core.control.base import Controller, ControllerConfig
from sam2lite_core.control.latency_table import LatencyTable
from sam2lite_core.control.registry import make_controller
from sam2lite_core.frame.resolution import BASE_SHORT_SIDE, REFERENCE_SOURCE
from sam2lite_core.tracking.follower import StepRequest
from sam2lite_core.tracking.open import open_follower
from sam2lite_core.tracking.settings import (
    AUTO,
    ModelSettings,
    SettingChanges,
    TrackerArguments,
    TrackerSettings,
    resolve_controller,
)
from sam2lite_core.types import Prompt, TrackResult, check_image
from sam2lite_core.variants import DEFAULT_POLICY

if TYPE_CHECKING:
    from typing_extensions import Unpack


class Tracker:
    """Follow prompted objects from frame to frame with a bounded memory.

    Not thread-safe: call it from one thread.

    ```python
    tracker = Tracker.from_pretrained("tiny")
    box = np.array([100, 80, 220, 300], np.float32)  # x0, y0, x1, y1
    result = tracker.step(image, [Prompt(object_id=1, box=box)])
    for image in camera:  # (H, W, 3) uint8 RGB
        result = tracker.step(image)
    ```

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
        controller: plain, predictive or off: how the deadline is kept; auto (or None) for predictive when there is
            a deadline, plain when the scale is fixed besides. For predictive, loading includes measuring the
            device, see `measure_latency`.

    Raises:
        UnknownVariantError, BackendError, ModelFileError, ConfigurationError: naming the value and what is allowed.
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
        base_short_side: int = BASE_SHORT_SIDE,
        threads: int | None = None,
        model_path: str | Path | None = None,
        presence_threshold: float = 0.5,
        device: str = "auto",
        controller: str | None = AUTO,
    ) -> None:
        """Load a model; the class says what the arguments mean."""
        model = ModelSettings(
            variant, backend, precision, memory_budget, memory_policy, base_short_side, threads, model_path, device
        )
        deadlines = ControllerConfig(deadline_ms=deadline_ms)
        self._settings = TrackerSettings(controller or AUTO, deadlines, scale, presence_threshold)
        self._budget = model.budget
        self._follower = open_follower(model, self._settings)
        self._source = REFERENCE_SOURCE  # height and width of the last frame
        self._table: LatencyTable | None = None
        self._controller = self._make_controller(self._settings)
        self._control = self._controller.start()

    @classmethod
    def from_pretrained(cls, variant: str = "tiny", **options: "Unpack[TrackerArguments]") -> "Tracker":
        """Load the weights that ship with the package; options as for the constructor."""
        return cls(variant, **options)

    @property
    def object_ids(self) -> tuple[int, ...]:
        """Ids of the objects that are followed, ascending."""
        return self._follower.objects.ids

    @property
    def backend(self) -> Backend | FrameBackend:
        """The runtime in use."""
        return self._follower.backend

    @property
    def fixed_size(self) -> bool:
        """The model takes every frame at a size of its own, so scale and controller do not apply."""
        return self._follower.fixed_size

    @property
    def memory_budget(self) -> int:
        """Most tokens that memory may hold."""
        return self._budget

    @property
    def max_objects(self) -> int:
        """Most objects that can be followed at once."""
        return self.backend.info.max_objects

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
        """Name of the deadline controller in use; auto may be set, and reads as what it stands for."""
        return resolve_controller(self._settings, self.fixed_size)

    @controller.setter
    def controller(self, value: str) -> None:
        self.configure(controller=value)

    @property
    def deadline_ms(self) -> float | None:
        """Time a step may take, ms; None without a deadline. Setting the first one switches a controller on."""
        return self._settings.deadlines.deadline_ms

    @deadline_ms.setter
    def deadline_ms(self, value: float | None) -> None:
        # Beside an earlier deadline, "off" is the caller's wish.
        switched = value is None or (self.deadline_ms is None and self.controller == "off")
        self.configure(deadline_ms=value, controller=AUTO if switched else self._settings.controller)

    def configure(self, **changes: "Unpack[SettingChanges]") -> None:
        """Change several settings at once, all or none.

        Args:
            **changes: controller, scale, presence_threshold, and the fields of `ControllerConfig` (deadline_ms, kp,
                ki, kd, min_scale, max_scale, min_window, max_window, …).

        Raises:
            ConfigurationError: a value outside its range; nothing has changed then.
        """
        settings = self._settings.changed(changes)
        self._follower.check(settings)
        controller = self._make_controller(settings)
        self._settings, self._controller = settings, controller
        self._control = controller.resume(self._control)

    def measure_latency(self, size: tuple[int, int] | None = None, objects: int | None = None) -> LatencyTable:
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
        self._table = self._follower.measure(size or self._source, objects or max(1, len(self.object_ids)))
        if self.controller == "predictive":
            self._controller = self._make_controller(self._settings)
            self._control = self._controller.start()
        return self._table

    def _make_controller(self, settings: TrackerSettings) -> Controller:
        """Build the controller; `predictive` measures the device first, unless that was done."""
        name = resolve_controller(settings, self.fixed_size)
        if name == "predictive" and settings.deadlines.deadline_ms is not None and self._table is None:
            self._table = self._follower.measure(self._source, max(1, len(self.object_ids)))
        return make_controller(name, settings.deadlines, self._table)

    def step(
        self, image: NDArray[np.uint8], prompts: Sequence[Prompt] = (), *, elapsed: int = 1, overhead_ms: float = 0.0
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
        size = check_image(image)
        scale = self._control.scale if self.scale is None else self.scale
        request = StepRequest(image, prompts, scale, self._control.window, elapsed, self._settings.presence_threshold)
        report = self._follower.step(request)
        self._source = size
        if report.usual_ms is not None:
            self._control = self._controller.update(self._control, report.usual_ms, overhead_ms)
        return report.result

    def remove(self, object_id: int) -> None:
        """Stop following an object; its memory is forgotten on the next step.

        Raises:
            UnknownObjectError: no such object.
        """
        self._follower.remove(object_id)

    def reset(self) -> None:
        """Forget every object, the memory and the previous frame."""
        self._follower.reset()
        self._control = self._controller.start()
