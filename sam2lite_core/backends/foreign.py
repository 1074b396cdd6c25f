"""Backends that run somebody else's tracker: they are handed the source frame and the caller's prompts as they are.

The student's graphs want a resized image, a flow, rasterised prompts and slots (`backends.base`). A foreign model has
a size and a memory of its own and reads clicks as coordinates, so none of that fits. This is the smallest thing that
does: one call a frame with the frame and the prompts, answered in the same `StepOutputs`, so that everything after the
model (label map, states, boxes, node, files) stays the same. There is no resolution scale, window, budget, memory
policy or controller: the tracker refuses them by name.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from sam2lite_core.backends.model_files import ModelInfo
from sam2lite_core.graph_io import StepOutputs
from sam2lite_core.types import Prompt


@dataclass(frozen=True)
class FrameInputs:
    """One frame for a foreign model.

    Attributes:
        image: (H, W, 3) uint8 RGB at the source's size.
        object_ids: the K objects to find, in the order of the outputs.
        prompts: what this frame shows; given masks do not overlap.
        followed: ids followed before this frame. An id that is not among them starts without a past.
        frame: index of this frame.
        presence_threshold: an object below it is LOST; its logits say nowhere.
    """

    image: NDArray[np.uint8]
    object_ids: tuple[int, ...]
    prompts: Sequence[Prompt]
    followed: frozenset[int]
    frame: int
    presence_threshold: float


@runtime_checkable
class FrameBackend(Protocol):
    """A foreign model with its memory.

    Attributes:
        info: `variant` is the kind of model, `max_objects` how many it may follow.
        name: of the backend.
        input_size: (height, width) that it resizes every frame to, px.
        window: recent frames that it reads besides those with prompts.
    """

    info: ModelInfo
    name: str
    input_size: tuple[int, int]
    window: int

    def reset(self) -> None:
        """Forget every object."""

    def step_frame(self, inputs: FrameInputs) -> StepOutputs:
        """Run one frame; `tokens_used` counts the vectors that the next frame can read, of all objects.

        Raises:
            BackendError: the model failed; the memory is as before the step.
        """

    def keep(self) -> Callable[[], None]:
        """Remember the memory as it is; calling the result brings it back, whatever was stepped in between."""
