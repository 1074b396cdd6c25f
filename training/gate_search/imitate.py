"""Train the gate to imitate a rule."""

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from sam2lite_core.model.bank import Bank
from sam2lite_core.model.student import Student
from training.gate_search.rule import Rule

LARGEST_AGE = 2**16
"""Frames, of the tokens that the network is shown: three quarters of an hour at 24 frames/s."""


def imitate(student: Student, rule: Rule, banks: list[Bank], steps: int, generator: torch.Generator) -> float:
    """Teach a student's gate the scores of a rule; return their mean distance over the last tenth of the steps.

    Args:
        student: its gate is trained in place.
        rule: to imitate.
        banks: tokens as they occur; their ages are drawn anew, as far as a robot's go.
        steps: of the optimiser.
        generator: draws tokens and ages.
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
