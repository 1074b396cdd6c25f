"""The memory bank in training: dropped tokens stay in sight of the gradient (design section 4, top-B)."""

import torch
import torch.nn.functional as F
from torch import Tensor

from sam2lite_core.model import retention
from sam2lite_core.model.bank import REJECTED, Bank
from sam2lite_core.model.step import Candidates, Memory
from sam2lite_core.model.student import Student
from training.config.objective import KeepConfig
from training.objective import losses, selection
from training.objective.gate_targets import credit, keep_targets, oldest_duplicate

LEAK = 1e-4
"""Share of its attention that a dropped token keeps, so that the logarithm of "kept" has a value and a slope."""


class GatedMemory(Memory):
    """A bank of at most `budget` kept tokens and every dropped one beside it, from which the gate learns.

    Dropped tokens stay as candidates of weight 0, up to LEAK; the straight-through estimator tells the gate how the
    loss would change were they kept. With the rule `log_probability`, kept tokens weigh p instead of 1.
    """

    grows = True

    def __init__(
        self, budget: int, temperature: float, generator: torch.Generator, rule: str = "straight_through",
        supervision: KeepConfig | None = None, exact: bool = False,
    ) -> None:  # fmt: skip
        """Start empty.

        Args:
            budget: B, tokens kept at most.
            temperature: of the relaxation.
            generator: source of the noise.
            rule: one of `selection.LEARNED`.
            supervision: how the gate learns from what later frames read, see `watch`; None leaves that out.
            exact: drop tokens as a robot does; the gate learns nothing.

        Raises:
            ConfigurationError: the rule does not exist.
        """
        self._budget = budget
        self._temperature = temperature
        self._generator = generator
        self._rule = selection.check(rule)
        self._supervision = supervision
        self._leak = 0.0 if exact else LEAK
        self._exact = exact
        self._offset: Tensor | None = None
        self._bank: Bank | None = None
        self._kept: Tensor | None = None
        self._weight = torch.zeros(0)
        self._losses: list[Tensor] = []
        self._used: list[Tensor] = []
        self._decisions: list[tuple[Tensor, Tensor]] = []
        self._read: list[Tensor] = []

    def kept(self) -> Tensor:
        """Find the tokens at hand that a robot's bank would hold, (N, S) bool."""
        assert self._kept is not None, "a frame comes first"
        return self._kept.detach() > 0.5

    def held(self, bank: Bank) -> Bank:
        """Return the bank with only those tokens valid that a robot would hold."""
        if self._kept is None:
            return bank
        return bank.with_columns(valid=bank.column("valid") * self.kept().float())

    def log_kept(self) -> Tensor:
        """Compute what to add to attention logits (N, S): 0 for a kept token, log LEAK for a dropped one."""
        return torch.log(self._weight.clamp(min=0.0) + self._leak).clamp(min=REJECTED)

    def weigh(self, logits: Tensor) -> Tensor:
        """Add `log_kept` to the attention logits (N, P, S), and note them for `supervision_loss`."""
        if self._kept is None:
            return logits
        self.watch(logits)
        return logits + self.log_kept().unsqueeze(1)

    def watch(self, logits: Tensor) -> None:
        """Note what a frame would read of all tokens, given its (N, P, S) logits without `log_kept`."""
        if self._supervision is not None and self._decisions:
            self._read.append(torch.softmax(logits.detach().float(), dim=-1).mean(dim=1))

    def select(self, student: Student, candidates: Candidates) -> Bank:
        """Decide anew which tokens are kept; the bank keeps all of them."""
        bank, old = candidates.bank, candidates.capacity
        batch, count = bank.key.shape[:2]
        if self._kept is None:
            self._kept = torch.zeros(batch, old, device=bank.key.device)
            drawn = selection.Chance.drawn(batch, self._generator).offset
            self._offset = torch.zeros_like(drawn) if self._exact else drawn
        assert self._offset is not None
        before = F.pad(self._kept, (0, count - old), value=1.0)
        new = candidates.repeated < 0.5
        alive = (before > 0.5) & (bank.column("valid") > 0.5)
        anchor = bank.column("owner") > 0.5
        ranking = selection.by_gate(
            student, bank, alive & new, self._temperature, self._generator, self._rule, self._offset
        )
        ranked = torch.where(alive & new, ranking.score, torch.full_like(ranking.score, REJECTED))
        ranked = torch.where(anchor & alive, torch.full_like(ranked, retention.ANCHOR_BONUS), ranked)
        best = ranked.topk(min(self._budget, count), dim=1).indices
        # A static scene may fill less than the budget.
        within = torch.arange(best.shape[1], device=best.device) < candidates.limit.unsqueeze(1)
        chosen = torch.zeros_like(alive).scatter(1, best, within) & alive & (new | anchor)
        self._bank = bank
        self._decide(ranking, before, chosen, alive & new & ~anchor, anchor)
        self._used.append(self.kept().float().sum(1).mean() / self._budget)
        return bank

    def _decide(
        self, ranking: selection.Ranking, before: Tensor, chosen: Tensor, undecided: Tensor, anchor: Tensor
    ) -> None:
        """Keep what the gate chose, with a gradient to it; anchors are not the gate's to decide."""
        probability, plain = ranking.probability, ranking.plain
        hard = (chosen & (ranking.worthy | anchor)).float()
        free = undecided.float()
        soft = (probability - probability.detach()) * free
        self._kept = before * (hard + soft)
        self._weight = self._kept
        if self._rule == "log_probability":
            self._weight = self._kept * torch.where(undecided, probability, torch.ones_like(probability))
        if self._rule == "softmax":
            self._losses.append(losses.budget_loss_on_masks(self._kept, plain * free, self._budget))
        else:
            counted = probability * free
            room = max(1, self._budget - int(anchor.sum(1).float().mean()))
            self._losses.append(losses.budget_loss(counted.sum(1), counted.sum(1) / free.sum(1).clamp(min=1.0), room))
        if self._supervision is not None:
            # Also tokens dropped long ago: what the gate learns must not depend on what it chose before.
            self._decisions.append((plain, anchor))

    def budget_loss(self) -> Tensor:
        """Average the budget loss of the decisions so far; 0 before the first."""
        return torch.stack(self._losses).mean() if self._losses else torch.zeros((), device=self._weight.device)

    def supervision_loss(self) -> Tensor:
        """Compute the BCE of every decision against what later frames read, see `watch`; 0 where there is nothing."""
        if self._supervision is None or not self._read:
            return torch.zeros((), device=self._weight.device)
        assert self._bank is not None
        config, total = self._supervision, self._bank.key.shape[1]
        oldest = oldest_duplicate(self._bank, config.similarity, config.reach)
        read = torch.stack([credit(F.pad(row, (0, total - row.shape[1])), oldest) for row in self._read])
        terms = []
        # The reading that follows decision t is the first of those after it.
        for t, (score, anchor) in enumerate(self._decisions[: len(self._read)]):
            later = read[t:].mean(dim=0)[:, : score.shape[1]]
            free = (self._bank.column("valid")[:, : score.shape[1]] > 0.5) & ~anchor
            room = max(1, self._budget - int(anchor.sum(1).float().mean()))
            target = keep_targets(later, free, room, config.floor)
            terms.append(losses.gate_supervision(score, target, free.float()))
        return torch.stack(terms).mean()

    def statistics(self) -> dict[str, float]:
        """Compute the share of the budget that the gate used, for the log."""
        if not self._losses:
            return {}
        return {"used": float(torch.stack(self._used).mean())}
