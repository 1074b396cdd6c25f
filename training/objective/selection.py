"""Decide which memory tokens are kept in training (design section 4, "differentiable top-B")."""

from typing import NamedTuple

import torch
from torch import Tensor

from sam2lite_core.errors import ConfigurationError
from sam2lite_core.model import retention
from sam2lite_core.model.bank import REJECTED, Bank
from sam2lite_core.model.step import Candidates, Memory
from sam2lite_core.model.student import Student

LEARNED = ("straight_through", "log_probability", "softmax")
"""Ways in which the gate learns: straight-through top-B with logistic noise; that with log p in the attention logits;
the paper's softmax over tokens with Gumbel noise (equation 9)."""

FIXED = ("fifo", "random", "unbounded")
"""Rules to compare with: the newest tokens; tokens at random; all tokens, whatever the budget."""

SELECTIONS = (*LEARNED, *FIXED)


class Ranking(NamedTuple):
    """The basis of a decision on S tokens.

    Attributes:
        score: (N, S) the B best are kept.
        worthy: (N, S) bool, tokens that may be kept even when there is room.
        probability: (N, S) keep probability with a gradient to the gate.
        plain: (N, S) gate scores without noise.
    """

    score: Tensor
    worthy: Tensor
    probability: Tensor
    plain: Tensor


def check(selection: str) -> str:
    """Return the name of a selection.

    Raises:
        ConfigurationError: there is none of that name.
    """
    if selection not in SELECTIONS:
        raise ConfigurationError(f"unknown selection {selection!r}; choose one of {', '.join(SELECTIONS)}")
    return selection


def _uniform(bank: Bank, generator: torch.Generator) -> Tensor:
    # Drawn on the CPU, so that a run is the same on every device.
    return torch.rand(bank.key.shape[:2], generator=generator).clamp(1e-6, 1.0 - 1e-6).to(bank.key.device)


class Chance(NamedTuple):
    """A retention policy drawn by chance.

    Attributes:
        age: score that a token loses with each frame; large ones keep the newest frame.
        objects: odds, as a logarithm, by which patches of objects are preferred.
        offset: (N, 1) by which the tokens' draws are shifted.
    """

    age: float
    objects: float
    offset: Tensor

    @classmethod
    def drawn(cls, batch: int, generator: torch.Generator) -> "Chance":
        """Draw a policy: half of them keep the newest tokens, as the fixed policies do."""
        ages, objects = (8.0, 8.0, 0.5, 0.0), (0.0, 0.0, 2.0)
        pick = torch.rand(2, generator=generator)
        return cls(
            ages[int(pick[0] * len(ages))],
            objects[int(pick[1] * len(objects))],
            torch.rand(batch, 1, generator=generator),
        )


def spread(bank: Bank, offset: Tensor) -> Tensor:
    """Compute the robot's logistic noise, see `retention.draw`, shifted so that no cell is always favoured."""
    shifted = torch.remainder(bank.column("draw").detach() + offset.to(bank.key.device), 1.0)
    return torch.logit(retention.inside(shifted))


class ChanceMemory(Memory):
    """The robot's memory with scores drawn by chance, so that the student learns to read whatever it is left."""

    def __init__(self, chance: Chance) -> None:
        """Take the rule that was drawn for this batch."""
        self._chance = chance

    def score(self, student: Student, candidates: Candidates) -> Tensor:
        """Score the candidates, (N, S + S'); none is rejected."""
        bank, chance = candidates.bank, self._chance
        score = spread(bank, chance.offset) - chance.age * bank.column("age")
        return score + chance.objects * bank.identity.amax(-1).detach()


def by_gate(
    student: Student, bank: Bank, alive: Tensor, temperature: float, generator: torch.Generator, selection: str,
    offset: Tensor,
) -> Ranking:  # fmt: skip
    """Rank tokens by the gate.

    Args:
        student, bank: whose gate judges S tokens; they stay as they are.
        alive: (N, S) bool, tokens to choose among; the softmax runs over these.
        temperature: of the relaxation.
        generator: source of the softmax's noise.
        selection: one of `LEARNED`.
        offset: (N, 1) by which the tokens' draws are shifted; they are the noise of the other selections.
    """
    detached = Bank(*(tensor.detach() for tensor in bank))
    plain = student.gate_scores(detached).float()
    if selection == "softmax":
        uniform = _uniform(bank, generator)
        noisy = plain - torch.log(-torch.log(uniform))
        masked = torch.where(alive, noisy / temperature, torch.full_like(noisy, REJECTED))
        # A softmax sums to 1 over all tokens: it ranks them, and says of none that it is not worth its place.
        return Ranking(noisy, torch.ones_like(alive), torch.softmax(masked, dim=1), plain)
    noisy = plain + spread(bank, offset)
    return Ranking(noisy, noisy > 0.0, torch.sigmoid(noisy / temperature), plain)
