"""Record the inputs of the graphs on calibration clips, which INT8 ranges are measured on."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from sam2lite_core.backends.base import Backend
from sam2lite_core.errors import ConfigurationError
from sam2lite_core.export.clips import Clip
from sam2lite_core.frame.prompt_rasters import prompt_inputs
from sam2lite_core.graph_io import (
    BANK_FIELDS,
    BANK_NAMES,
    BankSnapshot,
    PromptInputs,
    StepInputs,
    StepOutputs,
    graph_arrays,
)
from sam2lite_core.tracker import Tracker
from sam2lite_core.types import Prompt, TrackResult

Feed = dict[str, NDArray[np.generic]]

LEAST_TOKENS = 128
"""Fewer tokens in memory than this by the end of the calibration clips say too little about reading it."""


@dataclass
class Feeds:
    """Inputs of both graphs by name, a dictionary a frame, and the most tokens that were in memory.

    `step` are frames without prompts; `prompt` all, each with an object shown again, since a clip itself shows objects
    when memory is still empty.
    """

    step: list[Feed] = field(default_factory=list)
    prompt: list[Feed] = field(default_factory=list)
    tokens: int = 0


class Recorder:
    """A backend that notes what another one is given."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self.info, self.name = backend.info, backend.name
        self.last: StepInputs | None = None
        self.last_bank: BankSnapshot | None = None

    def reset(self) -> None:
        """Empty the memory bank."""
        self._backend.reset()

    def step(self, inputs: StepInputs) -> StepOutputs:
        """Run one frame, and keep its inputs and the bank before it in `last` and `last_bank`."""
        self.last, self.last_bank = inputs, self._backend.bank()
        return self._backend.step(inputs)

    def keep(self) -> Callable[[], None]:
        """Remember the memory bank as it is."""
        return self._backend.keep()

    def bank(self) -> BankSnapshot:
        """Copy the memory bank to the host."""
        return self._backend.bank()

    def feed(self, prompt: PromptInputs | None) -> Feed:
        """Return the last step's inputs by the graphs' names, bank included, with this prompt."""
        assert self.last is not None and self.last_bank is not None
        arrays = graph_arrays(replace(self.last, prompt=prompt), self.info.max_objects)
        values = (getattr(self.last_bank, name)[None] for name in BANK_FIELDS)
        bank = dict(zip(BANK_NAMES, values, strict=True))
        return {name: np.ascontiguousarray(array) for name, array in (arrays | bank).items()}


def record(backend: Backend, clips: Sequence[Clip], scales: Sequence[float]) -> Feeds:
    """Track through every clip at every scale and note the inputs of the graphs, or raise ConfigurationError."""
    feeds = Feeds()
    for clip in clips:
        for scale in scales:
            recorder = Recorder(backend)
            tracker = Tracker(backend.info.variant, recorder, scale=scale)
            tracker.reset()
            for index, image in enumerate(clip.frames):
                result = tracker.step(image, clip.prompts if index == 0 else ())
                feeds.tokens = max(feeds.tokens, result.memory_tokens_used)
                assert recorder.last is not None
                if recorder.last.prompt is None:
                    feeds.step.append(recorder.feed(None))
                shown = recorder.last.prompt or _shown_again(result, recorder.last, index)
                feeds.prompt.append(recorder.feed(shown))
            tracker.reset()
    if feeds.tokens < LEAST_TOKENS:
        raise ConfigurationError(
            f"calibration filled {feeds.tokens} tokens of memory, at least {LEAST_TOKENS} are needed; give longer clips"
        )
    return feeds


def _shown_again(result: TrackResult, inputs: StepInputs, index: int) -> PromptInputs:
    """Prompt the first object that was found by its box and middle, or its mask, in turns."""
    network = inputs.image.shape[:2]
    ids = [entry.object_id for entry in result.objects]
    found = [object_id for object_id in ids if (result.label_map == object_id).any()][:1]
    prompts = []
    for object_id in found:
        mask = result.label_map == object_id
        if index % 2:
            prompts.append(Prompt(object_id=object_id, mask=mask))
            continue
        y, x = (axis.astype(np.float32) for axis in np.nonzero(mask))
        middle = np.array([[x.mean(), y.mean()], [x.min(), y.min()]], np.float32)
        box = np.array([x.min(), y.min(), x.max() + 1, y.max() + 1], np.float32)
        prompts.append(Prompt(object_id=object_id, points=middle, point_labels=np.array([1, 0], np.uint8), box=box))
    return prompt_inputs(ids, prompts, result.label_map.shape[:2], (network[0], network[1]))
