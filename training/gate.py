"""Teach the gate what to keep: `python -m training.gate --stills DIR --checkpoint F --out F --minutes 6`.

The student stays as it is. Rendered clips run with an unbounded memory, and the gate learns to tell which tokens later
frames go on to read (design section 4: supervision by the attention that an unbounded model pays later). Attention to a
token that an older one duplicates counts for the older one, so that a still scene is worth few tokens.
"""

import argparse
import json
import time
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from sam2lite_core.model import memory
from sam2lite_core.model.memory import Bank
from sam2lite_core.model.student import Student
from sam2lite_core.variants import get_variant
from training.checkpoint import save
from training.clip_tensors import frame_features, one_hot, token_pool
from training.data import load_stills, loader
from training.later_attention import keep_targets, oldest_duplicate
from training.synthesis import SynthesisConfig


@dataclass(frozen=True)
class GateConfig:
    """What counts as worth keeping.

    Attributes:
        budget: tokens that are marked per decision, at most; about what the shipped budget is to a frame at scale .7.
        floor: share of the marked tokens' mean attention below which a token is not worth its place.
        similarity: cosine of keys from which tokens may be duplicates.
        reach: largest distance of duplicates, in pooled patches.
        background: weight of queries far from any object, against 1 on and near objects.
    """

    budget: int = 48
    floor: float = 0.1
    similarity: float = 1.01
    reach: float = 1.5
    background: float = 1.0


@torch.no_grad()
def watch(student: Student, clip: dict[str, Tensor], config: GateConfig) -> tuple[Bank, Tensor]:
    """Run clips with a memory that forgets nothing.

    Returns:
        All tokens of all frames; (T, N, S) attention that each frame pays to each token, near objects mostly, credited
        to the oldest duplicate.
    """
    images = clip["images"].permute(0, 1, 4, 2, 3).float()
    batch, frames = images.shape[:2]
    features, key = student.encode(images.flatten(0, 1))
    key = key.reshape(batch, frames, *key.shape[1:])
    count = int(clip["count"].max())
    truth = one_hot(clip["labels"], count)
    slots = torch.eye(count).expand(batch, -1, -1)
    bank: Bank | None = None
    paid = []
    for t in range(frames):
        masks = F.avg_pool2d(truth[:, t], 4)
        if bank is None:
            paid.append(torch.zeros(batch, 0))
        else:
            bank = memory.begin_frame(bank, torch.ones(batch, count))
            logits = student.attention_logits(key[:, t], bank, torch.full((batch,), 8.0))
            foreground = F.avg_pool2d(masks.sum(1, keepdim=True), 4)
            near = F.max_pool2d((foreground > 0.02).float(), 5, 1, 2).flatten(1)
            weight = near + config.background * (1.0 - near)
            weight = weight / weight.sum(dim=1, keepdim=True)
            paid.append((weight.unsqueeze(1) @ torch.softmax(logits, dim=-1)).squeeze(1))
        present = (truth[:, t].flatten(2).sum(-1) > 0).float()
        frame = torch.full((batch,), float(t))
        fresh = student.tokens(
            frame_features(features, batch, t),
            key[:, t],
            masks,
            present,
            slots,
            clip["motion"][:, t].unsqueeze(1),
            frame,
            token_pool(key.shape[-2], key.shape[-1], pooled=True),
        )
        bank = fresh if bank is None else memory.concat(bank, fresh)
    assert bank is not None
    total = bank.key.shape[1]
    attention = torch.stack([F.pad(row, (0, total - row.shape[1])) for row in paid])
    rows = (key.shape[-2] + 1) // 2
    first = oldest_duplicate(bank, config.similarity, config.reach / rows)
    credited = torch.zeros_like(attention).scatter_add(2, first.expand_as(attention), attention)
    return bank, credited


def gate_loss(student: Student, bank: Bank, credited: Tensor, config: GateConfig) -> tuple[Tensor, Tensor]:
    """Balanced BCE of the keep probability at every moment of the clips; also the balanced share of right decisions."""
    frames = len(credited)
    losses, hits = [], []
    for now in range(frames - 1):
        age = now - bank.column("birth")
        valid = age >= 0
        target = keep_targets(credited[now + 1 :].mean(dim=0), valid, config.budget, config.floor)
        score = student.gate_scores(bank.with_columns(age=age.clamp(min=0.0)))
        wanted, useless = target.sum(), (valid * (1.0 - target)).sum()
        # Balanced, so that p = .5 lies between the tokens worth keeping and the others, however many there are.
        weight = target / wanted.clamp(min=1.0) + valid * (1.0 - target) / useless.clamp(min=1.0)
        loss = F.binary_cross_entropy_with_logits(score, target, reduction="none")
        losses.append((loss * weight).sum() / 2.0)
        hits.append((((score > 0) == (target > 0.5)).float() * weight).sum() / 2.0)
    return torch.stack(losses).mean(), torch.stack(hits).mean()


def main() -> None:
    """Parse the arguments and train the gate of a checkpoint."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--stills", type=Path, required=True)
    parser.add_argument("--checkpoint", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=6.0)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    torch.set_num_threads(2)
    torch.manual_seed(args.seed)
    state = torch.load(args.checkpoint, weights_only=True)
    student = Student(get_variant(state["variant"]))
    student.load_state_dict(state["average"])
    student.eval()
    config = GateConfig()
    optimizer = torch.optim.AdamW(student.gate.parameters(), lr=2e-3, weight_decay=0.01)
    shape = SynthesisConfig(height=224, width=320, frames=8)
    clips = iter(loader(load_stills(args.stills), shape, 3, args.seed + 77, 1))
    start = time.monotonic()
    step = 0
    while (elapsed := time.monotonic() - start) < args.minutes * 60:
        for group in optimizer.param_groups:
            group["lr"] = 2e-3 * max(0.02, 1 - elapsed / (args.minutes * 60))
        loss, right = gate_loss(student, *watch(student, next(clips), config), config)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        step += 1
        if step % 20 == 0:
            print(
                json.dumps(
                    {"step": step, "loss": round(float(loss.detach()), 4), "right": round(float(right), 4)}
                ),
                flush=True,
            )
    save(args.out, {**state, "average": student.state_dict(), "gate_steps": step})


if __name__ == "__main__":
    main()
