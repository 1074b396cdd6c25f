"""The memory bank as training sees it: what was dropped stays in sight of the gradient (design section 4, top-B)."""

import torch
from torch import Tensor

from sam2lite_core.model import memory
from sam2lite_core.model.memory import Bank
from sam2lite_core.model.student import Student
from training import losses

LEAK = 1e-4
"""Share of its attention that a dropped token keeps, so that the logarithm of "kept" has a value and a slope."""


class GatedMemory:
    """A bank of at most `budget` kept tokens, and every dropped one beside it.

    A robot's bank forgets what it drops, and then nothing says whether that was right. Here the dropped tokens stay as
    candidates whose weight is 0 going forward; going backward, the straight-through estimator tells the gate how the
    loss would change were they kept. Going forward it is what the robot's bank does, up to the noise on the scores and
    to LEAK.
    """

    def __init__(
        self, student: Student | None, budget: int, temperature: float, generator: torch.Generator
    ) -> None:
        """Start empty.

        Args:
            student: whose gate decides; None lets chance decide, preferring patches near objects.
            budget: B, tokens kept at most.
            temperature: of the relaxation; small values make keep probabilities sharp.
            generator: source of the logistic noise.
        """
        self._student = student
        self._budget = budget
        self._temperature = temperature
        self._generator = generator
        self._bank: Bank | None = None
        self._kept = torch.zeros(0)
        self._losses: list[Tensor] = []
        self._used: list[Tensor] = []

    def begin_frame(self, active: Tensor, key_width: int) -> Bank:
        """Age the tokens and return all of them, kept or not; see `log_kept`. active: (N, K)."""
        if self._bank is None:
            # One slot that is not in use: an empty bank is read like any other.
            self._bank = memory.empty_bank(len(active), 1, key_width, active.shape[1], active.device)
            self._kept = torch.zeros(len(active), 1, device=active.device)
        else:
            self._bank = memory.begin_frame(self._bank, active)
        return self._bank

    def log_kept(self) -> Tensor:
        """(N, S) to add to attention logits: 0 for a kept token, log LEAK for a dropped one."""
        return torch.log(self._kept.clamp(min=0.0) + LEAK)

    def write(self, fresh: Bank, affinity: Tensor, prompted: Tensor) -> None:
        """Add a frame's tokens and decide anew which are kept.

        Args:
            fresh: the frame's tokens.
            affinity: (N, S', K) from `Student.affinity`.
            prompted: (N, K) 1 for objects whose prompt this frame carries: it leaves anchors.
        """
        assert self._bank is not None, "begin_frame comes first"
        old = self._bank.key.shape[1]
        bank = memory.concat(self._bank, fresh)
        batch, count = bank.key.shape[:2]
        budget = torch.full((batch,), float(self._budget), device=bank.key.device)
        if prompted.any():
            padded = torch.nn.functional.pad(affinity, (0, 0, old, 0))
            bank = memory.anchor_quota(bank, padded, budget, prompted)
        self._bank = bank
        before = torch.nn.functional.pad(self._kept, (0, count - old), value=1.0)
        alive = (before > 0.5) & (bank.column("valid") > 0.5)
        anchor = bank.column("owner") > 0.5
        score, probability = self._score(bank)
        ranked = torch.where(anchor, torch.full_like(score, memory.ANCHOR_BONUS), score)
        ranked = torch.where(alive, ranked, torch.full_like(ranked, memory.REJECTED))
        best = ranked.topk(min(self._budget, count), dim=1).indices
        chosen = torch.zeros_like(alive).scatter(1, best, True) & alive
        if probability is None:
            self._kept = (chosen | (anchor & alive)).float()
        else:
            hard = (chosen & ((score > 0.0) | anchor)).float()
            free = (alive & ~anchor).float()
            # Anchors are not the gate's to decide.
            soft = (probability - probability.detach()) * free
            self._kept = before * (hard + soft)
            counted = probability * free
            room = max(1, self._budget - int(anchor.sum(1).float().mean()))
            self._losses.append(
                losses.budget_loss(counted.sum(1), counted.sum(1) / free.sum(1).clamp(min=1.0), room)
            )
        self._used.append((self._kept.detach() > 0.5).float().sum(1).mean() / self._budget)

    def _score(self, bank: Bank) -> tuple[Tensor, Tensor | None]:
        """Noisy scores (N, S), and keep probabilities where the gate decides."""
        uniform = torch.rand(bank.key.shape[:2], generator=self._generator).clamp(1e-6, 1.0 - 1e-6)
        if self._student is None:
            return uniform * 8.0 + 4.0 * bank.identity.amax(-1).detach(), None
        # The gate judges tokens; it does not reshape them.
        detached = Bank(*(tensor.detach() for tensor in bank))
        noisy = self._student.gate_scores(detached).float() + torch.logit(uniform)
        return noisy, torch.sigmoid(noisy / self._temperature)

    def budget_loss(self) -> Tensor:
        """Mean budget loss of the decisions so far; 0 where chance decided."""
        return torch.stack(self._losses).mean() if self._losses else torch.zeros(())

    def statistics(self) -> dict[str, float]:
        """Share of the budget that the gate used, for the log; empty where chance decided."""
        if not self._losses:
            return {}
        return {"used": float(torch.stack(self._used).mean())}
