"""Contract of the step and prompt graphs: names and order of inputs and outputs, columns, policies, shapes.

Neither torch nor numpy decides here: the graphs take these tuples of tensors, backends send them as arrays.
"""

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float32]

META = ("x", "y", "age", "motion", "uncertainty", "valid", "owner", "birth", "affinity", "draw")
"""Columns of a token's numbers: centre in [0, 1] of the frame; frames since written; relative flow magnitude in patch
widths per frame; mask entropy 0..1; 1 = row in use; anchors hold 1 + the slot of the object whose prompt wrote them,
others 0; index of the frame that wrote the token; how well an anchor represents its object, 0 for other tokens; the
token's draw in (0, 1), see `model.retention.draw`."""

POLICIES = ("learned", "fifo", "random", "uniform")
"""Retention policies in the order of the graphs' `policy` input."""


class StepTensors(NamedTuple):
    """Inputs of a frame but for the bank, by their ONNX names: K objects to decode in M slots, N frames (a robot's 1).

    Attributes:
        image: (N, H, W, 3) uint8 RGB, sides multiples of 16.
        motion: (N, 1, H/16, W/16) float32, relative flow magnitude in patch widths per frame.
        warped: (N, K, H/4, W/4) float32, previous masks carried along the flow, -1..1, 0 = unknown.
        slots: (N, K, M) float32 one-hot, the slot of each of the K objects.
        active: (N, M) float32, 1 where a slot's object is followed; 0 forgets what the slot held.
        window: (N,) float32, W in frames.
        budget: (N,) float32, B in tokens, at most the bank's capacity.
        frame: (N,) float32, index of this frame.
        policy: (N, 4) float32 one-hot over `POLICIES`.
        presence_threshold: (N,) float32, an object below it is LOST.
        token_rows, token_columns: (1, r, H/16) and (1, c, W/16) float32 weights that average the frame's patches into
            its r x c tokens; each row sums to 1.
    """

    image: Any
    motion: Any
    warped: Any
    slots: Any
    active: Any
    window: Any
    budget: Any
    frame: Any
    policy: Any
    presence_threshold: Any
    token_rows: Any
    token_columns: Any


class PromptTensors(NamedTuple):
    """Further inputs of a frame with prompts, by their ONNX names.

    Attributes:
        prompts: (N, K, 3, H/4, W/4) float32 rasters: box, positive points, negative points.
        masks: (N, K, H/4, W/4) float32 given masks, share of each cell, 0..1.
        mask_given: (N, K) float32, 1 where `masks` is the answer.
        prompted: (N, K) float32, 1 for objects that this frame's prompts name; the others are only tracked.
    """

    prompts: Any
    masks: Any
    mask_given: Any
    prompted: Any


BANK_FIELDS = ("key", "value", "identity", "known", "meta")
BANK_NAMES = tuple(f"bank_{name}" for name in BANK_FIELDS)
"""Inputs of the bank of S rows: (1, S, 256) twice, (1, S, M) twice, (1, S, 10), float32."""

STEP_INPUTS = (*StepTensors._fields, *BANK_NAMES)
PROMPT_INPUTS = (*STEP_INPUTS, *PromptTensors._fields)

NEW_BANK_NAMES = tuple(f"new_{name}" for name in BANK_NAMES)
OUTPUTS = ("logits", "presence", "uncertainty", "tokens_used", *NEW_BANK_NAMES)
HOST_OUTPUTS = ("logits", "presence", "tokens_used")
"""Outputs that a backend fetches for every frame."""


def graph_inputs(prompt: bool) -> tuple[str, ...]:
    """Return the input names of the graph of frames with or without prompts, in order."""
    return PROMPT_INPUTS if prompt else STEP_INPUTS


def bank_shapes(capacity: int, key_width: int, max_objects: int) -> dict[str, tuple[int, int, int]]:
    """Return the shapes of the bank's inputs by name."""
    widths = (key_width, key_width, max_objects, max_objects, len(META))
    return {name: (1, capacity, width) for name, width in zip(BANK_NAMES, widths, strict=True)}


