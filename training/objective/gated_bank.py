"""The memory bank as training sees it: what was dropped stays in sight of the gradient (design section 4, top-B)."""

import torch
import torch.nn.functional as F
from torch import Tensor

from sam2lite_core.model import bank as memory
from sam2lite_core.model import retention
from sam2lite_core.model.bank import Bank
from sam2lite_core.model.student import Student
from training.config.objective import KeepConfig
from training.objective import losses, selection
from training.objective.gate_targets import credit, keep_targets, oldest_duplicate

LEAK = 1e-4
"""Share of its attention that a dropped token keeps, so that the logarithm of "kept" has a value and a slope."""


class GatedMemory:
    """A bank of at most `budget` kept tokens and, while the gate learns, every dropped one beside it.

    A robot's bank forgets what it drops, and then nothing says whether that was right. Where the gate decides, the
    dropped tokens stay as candidates whose weight is 0 going forward; going backward, the straight-through estimator
    tells the gate how the loss would change were they kept. Going forward it is what the robot's bank does, up to the
    noise on the scores and to LEAK; with the selection `log_probability` kept tokens weigh p instead of 1.
    """

    def __init__(
        self,
        student: Student | None,
        budget: int,
        temperature: float,
        generator: torch.Generator,
        rule: str = "straight_through",
        supervision: KeepConfig | None = None,
    ) -> None:
        """Start empty.

        Args:
            student: whose gate decides; None lets chance decide, preferring patches near objects.
            budget: B, tokens kept at most.
            temperature: of the relaxation; small values make keep probabilities sharp.
            generator: source of the noise.
            rule: one of `selection.SELECTIONS`; fixed ones ask neither gate nor chance.
            supervision: what the gate is told was worth keeping, see `watch`; None tells it nothing.

        Raises:
            ConfigurationError: the rule does not exist.
        """
        self._student = student
        self._budget = budget
        self._temperature = temperature
        self._generator = generator
        self._rule = selection.check(rule)
        self._supervision = supervision if student is not None and rule in selection.LEARNED else None
        self._bank: Bank | None = None
        self._chance: selection.Chance | None = None
        self._kept = torch.zeros(0)
        self._weight = torch.zeros(0)
        self._losses: list[Tensor] = []
        self._used: list[Tensor] = []
        self._decisions: list[tuple[Tensor, Tensor]] = []
        self._read: list[Tensor] = []

    def begin_frame(self, active: Tensor, key_width: int) -> Bank:
        """Age the tokens and return all of them, kept or not; see `log_kept`. active: (N, K)."""
        if self._bank is None:
            # One slot that is not in use: an empty bank is read like any other.
            self._bank = memory.empty_bank(len(active), 1, key_width, active.shape[1], active.device)
            self._kept = torch.zeros(len(active), 1, device=active.device)
            self._weight = self._kept
            self._chance = selection.Chance.drawn(len(active), self._generator)
        else:
            self._bank = memory.begin_frame(self._bank, active)
        return self._bank

    def log_kept(self) -> Tensor:
        """(N, S) to add to attention logits: 0 for a kept token, log LEAK for a dropped one."""
        return torch.log(self._weight.clamp(min=0.0) + LEAK)

    def kept(self) -> Tensor:
        """(N, S) bool, which of the tokens at hand a robot's bank would hold."""
        return self._kept.detach() > 0.5

    def watch(self, logits: Tensor) -> None:
        """Note what a frame would read if nothing had ever been dropped.

        Args:
            logits: (N, P, S) attention logits over all tokens, without `log_kept`.
        """
        if self._supervision is not None and self._decisions:
            self._read.append(torch.softmax(logits.detach().float(), dim=-1).mean(dim=1))

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
            padded = F.pad(affinity, (0, 0, old, 0))
            bank = retention.anchor_quota(bank, padded, budget, prompted)
        self._bank = bank
        before = F.pad(self._kept, (0, count - old), value=1.0)
        alive = (before > 0.5) & (bank.column("valid") > 0.5)
        anchor = bank.column("owner") > 0.5
        ranking = self._rank(bank, fresh.column("birth")[:, 0], alive)
        room = count if self._rule == "unbounded" else min(self._budget, count)
        ranked = torch.where(anchor, torch.full_like(ranking.score, retention.ANCHOR_BONUS), ranking.score)
        ranked = torch.where(alive, ranked, torch.full_like(ranked, memory.REJECTED))
        best = ranked.topk(room, dim=1).indices
        chosen = torch.zeros_like(alive).scatter(1, best, True) & alive
        if ranking.probability is None:
            kept = (chosen | (anchor & alive)).float()
            if self._rule != "unbounded":
                # Nobody learns from what a rule dropped, and a long clip would carry thousands of such tokens along.
                self._bank, kept = bank.gather(best), kept.gather(1, best)
            self._kept = self._weight = kept
        else:
            self._decide(ranking, before, chosen, alive & ~anchor, anchor)
        self._used.append((self._kept.detach() > 0.5).float().sum(1).mean() / self._budget)

    def _rank(self, bank: Bank, frame: Tensor, alive: Tensor) -> selection.Ranking:
        """Who decides, and how."""
        assert self._chance is not None, "begin_frame comes first"
        if self._rule in selection.FIXED:
            return selection.by_rule(bank, frame, self._rule)
        if self._student is None:
            return selection.by_chance(bank, self._chance)
        return selection.by_gate(
            self._student, bank, alive, self._temperature, self._generator, self._rule, self._chance.offset
        )

    def _decide(
        self, ranking: selection.Ranking, before: Tensor, chosen: Tensor, undecided: Tensor, anchor: Tensor
    ) -> None:
        """Keep what the gate chose, with a gradient to it; anchors are not the gate's to decide."""
        probability, plain = ranking.probability, ranking.plain
        assert probability is not None and plain is not None, "only the gate has probabilities"
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
        """Mean budget loss of the decisions so far; 0 where chance decided."""
        return torch.stack(self._losses).mean() if self._losses else torch.zeros((), device=self._kept.device)

    def supervision_loss(self) -> Tensor:
        """BCE of every decision against what later frames went on to read, see `watch`; 0 where there is nothing."""
        if self._supervision is None or not self._read:
            return torch.zeros((), device=self._kept.device)
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
        """Share of the budget that the gate used, for the log; empty where chance decided."""
        if not self._losses:
            return {}
        return {"used": float(torch.stack(self._used).mean())}
