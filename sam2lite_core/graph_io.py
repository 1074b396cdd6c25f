"""Inputs and outputs of the step and prompt graphs: names, columns, shapes."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float32]


META = ("x", "y", "age", "motion", "uncertainty", "valid", "owner", "birth", "affinity", "draw")
"""Columns of a token's numbers, as `model.memory.META` explains them."""


POLICIES = ("learned", "fifo", "random", "uniform")
"""Memory policies in the order of the graphs' `policy` input."""


@dataclass(frozen=True)
class PromptInputs:
    """What a frame's prompts look like to the graph; K objects.

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
    """One frame for the graphs; K objects to decode in M slots.

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
    """What the graphs say.

    Attributes:
        logits: (K, H/4, W/4) float32, object against background; the pixel is the highest positive object's.
        presence: (K,) float32, 0..1.
        uncertainty: (H/16, W/16) float32 mask entropy, 0..1.
        tokens_used: valid tokens in the bank.
    """

    logits: FloatArray
    presence: FloatArray
    uncertainty: FloatArray
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
        """One column of `meta`, (S,)."""
        return self.meta[:, META.index(name)]


def graph_arrays(inputs: StepInputs, max_objects: int) -> dict[str, NDArray[np.generic]]:
    """The graph's host-side inputs by name, with the leading batch axis; the bank is the backend's own."""
    one_hot = np.zeros((1, len(inputs.slots), max_objects), np.float32)
    one_hot[0, np.arange(len(inputs.slots)), list(inputs.slots)] = 1.0
    policy = np.zeros((1, len(POLICIES)), np.float32)
    policy[0, POLICIES.index(inputs.policy)] = 1.0
    arrays: dict[str, NDArray[np.generic]] = {
        "image": np.ascontiguousarray(inputs.image)[None],
        "motion": inputs.motion[None, None],
        "warped": inputs.warped[None],
        "slots": one_hot,
        "active": inputs.active[None],
        "window": np.array([inputs.window], np.float32),
        "budget": np.array([inputs.budget], np.float32),
        "frame": np.array([inputs.frame], np.float32),
        "policy": policy,
        "presence_threshold": np.array([inputs.presence_threshold], np.float32),
        "token_rows": inputs.token_pool[0][None],
        "token_columns": inputs.token_pool[1][None],
    }
    if inputs.prompt is not None:
        arrays["prompts"] = inputs.prompt.rasters[None]
        arrays["masks"] = inputs.prompt.masks[None]
        arrays["mask_given"] = inputs.prompt.mask_given[None]
        arrays["prompted"] = inputs.prompt.prompted[None]
    return arrays


BANK_NAMES = ("bank_key", "bank_value", "bank_identity", "bank_known", "bank_meta")


STEP_INPUTS = (
    "image",
    "motion",
    "warped",
    "slots",
    "active",
    "window",
    "budget",
    "frame",
    "policy",
    "presence_threshold",
    "token_rows",
    "token_columns",
    *BANK_NAMES,
)


PROMPT_INPUTS = (*STEP_INPUTS, "prompts", "masks", "mask_given", "prompted")


OUTPUTS = ("logits", "presence", "uncertainty", "tokens_used", *(f"new_{name}" for name in BANK_NAMES))