@dataclass(frozen=True)
class PromptInputs:
    """A frame's prompts on the host; K objects.

    Attributes:
        rasters: (K, 3, H/4, W/4) float32: box, positive points, negative points.
        masks: (K, H/4, W/4) float32 given masks, 0..1.
        mask_given: (K,) float32, 1 where the mask is the answer.
        prompted: (K,) float32, 1 for the objects that are prompted on this frame.
    """

    rasters: FloatArray
    masks: FloatArray
    mask_given: FloatArray
    prompted: FloatArray


@dataclass(frozen=True)
class StepInputs:
    """A frame on the host; K objects to decode in M slots.

    Attributes:
        image: (H, W, 3) uint8 RGB, sides multiples of 16.
        motion: (H/16, W/16) float32 relative flow magnitude, patch widths per frame.
        warped: (K, H/4, W/4) float32 previous masks carried along the flow, -1..1, 0 = unknown.
        slots: the slot of each object.
        active: (M,) float32, 1 where a slot's object is followed.
        window: W in frames.
        budget: B in tokens.
        frame: index of this frame.
        policy: one of `POLICIES`.
        presence_threshold: an object below it is LOST.
        token_pool: (r, H/16) and (c, W/16) float32 weights that average patches into tokens.
        prompt: None on frames without prompts.
    """

    image: NDArray[np.uint8]
    motion: FloatArray
    warped: FloatArray
    slots: tuple[int, ...]
    active: FloatArray
    window: int
    budget: int
    frame: int
    policy: str
    presence_threshold: float
    token_pool: tuple[FloatArray, FloatArray]
    prompt: PromptInputs | None = None


@dataclass(frozen=True)
class StepOutputs:
    """Answers of the graphs on the host.

    Attributes:
        logits: (K, H/4, W/4) float32, object against background; the pixel is the highest positive object's.
        presence: (K,) float32, 0..1.
        tokens_used: valid tokens in the bank.
    """

    logits: FloatArray
    presence: FloatArray
    tokens_used: int


@dataclass(frozen=True)
class BankSnapshot:
    """The memory bank copied to the host, for pictures and tests; never on the frame path.

    Attributes:
        key, value: (S, 256); identity, known: (S, M); meta: (S, 10), columns as in `META`. All float32.
    """

    key: FloatArray
    value: FloatArray
    identity: FloatArray
    known: FloatArray
    meta: FloatArray

    def column(self, name: str) -> FloatArray:
        """Return one column of `meta`, (S,)."""
        return self.meta[:, META.index(name)]


def graph_arrays(inputs: StepInputs, max_objects: int) -> dict[str, NDArray[np.generic]]:
    """Make the graph's host-side inputs by name, with the leading batch axis; the bank is the backend's own."""
    one_hot = np.zeros((1, len(inputs.slots), max_objects), np.float32)
    one_hot[0, np.arange(len(inputs.slots)), list(inputs.slots)] = 1.0
    step = StepTensors(
        image=np.ascontiguousarray(inputs.image)[None],
        motion=inputs.motion[None, None],
        warped=inputs.warped[None],
        slots=one_hot,
        active=inputs.active[None],
        window=np.array([inputs.window], np.float32),
        budget=np.array([inputs.budget], np.float32),
        frame=np.array([inputs.frame], np.float32),
        policy=np.array([[name == inputs.policy for name in POLICIES]], np.float32),
        presence_threshold=np.array([inputs.presence_threshold], np.float32),
        token_rows=inputs.token_pool[0][None],
        token_columns=inputs.token_pool[1][None],
    )
    arrays: dict[str, NDArray[np.generic]] = step._asdict()
    if (prompt := inputs.prompt) is not None:
        values = prompt.rasters, prompt.masks, prompt.mask_given, prompt.prompted
        arrays |= PromptTensors(*(value[None] for value in values))._asdict()
    return arrays
