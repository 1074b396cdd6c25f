"""The two graphs that run on a robot: `StepGraph` for every frame, `PromptGraph` for frames that carry prompts.

Both take the state in and give it back, so that it can stay on the device; the host sends an image, its motion and the
warped previous mask, and gets masks. Names and shapes are those of `GRAPH_INPUTS` and `GRAPH_OUTPUTS`.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sam2lite_core.frame.resolution import averaging_matrix
from sam2lite_core.graph_io import BANK_NAMES
from sam2lite_core.model import bank as memory
from sam2lite_core.model import redundancy, retention
from sam2lite_core.model.aggregation import entropy
from sam2lite_core.model.bank import Bank
from sam2lite_core.model.prompt_decoder import PROMPT_CHANNELS
from sam2lite_core.model.student import Shown, Student
from sam2lite_core.variants import PATCH

HIDDEN_LOGIT = -16.0
"""Logit of an object that is LOST: it claims no pixel."""


def trust(logits: Tensor, probability: Tensor, present: Tensor) -> tuple[Tensor, Tensor]:
    """Take the masks of absent objects away. logits, probability: (N, K, h, w); present: (N, K) 0 or 1."""
    keep = present.unsqueeze(-1).unsqueeze(-1)
    return logits * keep + HIDDEN_LOGIT * (1.0 - keep), probability * keep


class StepGraph(nn.Module):
    """One frame without prompts."""

    def __init__(self, student: Student) -> None:
        super().__init__()
        self.student = student

    def forward(
        self, image: Tensor, motion: Tensor, warped: Tensor, slots: Tensor, active: Tensor, window: Tensor,
        budget: Tensor, frame: Tensor, policy: Tensor, presence_threshold: Tensor,
        token_rows: Tensor, token_columns: Tensor, bank_key: Tensor, bank_value: Tensor,
        bank_identity: Tensor, bank_known: Tensor, bank_meta: Tensor,
    ) -> tuple[Tensor, ...]:  # fmt: skip
        """Track every object through one frame.

        Args:
            image: (1, H, W, 3) uint8 RGB, sides multiples of 16.
            motion: (1, 1, H/16, W/16) float32, relative flow magnitude in patch widths.
            warped: (1, K, H/4, W/4) float32, previous masks carried along the flow, -1..1, 0 = unknown.
            slots: (1, K, M) float32 one-hot, the slot of each of the K objects to decode.
            active: (1, M) float32, 1 where a slot's object is followed; 0 forgets what the slot held.
            window: (1,) float32, W in frames.
            budget: (1,) float32, B in tokens, at most S.
            frame: (1,) float32, index of this frame.
            policy: (1, 4) float32 one-hot over learned, fifo, random, uniform.
            presence_threshold: (1,) float32, an object below it is LOST.
            token_rows, token_columns: (1, r, H/16) and (1, c, W/16) float32 weights that average the frame's patches
                into its r x c tokens; each row sums to 1.
            bank_key, bank_value: (1, S, 256); bank_identity, bank_known: (1, S, M); bank_meta: (1, S, 10); float32.

        Returns:
            logits (1, K, H/4, W/4) against the background after soft aggregation; presence (1, K) 0..1; uncertainty
            (1, 1, H/16, W/16) mask entropy 0..1; tokens_used (1,) float32; the new bank's five tensors.
        """
        bank = Bank(bank_key, bank_value, bank_identity, bank_known, bank_meta)
        return self._run(
            image,
            motion,
            warped,
            slots,
            active,
            window,
            budget,
            frame,
            policy,
            presence_threshold,
            (token_rows, token_columns),
            bank,
            None,
        )

    def _run(
        self, image: Tensor, motion: Tensor, warped: Tensor, slots: Tensor, active: Tensor, window: Tensor,
        budget: Tensor, frame: Tensor, policy: Tensor, threshold: Tensor,
        pool: tuple[Tensor, Tensor], bank: Bank,
        prompt: tuple[Tensor, Tensor, Tensor, Tensor] | None,
    ) -> tuple[Tensor, ...]:  # fmt: skip
        student = self.student
        features, key = student.encode(image.to(torch.float32).permute(0, 3, 1, 2))
        size = bank.key.shape[1]
        bank = memory.begin_frame(bank, active)
        logits = student.attention_logits(key, bank, window, pool)
        cells = student.cells(key, pool)
        apart = redundancy.distances(bank, *cells)
        still = redundancy.is_still(bank, apart)
        known = student.to_patches(redundancy.knows(bank, cells[0], still, budget), key, pool)
        readout = student.read(key, student.projected(bank), slots, logits)
        readout = readout._replace(evidence=readout.evidence * known)
        shown = None if prompt is None else Shown(prompt[0], key)
        prediction = student.decode(features, readout, warped, shown, projected=True)
        presence = torch.sigmoid(prediction.presence)
        logits, probability = prediction.logits, prediction.probability
        if prompt is not None:
            _, masks, given, prompted = prompt
            logits, probability = impose(logits, probability, masks, given)
            # Shown and found: the operator vouches for it. A click that found nothing is LOST, not "absent here".
            found = torch.maximum(given, (probability.flatten(2).amax(dim=-1) > 0.5).to(presence.dtype))
            presence = presence * (1.0 - prompted) + torch.maximum(presence, prompted) * prompted * found
        present = (presence >= threshold.unsqueeze(1)).to(presence.dtype)
        logits, probability = trust(logits, probability, present)

        fresh = student.tokens(features, key, probability, present, slots, motion, frame, pool)
        both = memory.concat(bank, fresh)
        if prompt is not None:
            affinity = student.affinity(probability, slots, pool)
            padded = F.pad(affinity, (0, 0, size, 0))
            both = retention.anchor_quota(both, padded, budget, (prompt[3].unsqueeze(1) @ slots).squeeze(1))
        repeated = F.pad(redundancy.repeats(bank, fresh, apart), (size, 0))
        score = retention.policy_scores(both, student.gate_scores(both), frame, policy, repeated)
        if prompt is None:
            # Prompts make anchors, whose number is the budget's affair.
            budget = retention.token_limit(bank, still, budget, policy[:, memory.POLICIES.index("learned")])
        kept = retention.select(both, score, size, budget)
        uncertainty = F.avg_pool2d(entropy(probability), 4)
        return (logits, presence, uncertainty, kept.column("valid").sum(dim=1), *kept)


class PromptGraph(StepGraph):
    """One frame with prompts for any mixture of new, known and lost objects."""

    def forward(  # type: ignore[override]  # a graph of its own, with more inputs
        self, image: Tensor, motion: Tensor, warped: Tensor, slots: Tensor, active: Tensor, window: Tensor,
        budget: Tensor, frame: Tensor, policy: Tensor, presence_threshold: Tensor,
        token_rows: Tensor, token_columns: Tensor, bank_key: Tensor, bank_value: Tensor,
        bank_identity: Tensor, bank_known: Tensor, bank_meta: Tensor, prompts: Tensor, masks: Tensor,
        mask_given: Tensor, prompted: Tensor,
    ) -> tuple[Tensor, ...]:  # fmt: skip
        """As `StepGraph.forward`, with what the operator shows.

        Args:
            prompts: (1, K, 3, H/4, W/4) float32 rasters: box, positive points, negative points.
            masks: (1, K, H/4, W/4) float32 given masks, share of each cell, 0..1.
            mask_given: (1, K) float32, 1 where `masks` is the answer.
            prompted: (1, K) float32, 1 for objects that this frame's prompts name; the others are only tracked.
        """
        bank = Bank(bank_key, bank_value, bank_identity, bank_known, bank_meta)
        prompt = (prompts, masks, mask_given, prompted)
        return self._run(
            image,
            motion,
            warped,
            slots,
            active,
            window,
            budget,
            frame,
            policy,
            presence_threshold,
            (token_rows, token_columns),
            bank,
            prompt,
        )


def impose(logits: Tensor, probability: Tensor, masks: Tensor, given: Tensor) -> tuple[Tensor, Tensor]:
    """Given masks replace predictions; where they lie, nothing else can be.

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
    others = logits * (1.0 - blocked) + HIDDEN_LOGIT * blocked
    return sure * flag + others * (1.0 - flag), probability


