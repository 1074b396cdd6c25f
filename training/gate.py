"""Teach the gate what to keep: `python -m training.gate --stills DIR --checkpoint F --out F --minutes 15`.

The student stays as it is. What a token is worth shows only frames later, in a mask that some other token might have
saved as well; gradients and attention both mislead there (training/RESULTS.md). So the search asks the question itself:
a handful of numbers says what is kept, clips run with a bank of that kind, and an evolution strategy (CMA-ES) looks for
the numbers with the best masks. The gate's network then learns to give the scores that they give.
"""

import argparse
import json
import math
import time
from collections.abc import Iterator
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Any

import cma
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sam2lite_core.backends.files import WEIGHTS_FILE
from sam2lite_core.backends.torch import load_shipped
from sam2lite_core.export.onnx import export_student
from sam2lite_core.model import memory
from sam2lite_core.model.gate import SCORE_LIMIT
from sam2lite_core.model.graphs import trust
from sam2lite_core.model.memory import Bank
from sam2lite_core.model.student import Student
from training import checkpoint
from training.assembly import load_average
from training.clip_tensors import frame_features, one_hot, token_pool, warp
from training.data import load_stills, loader
from training.synthesis import SynthesisConfig, flows

LARGEST_AGE = 2**16
"""Frames, of the tokens that the network is shown: three quarters of an hour at 24 frames/s."""


@dataclass(frozen=True)
class Rule:
    """What a token is worth, in a few numbers; scores are logarithms of odds of being kept.

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

    def __init__(
        self, student: Student, batches: Iterator[dict[str, Tensor]], count: int, passes: int = 1
    ) -> None:
        """Encode `count` batches, which play forward and backward in turn `passes` times.

        What a clip shows once, memory need not hold for long; what comes back, it should.
        """
        self._student = student
        self.parts = [self._encoded(next(batches), passes) for _ in range(count)]

    @torch.no_grad()
    def _encoded(self, clip: dict[str, Tensor], passes: int) -> dict[str, object]:
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

    def _tracked(self, part: dict[str, object], rule: Rule, budget: int, seen: list[Bank] | None) -> Tensor:
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
            repeated = memory.repeats(bank, fresh, memory.distances(bank, *student.cells(key[:, t], pool)))
            if t == 0:
                affinity = F.pad(student.affinity(probability, slots, pool), (0, 0, budget, 0))
                both = memory.anchor_quota(both, affinity, size, exists)
            if seen is not None:
                seen.append(both)
            score = memory.policy_scores(
                both, rule.scores(both), torch.full((batch,), float(t)), _learned(batch),
                F.pad(repeated, (budget, 0)),
            )  # fmt: skip
            bank = memory.select(both, score, budget, size)
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


def imitate(student: Student, rule: Rule, banks: list[Bank], steps: int, generator: torch.Generator) -> float:
    """Teach the gate's network the scores of a rule.

    Args:
        student: its gate is trained in place.
        rule: what to imitate.
        banks: tokens as they occur; their ages are drawn anew, as far as a robot's go.
        steps: of the optimiser.
        generator: draws tokens and ages.

    Returns:
        The mean distance of the scores over the last tenth of the steps.
    """
    valid = [bank.column("valid").flatten() > 0.5 for bank in banks]
    tokens = Bank(
        *(
            torch.cat([tensor.flatten(0, 1)[mask] for tensor, mask in zip(column, valid, strict=True)])
            for column in zip(*(_padded(bank) for bank in banks), strict=True)
        )
    )
    for layer in student.gate.layers:
        if isinstance(layer, nn.Linear):
            layer.reset_parameters()
    optimizer = torch.optim.AdamW(student.gate.parameters(), lr=2e-3, weight_decay=1e-4)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    distances = []
    for _ in range(steps):
        index = torch.randint(len(tokens.key), (1024,), generator=generator)
        batch = Bank(*(tensor[index].unsqueeze(0) for tensor in tokens))
        # Half of what is judged has just been written; the rest is older, young ages more often.
        drawn = torch.rand(1, len(index), generator=generator)
        age = torch.floor(torch.exp2(drawn * np.log2(1 + LARGEST_AGE)) - 1.0).clamp(max=LARGEST_AGE)
        fresh = torch.rand(1, len(index), generator=generator) < 0.5
        batch = batch.with_columns(age=torch.where(fresh, torch.zeros_like(age), age))
        distance = (student.gate_scores(batch) - rule.scores(batch)).abs()
        optimizer.zero_grad()
        (distance.mean() + (distance**2).mean() * 0.1).backward()
        optimizer.step()
        schedule.step()
        distances.append(float(distance.detach().mean()))
    return float(np.mean(distances[-max(1, steps // 10) :]))


def _padded(bank: Bank, objects: int = 3) -> Bank:
    """Clips have different numbers of objects: the same columns for all."""
    return bank._replace(
        identity=F.pad(bank.identity, (0, objects - bank.identity.shape[-1])),
        known=F.pad(bank.known, (0, objects - bank.known.shape[-1])),
    )


def load(path: Path) -> tuple[dict[str, Any], Student]:
    """A checkpoint of ours and its averaged student; or those of a shipped model, whose weights file says as much."""
    if path.name != WEIGHTS_FILE:
        return load_average(path)
    student, info = load_shipped(path)
    return {"variant": info.variant, "note": info.note}, student


def save(path: Path, state: dict[str, Any], student: Student, rule: Rule) -> None:
    """As it was loaded: a checkpoint, or a model's folder."""
    if "note" in state:
        export_student(student, path, state["note"])
    else:
        checkpoint.save(path, {**state, "average": student.state_dict(), "gate_rule": rule.vector})


def main() -> None:
    """Parse the arguments, look for a rule and train the gate of a student."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--stills", type=Path, required=True)
    parser.add_argument(
        "--checkpoint", type=Path, required=True, help="of training, or a model's weights.safetensors"
    )
    parser.add_argument("--out", type=Path, required=True, help="checkpoint, or the model's new folder")
    parser.add_argument(
        "--minutes", type=float, default=15.0, help="of search; 0 takes the rule that it starts from"
    )
    parser.add_argument("--clips", type=int, default=24)
    parser.add_argument("--frames", type=int, default=14)
    parser.add_argument("--passes", type=int, default=3, help="forward and backward in turn")
    parser.add_argument("--steps", type=int, default=1500, help="of the network's training")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)
    state, student = load(args.checkpoint)
    shape = SynthesisConfig(240, 432, args.frames, absence=0.3, smallest=0.08)
    clips = iter(loader(load_stills(args.stills), shape, 4, args.seed + 77, 0))
    count = max(1, args.clips // 4)
    config = SearchConfig()
    rule, quality = Rule(), None
    if args.minutes > 0.0:
        rule, quality = search(Watched(student, clips, count, args.passes), config, args.minutes, args.seed)
    fresh = Watched(student, clips, count, args.passes)
    rules = {"newest": NEWEST, "start": Rule()} | ({} if quality is None else {"found": rule})
    checked = {
        name: [round(float(fresh.quality(some, budget).mean()), 4) for budget in config.budgets]
        for name, some in rules.items()
    }
    # What was found may fit the clips that it was looked for on.
    rule = rules[max(checked, key=lambda name: np.mean(checked[name]))]
    banks: list[Bank] = []
    fresh.quality(rule, 256, banks)
    distance = imitate(student, rule, banks, args.steps, torch.Generator().manual_seed(args.seed))
    print(json.dumps({"rule": rule.vector, "iou": quality, "on other clips": checked, "distance": distance}))
    save(args.out, state, student, rule)


if __name__ == "__main__":
    main()
