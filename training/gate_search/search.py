"""Search for the rule by CMA-ES on clips that the student tracks."""

import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import cma
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from sam2lite_core.model import retention
from sam2lite_core.model.bank import Bank
from sam2lite_core.model.step import Candidates, Memory, StepResult
from sam2lite_core.model.student import Student
from training.data.clip import flows
from training.data.play import EncodedClips, encode_clips, play
from training.gate_search.rule import Rule


@dataclass(frozen=True)
class SearchConfig:
    """Settings of the search.

    Attributes:
        budgets: a rule is judged by the mean over these budgets.
        step: of the search at its start.
        population: rules that a generation tries.
    """

    budgets: tuple[int, ...] = (128, 256)
    step: float = 0.5
    population: int = 8


@dataclass(frozen=True)
class RuleMemory(Memory):
    """The robot's memory with a rule's scores in place of the gate's."""

    rule: Rule

    def score(self, student: Student, candidates: Candidates) -> Tensor:
        """Score the candidates by policy, (N, S + S')."""
        bank, _, repeated, frame, policy, _ = candidates
        return retention.policy_scores(bank, self.rule.scores(bank), frame, policy, repeated)


class EncodedBatch(NamedTuple):
    """Clips as they are played: frames in `order`, with the flow and motion (N, T', ...) between them."""

    clips: EncodedClips
    order: list[int]
    flow: Tensor
    motion: Tensor


class EncodedBatches:
    """Clips whose frames a student has encoded once, to be tracked again and again."""

    def __init__(self, student: Student, batches: Iterator[dict[str, Tensor]], count: int, passes: int = 1) -> None:
        """Encode `count` batches, which play forward and backward in turn `passes` times.

        Memory need not hold for long what a clip shows once; what comes back, it should.
        """
        self._student = student
        self.parts = [self._encoded(next(batches), passes) for _ in range(count)]

    @torch.no_grad()
    def _encoded(self, clip: dict[str, Tensor], passes: int) -> EncodedBatch:
        order = there_and_back(clip["images"].shape[1], passes)
        moved = [flows(shown[order].numpy()) for shown in clip["images"]]
        flow, motion = (torch.from_numpy(np.stack(part)) for part in zip(*moved, strict=True))
        return EncodedBatch(encode_clips(self._student, clip), order, flow, motion)

    @torch.no_grad()
    def quality(self, rule: Rule, budget: int, seen: list[Bank] | None = None) -> Tensor:
        """Measure the mean IoU of each clip's objects over the frames after the first, (clips,).

        Args:
            rule: scores the tokens.
            budget: B in tokens.
            seen: takes the banks that were judged, where wanted.
        """
        return torch.cat([self._tracked(part, rule, budget, seen) for part in self.parts])

    def play(self, part: EncodedBatch, rule: Rule, budget: int) -> Iterator[tuple[int, StepResult]]:
        """Track a batch of clips as a robot would, each object from its mask on frame 0."""
        clips, order, flow, motion = part
        return play(self._student, clips, flow, motion, budget, order=order, pooled=False, memory=RuleMemory(rule))

    def _tracked(self, part: EncodedBatch, rule: Rule, budget: int, seen: list[Bank] | None) -> Tensor:
        clips, overlaps = part.clips, []
        for t, (index, result) in enumerate(self.play(part, rule, budget)):
            if seen is not None:
                seen.append(result.written.bank)
            if t > 0:
                overlaps.append(_overlap(result.logits, clips.truth[:, index], clips.exists))
        return torch.stack(overlaps).nanmean(dim=(0, 2))


def there_and_back(frames: int, passes: int) -> list[int]:
    """Order a clip's frames 0 1 2 1 0 1 2 …; those at either end come once each time."""
    loop = [*range(frames), *range(frames - 2, 0, -1)]
    return [loop[t % len(loop)] for t in range(passes * (frames - 1) + 1)]


def _overlap(logits: Tensor, truth: Tensor, exists: Tensor) -> Tensor:
    """IoU (N, K) at stride 4; NaN for objects that a clip has not, 1 where an absent one is not claimed."""
    best, winner = logits.max(dim=1, keepdim=True)
    numbers = torch.arange(logits.shape[1]).view(1, -1, 1, 1)
    mask = (winner == numbers) & (best > 0.0)
    target = F.avg_pool2d(truth, 4) > 0.5
    both = (mask & target).flatten(2).sum(-1).float()
    either = (mask | target).flatten(2).sum(-1).float()
    overlap = torch.where(either > 0, both / either.clamp(min=1.0), torch.ones_like(both))
    return torch.where(exists > 0.5, overlap, torch.full_like(overlap, float("nan")))


def search(clips: EncodedBatches, config: SearchConfig, minutes: float, seed: int) -> tuple[Rule, float]:
    """Look for the rule under which tracking is best.

    Returns:
        The rule, and the mean IoU that it reached on the clips.
    """

    def loss(vector: np.ndarray) -> float:
        rule = Rule(*map(float, vector))
        return -float(np.mean([clips.quality(rule, budget).mean() for budget in config.budgets]))

    end = time.monotonic() + 60.0 * minutes
    start = Rule().vector
    first = loss(np.array(start))
    print(json.dumps({"rule": start, "iou": round(-first, 4)}), flush=True)
    options = {"popsize": config.population, "seed": seed + 1, "verbose": -9}
    strategy = cma.CMAEvolutionStrategy(start, config.step, options)
    while time.monotonic() < end and not strategy.stop():
        tried = strategy.ask()
        strategy.tell(tried, [loss(vector) for vector in tried])
        print(
            json.dumps(
                {
                    "evaluations": int(strategy.result.evaluations),
                    "rule": [round(float(value), 3) for value in strategy.result.xfavorite],
                    "best_iou": round(-float(strategy.result.fbest), 4),
                }
            ),
            flush=True,
        )
    # The centre of the last generation is less lucky on these very clips than the best that was ever tried.
    centre = strategy.result.xfavorite
    found = loss(centre)
    if found >= first:
        return Rule(), -first
    return Rule(*map(float, centre)), -found