def example_inputs(
    student: Student, objects: int, slots: int, rows: int = 9, columns: int = 16, prompt: bool = False
) -> dict[str, Tensor]:
    """Inputs of the right shapes and types: K = objects, S = slots, a frame of rows x columns patches."""
    width, most = student.variant.key_width, student.variant.max_objects
    fine = (1, objects, rows * 4, columns * 4)
    bank = memory.empty_bank(1, slots, width, most)
    values = {
        "image": torch.zeros(1, rows * PATCH, columns * PATCH, 3, dtype=torch.uint8),
        "motion": torch.zeros(1, 1, rows, columns),
        "warped": torch.zeros(fine),
        # Fewer slots than objects are no tracker's case, but an example of one object could not be traced.
        "slots": torch.eye(most)[torch.arange(objects) % most].unsqueeze(0),
        "active": torch.ones(1, most),
        "window": torch.full((1,), 8.0),
        "budget": torch.full((1,), float(slots)),
        "frame": torch.zeros(1),
        "policy": torch.tensor([[1.0, 0.0, 0.0, 0.0]]),
        "presence_threshold": torch.full((1,), 0.5),
        "token_rows": torch.from_numpy(averaging_matrix(rows, (rows + 1) // 2)).unsqueeze(0),
        "token_columns": torch.from_numpy(averaging_matrix(columns, (columns + 1) // 2)).unsqueeze(0),
        **dict(zip(BANK_NAMES, bank, strict=True)),
    }
    if prompt:
        values["prompts"] = torch.zeros(1, objects, PROMPT_CHANNELS, rows * 4, columns * 4)
        values["masks"] = torch.zeros(fine)
        values["mask_given"] = torch.zeros(1, objects)
        values["prompted"] = torch.zeros(1, objects)
    return values
