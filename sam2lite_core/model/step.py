"""The student's step with its memory: read the bank, decode, write tokens, select, gather (design section 4).

The exported graphs (`model.graphs`), training, the search for the gate's rule and the student as teacher run `step`.
Its keyword arguments serve training only; without them it is what a robot runs.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from sam2lite_core.graph_io import POLICIES, PromptTensors, StepTensors
from sam2lite_core.model import bank as memory_bank
from sam2lite_core.model import redundancy, retention
from sam2lite_core.model.aggregation import aggregate_probability
from sam2lite_core.model.bank import Bank
from sam2lite_core.model.encoder import Features
from sam2lite_core.model.student import DecodedMasks, Readout, Student

LOST_LOGIT = -16.0
"""Logit of an object that is LOST: it claims no pixel."""


class Candidates(NamedTuple):
    """Tokens among which a memory selects.

    Attributes:
        bank: the old S tokens first, then this frame's S'; a prompt's anchors are marked.
        capacity: S.
        repeated: (N, S + S') float, 1 for fresh tokens that repeat a held one.
        frame: (N,) float, index of the frame.
        policy: (N, 4) one-hot over `POLICIES`.
        limit: (N,) float, most tokens to keep.
    """

    bank: Bank
    capacity: int
    repeated: Tensor
    frame: Tensor
    policy: Tensor
    limit: Tensor


class Memory:
    """The robot's memory. Training and the gate's search override single methods.

    Attributes:
        grows: if the bank has more rows after every frame; else `select` keeps its capacity.
    """

    grows = False

    def held(self, bank: Bank) -> Bank:
        """Return the bank with only those tokens valid that a robot would hold."""
        return bank

    def weigh(self, logits: Tensor) -> Tensor:
        """Weigh the attention logits (N, P, S) by how far each token is kept."""
        return logits

    def score(self, student: Student, candidates: Candidates) -> Tensor:
        """Score the candidates by policy, (N, S + S')."""
        bank, _, repeated, frame, policy, _ = candidates
        return retention.policy_scores(bank, student.gate_scores(bank), frame, policy, repeated)

    def select(self, student: Student, candidates: Candidates) -> Bank:
        """Select the tokens of the next bank: score, top-B, gather."""
        score = self.score(student, candidates)
        return retention.select(candidates.bank, score, candidates.capacity, candidates.limit)


class UnboundedMemory(Memory):
    """A memory that forgets nothing, whatever the budget."""

    grows = True

    def select(self, student: Student, candidates: Candidates) -> Bank:
        """Keep every candidate."""
        return candidates.bank


ROBOT = Memory()

Remember = Callable[[DecodedMasks, Tensor, Tensor], tuple[Tensor, Tensor]]
"""Chooses the masks (N, K, H/4, W/4) and presence (N, K) to write, given the decoded masks and the step's own two."""


class StepResult(NamedTuple):
    """One frame tracked.

    Attributes:
        logits, probability: (N, K, H/4, W/4) after given masks and presence; see `DecodedMasks`.
        presence: (N, K) 0..1.
        masks: (N, K, H/4, W/4) masks that were written to memory.
        present: (N, K) 0 or 1, objects whose masks were trusted.
        decoded: before given masks and presence, for losses.
        readout: what was read from memory.
        held: the bank of S tokens that was read, aged, as `Memory.held` gave it.
        written: candidates for the next bank.
        bank: the next bank.
    """

    logits: Tensor
    probability: Tensor
    presence: Tensor
    masks: Tensor
    present: Tensor
    decoded: DecodedMasks
    readout: Readout
    held: Bank
    written: Candidates
    bank: Bank

    def carried(self) -> Tensor:
        """Compute the masks (N, K, H/4, W/4) that flow carries to the next frame, as the tracker does; LOST ones 0."""
        return aggregate_probability(self.logits) * self.present.unsqueeze(-1).unsqueeze(-1)


def step(
    student: Student, inputs: StepTensors, bank: Bank, prompt: PromptTensors | None = None, *,
    memory: Memory = ROBOT, encoded: tuple[Features, Tensor] | None = None, followed: Tensor | None = None,
    remember: Remember | None = None, raw_readout: bool = False,
) -> StepResult:  # fmt: skip
    """Track K objects through one frame of N clips and update the memory bank; a robot has N = 1.

    Args:
        student: the model.
        inputs: the frame and its settings.
        bank: S tokens after the frame before.
        prompt: this frame's prompts; None where there are none.
        memory: how tokens are kept.
        encoded: features and keys (N, 256, h, w), if frames were encoded together; `inputs.image` is not read then.
        followed: (N, K) 0 or 1, for batches whose clips have different numbers of objects; the others stay absent.
        remember: what to write instead of the step's own masks.
        raw_readout: read values in the bank's own space, for losses and teachers, not yet as the decoder takes them.
    """
    if encoded is None:
        encoded = student.encode(inputs.image.to(torch.float32).permute(0, 3, 1, 2))
    features, key = encoded
    pool = inputs.token_rows, inputs.token_columns
    bank = memory_bank.begin_frame(bank, inputs.active)
    logits = memory.weigh(student.attention_logits(key, bank, inputs.window, pool))
    held = memory.held(bank)
    cells = student.cells(key, pool)
    apart = redundancy.distances(held, *cells)
    static = redundancy.is_static(held, apart)
    known = student.to_patches(redundancy.knows(held, cells[0], static, inputs.budget), key, pool)
    readout = student.read(key, bank if raw_readout else student.projected(bank), inputs.slots, logits)
    readout = readout._replace(evidence=readout.evidence * known)
    rasters = None if prompt is None else prompt.prompts
    decoded = student.decode(features, key, readout, inputs.warped, rasters, projected=not raw_readout)
    own = _outcome(decoded, prompt, inputs.presence_threshold, followed)
    presence, present, probability = own.presence, own.present, own.probability
    masks, trusted = (probability, present) if remember is None else remember(decoded, probability, present)
    fresh = student.tokens(features, key, masks, trusted, inputs.slots, inputs.motion, inputs.frame, pool)
    affinity = None if prompt is None else student.affinity(masks, inputs.slots, pool)
    written = candidates(inputs, bank, held, fresh, apart, static, prompt, affinity)
    return StepResult(
        own.logits, probability, presence, masks, trusted, decoded, readout, held, written,
        memory.select(student, written),
    )  # fmt: skip


class _Outcome(NamedTuple):
    logits: Tensor
    probability: Tensor
    presence: Tensor
    present: Tensor


def _outcome(
    decoded: DecodedMasks, prompt: PromptTensors | None, threshold: Tensor, followed: Tensor | None
) -> _Outcome:
    """Impose given masks and take the masks of absent objects away."""
    presence = torch.sigmoid(decoded.presence)
    logits, probability = decoded.logits, decoded.probability
    if prompt is not None:
        logits, probability = impose(logits, probability, prompt.masks, prompt.mask_given)
        # Prompted and found: the operator vouches for it. A click that found nothing is LOST, not "absent here".
        found = (probability.flatten(2).amax(dim=-1) > 0.5).to(presence.dtype)
        found, prompted = torch.maximum(prompt.mask_given, found), prompt.prompted
        presence = presence * (1.0 - prompted) + torch.maximum(presence, prompted) * prompted * found
    present = (presence >= threshold.unsqueeze(1)).to(presence.dtype)
    if followed is not None:
        present = present * followed
    return _Outcome(*trust(logits, probability, present), presence, present)


def candidates(
    inputs: StepTensors, bank: Bank, held: Bank, fresh: Bank, apart: Tensor, static: Tensor,
    prompt: PromptTensors | None = None, affinity: Tensor | None = None,
) -> Candidates:  # fmt: skip
    """Join old and fresh tokens, make a prompt's anchors, and find how many may be kept.

    Args:
        inputs: of the frame.
        bank, held: S tokens, and as `Memory.held` gives them.
        fresh: S' tokens of the frame.
        apart, static: from `redundancy`.
        prompt, affinity: of a frame with prompts; the latter as `Student.affinity` gives it.
    """
    capacity = bank.key.shape[1]
    both = memory_bank.concat(bank, fresh)
    limit = inputs.budget
    if prompt is not None and affinity is not None:
        prompted = (prompt.prompted.unsqueeze(1) @ inputs.slots).squeeze(1)
        both = retention.anchor_quota(both, F.pad(affinity, (0, 0, capacity, 0)), limit, prompted)
    repeated = F.pad(redundancy.repeats(held, fresh, apart), (capacity, 0))
    # Prompts make anchors, whose number is the budget's affair. In a batch, other clips may have no prompt.
    if prompt is None or len(inputs.budget) > 1:
        learned = inputs.policy[:, POLICIES.index("learned")]
        limit = retention.token_limit(held, static, limit, learned)
    if prompt is not None and len(inputs.budget) > 1:
        limit = torch.where(prompt.prompted.amax(dim=1) > 0.5, inputs.budget, limit)
    return Candidates(both, capacity, repeated, inputs.frame, inputs.policy, limit)


def trust(logits: Tensor, probability: Tensor, present: Tensor) -> tuple[Tensor, Tensor]:
    """Take the masks of absent objects away. logits, probability: (N, K, h, w); present: (N, K) 0 or 1."""
    keep = present.unsqueeze(-1).unsqueeze(-1)
    return logits * keep + LOST_LOGIT * (1.0 - keep), probability * keep


def impose(logits: Tensor, probability: Tensor, masks: Tensor, given: Tensor) -> tuple[Tensor, Tensor]:
    """Replace predictions by given masks; where they lie, nothing else can be.

    Args:
        logits, probability, masks: (N, K, h, w).
        given: (N, K) 0 or 1.
    """
    flag = given.unsqueeze(-1).unsqueeze(-1)
    shown = masks * flag
    free = (1.0 - shown.sum(dim=1, keepdim=True)).clamp(min=0.0)
    probability = shown + probability * (1.0 - flag) * free
    sure = torch.log(shown.clamp(1e-6, 1.0 - 1e-6)) - torch.log((1.0 - shown).clamp(1e-6, 1.0))
    # A given mask holds where its share is above one half; elsewhere the others keep their logits.
    blocked = (1.0 - flag) * (shown.sum(dim=1, keepdim=True) > 0.5).to(logits.dtype)
    others = logits * (1.0 - blocked) + LOST_LOGIT * blocked
    return sure * flag + others * (1.0 - flag), probability
