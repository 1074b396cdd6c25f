"""Search for the rule by CMA-ES on clips that the student tracks."""

import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import cma
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from sam2lite_core.model import bank as memory
from sam2lite_core.model import redundancy, retention
from sam2lite_core.model.bank import Bank
from sam2lite_core.model.graphs import trust
from sam2lite_core.model.student import Student
from training.data.clip import flows
from training.data.tensors import frame_features, one_hot, token_pool, warp
from training.gate_search.rule import Rule


@dataclass(frozen=True)
class SearchConfig:
    """How the rule is looked for.

    Attributes:
        budgets: a rule is worth the mean over these bank sizes.
        step: of the search at its start.
        population: rules that a generation tries.
    """

    budgets: tuple[int, ...] = (128, 256)
    step: float = 0.5
    population: int = 8


class Watched:
    """Clips whose frames a student has encoded once, to be tracked again and again."""

    def __init__(self, student: Student, batches: Iterator[dict[str, Tensor]], count: int, passes: int = 1) -> None:
        """Encode `count` batches, which play forward and backward in turn `passes` times.

        What a clip shows once, memory need not hold for long; what comes back, it should.
        """
        self._student = student
        self.parts = [self._encoded(next(batches), passes) for _ in range(count)]

    @torch.no_grad()
    def _encoded(self, clip: dict[str, Tensor], passes: int) -> dict[str, Any]:
        images = clip["images"].permute(0, 1, 4, 2, 3).float()
        features, key = self._student.encode(images.flatten(0, 1))
        order = there_and_back(images.shape[1], passes)
        moved = [flows(shown[order].numpy()) for shown in clip["images"]]
        flow, motion = (torch.from_numpy(np.stack(part)) for part in zip(*moved, strict=True))
        played = {"order": order, "flow": flow, "motion": motion}
        kept = {name: clip[name] for name in ("labels", "count")}
        return {**kept, **played, "features": features, "key": key.reshape(*images.shape[:2], *key.shape[1:])}

    @torch.no_grad()
    def quality(self, rule: Rule, budget: int, seen: list[Bank] | None = None) -> Tensor:
        """Mean IoU of each clip's objects over the frames after the first, (clips,).

        Args:
            rule: what is kept.
            budget: B in tokens.
            seen: takes the banks that were judged, where wanted.
        """
        return torch.cat([self._tracked(part, rule, budget, seen) for part in self.parts])

    def _tracked(self, part: dict[str, Any], rule: Rule, budget: int, seen: list[Bank] | None) -> Tensor:
        """Track a batch of clips as a robot would, each object from its mask on frame 0."""
        student, features, order = self._student, part["features"], part["order"]
        labels, key = (part[name][:, order] for name in ("labels", "key"))
        flow, motion = part["flow"], part["motion"]
        batch, frames = labels.shape[:2]
        count = int(part["count"].max())
        exists = (torch.arange(count) < part["count"].unsqueeze(1)).float()
        truth = one_hot(labels, count) * exists[:, None, :, None, None]
        slots = torch.eye(count).expand(batch, -1, -1)
        pool = token_pool(key.shape[-2], key.shape[-1], pooled=False)
        size = torch.full((batch,), float(budget))
        bank = memory.empty_bank(batch, budget, key.shape[2], count)
        probability, trusted = F.avg_pool2d(truth[:, 0], 4), exists
        overlaps = []
        for t in range(frames):
            bank = memory.begin_frame(bank, exists)
            if t > 0:
                warped = (warp(probability, flow[:, t]) * 2.0 - 1.0) * trusted[..., None, None]
                logits = student.attention_logits(key[:, t], bank, torch.full((batch,), 8.0), pool)
                readout = student.read(key[:, t], bank, slots, logits)
                decoded = student.decode(frame_features(features, batch, order[t]), readout, warped)
                trusted = (decoded.presence > 0.0).float() * exists
                shown, probability = trust(decoded.logits, decoded.probability, trusted)
                overlaps.append(_overlap(shown, truth[:, t], exists))
            fresh = student.tokens(
                frame_features(features, batch, order[t]), key[:, t], probability, trusted, slots,
                motion[:, t].unsqueeze(1), torch.full((batch,), float(t)), pool,
            )  # fmt: skip
            both = memory.concat(bank, fresh)
            repeated = redundancy.repeats(bank, fresh, redundancy.distances(bank, *student.cells(key[:, t], pool)))
            if t == 0:
                affinity = F.pad(student.affinity(probability, slots, pool), (0, 0, budget, 0))
                both = retention.anchor_quota(both, affinity, size, exists)
            if seen is not None:
                seen.append(both)
            score = retention.policy_scores(
                both, rule.scores(both), torch.full((batch,), float(t)), _learned(batch),
                F.pad(repeated, (budget, 0)),
            )  # fmt: skip
            bank = retention.select(both, score, budget, size)
        seen_objects = torch.stack(overlaps)
        return seen_objects.nanmean(dim=(0, 2))


def there_and_back(frames: int, passes: int) -> list[int]:
    """0 1 2 1 0 1 2 …: the order in which a clip's frames are seen; those at either end come once each time."""
    loop = [*range(frames), *range(frames - 2, 0, -1)]
    return [loop[t % len(loop)] for t in range(passes * (frames - 1) + 1)]


def _learned(batch: int) -> Tensor:
    policy = torch.zeros(batch, len(memory.POLICIES))
    policy[:, memory.POLICIES.index("learned")] = 1.0
    return policy


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


def search(watched: Watched, config: SearchConfig, minutes: float, seed: int) -> tuple[Rule, float]:
    """Look for the rule under which tracking is best.

    Returns:
        The rule, and the mean IoU that it reached on the clips.
    """

    def loss(vector: np.ndarray) -> float:
        rule = Rule(*map(float, vector))
        return -float(np.mean([watched.quality(rule, budget).mean() for budget in config.budgets]))

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
