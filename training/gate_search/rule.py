"""Rule of age that the search fits, in six numbers."""

import math
from dataclasses import astuple, dataclass

import torch
from torch import Tensor

from sam2lite_core.model.bank import Bank
from sam2lite_core.model.gate import SCORE_LIMIT


@dataclass(frozen=True)
class Rule:
    """Rule of a token's worth, in a few numbers; scores are logarithms of odds of being kept.

    Attributes:
        start: of a token that has just been written, far from objects.
        written: lost when the next frame is written.
        ageing: lost with each doubling of the age from then on. ln 2 keeps as many tokens of every stretch of the past
            as of one twice as long and twice as far back.
        objects: gained by a patch that objects cover.
        lasting: gained by such a patch once the next frame is written.
        borders: gained with the mask's uncertainty.
        motion: gained with each patch width per frame that it moves.
    """

    start: float = 2.0
    written: float = 3.0
    ageing: float = math.log(2.0)
    objects: float = 0.0
    lasting: float = 0.0
    borders: float = 0.0
    motion: float = 0.0

    def scores(self, bank: Bank) -> Tensor:
        """(N, S) scores of tokens, within the gate's limits."""
        covered = (bank.identity * bank.known).sum(dim=-1).clamp(0.0, 1.0)
        age = bank.column("age")
        old = (age > 0.5).to(age.dtype)
        score = self.start + self.objects * covered + self.borders * bank.column("uncertainty")
        score = score + self.motion * bank.column("motion").clamp(0.0, 4.0)
        lost = self.written + self.ageing * torch.log2(age.clamp(min=1.0)) - self.lasting * covered
        return (score - old * lost).clamp(-SCORE_LIMIT, SCORE_LIMIT)

    @property
    def vector(self) -> list[float]:
        """The numbers in order."""
        return list(astuple(self))


NEWEST = Rule(start=30.0, written=60.0, ageing=0.0)
"""The newest tokens, evenly spread. Its scores lie beyond the gate's limits, where the network's errors are cut off, so
that only the tokens' draws decide within a frame."""
