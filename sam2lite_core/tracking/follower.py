"""Follow objects with one kind of model: the interface of a follower, and the object slots that each keeps."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from sam2lite_core.backends.base import Backend
from sam2lite_core.backends.foreign import FrameBackend
from sam2lite_core.control.latency_table import LatencyTable
from sam2lite_core.errors import InvalidPromptError, UnknownObjectError
from sam2lite_core.tracking.settings import TrackerSettings
from sam2lite_core.types import Prompt, TrackResult
from sam2lite_core.variants import MAX_WINDOW


@dataclass(frozen=True)
class StepRequest:
    """One frame to follow the objects into.

    Attributes:
        image: (H, W, 3) uint8 RGB, checked.
        prompts: shown on this frame.
        scale: resolution scale, 0.5..1.
        window: memory window W, frames.
        elapsed: frames of the source since the last step.
        presence_threshold: an object whose presence is below it is LOST, 0..1.
    """

    image: NDArray[np.uint8]
    prompts: Sequence[Prompt] = ()
    scale: float = 1.0
    window: int = MAX_WINDOW
    elapsed: int = 1
    presence_threshold: float = 0.5

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the image, px."""
        return self.image.shape[0], self.image.shape[1]


@dataclass(frozen=True)
class StepReport:
    """The result of a step, and its latency as the controller should see it.

    Attributes:
        result: what the tracker returns.
        usual_ms: time of the step without the extra pass for boxes and points; None when no model ran.
    """

    result: TrackResult
    usual_ms: float | None = None


class Follower(Protocol):
    """A model with its memory, and all that is kept from frame to frame.

    Attributes:
        fixed_size: the model takes every frame at a size of its own.
        objects: object slots in use.

    Raises:
        InvalidPromptError: by `step`, before anything has changed.
        UnknownObjectError: by `remove`.
        BackendError: by `step` and `measure`, when the runtime failed; the memory is as before.
    """

    fixed_size: bool
    objects: "ObjectSlots"

    @property
    def backend(self) -> Backend | FrameBackend:
        """The runtime in use."""

    def check(self, settings: TrackerSettings) -> None:
        """Raise ConfigurationError for a setting that the model would ignore."""

    def step(self, request: StepRequest) -> StepReport:
        """Follow the objects into a frame."""

    def measure(self, size: tuple[int, int], objects: int) -> LatencyTable:
        """Time steps at every rung on frames of (height, width) px; objects and memory stay as they are."""

    def remove(self, object_id: int) -> None:
        """Stop following an object."""

    def reset(self) -> None:
        """Forget every object, the memory and the previous frame."""


class ObjectSlots:
    """Object slots of a model by the caller's object ids, all free at first."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._slot_of: dict[int, int] = {}

    @property
    def ids(self) -> tuple[int, ...]:
        """Ids of the objects that are followed, ascending."""
        return tuple(sorted(self._slot_of))

    def active(self) -> NDArray[np.float32]:
        """Return (M,) float32, 1 for each slot in use; an object new to a slot starts without the slot's past."""
        active = np.zeros(self._count, np.float32)
        active[list(self._slot_of.values())] = 1.0
        return active

    def with_prompted(self, prompts: Sequence[Prompt], height: int, width: int) -> dict[int, int]:
        """Return the slot of each object once these prompts are taken; nothing changes before `assign`.

        Raises:
            InvalidPromptError: a prompt outside the frame, an object shown twice, or one object too many.
        """
        slots = dict(self._slot_of)
        seen: set[int] = set()
        for prompt in prompts:
            prompt.check_inside(height, width)
            if prompt.object_id in seen:
                raise InvalidPromptError(f"object {prompt.object_id} is prompted twice on one frame; merge the prompts")
            seen.add(prompt.object_id)
            if prompt.object_id in slots:
                continue
            free = set(range(self._count)) - set(slots.values())
            if not free:
                raise InvalidPromptError(
                    f"object {prompt.object_id} is one too many: this model follows {self._count} at once; "
                    "remove one, or export with more object slots"
                )
            slots[prompt.object_id] = min(free)
        return slots

    def assign(self, slots: dict[int, int]) -> None:
        """Use the slots that `with_prompted` returned, or none."""
        self._slot_of = slots

    def remove(self, object_id: int) -> None:
        """Free an object's slot.

        Raises:
            UnknownObjectError: no such object.
        """
        if object_id not in self._slot_of:
            known = ", ".join(map(str, self.ids)) or "none"
            raise UnknownObjectError(f"object {object_id} is not followed; followed are: {known}")
        del self._slot_of[object_id]
