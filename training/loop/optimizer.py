"""Set the learning rate; group, clip and average the parameters that the optimiser trains."""

import math
from typing import Any

import torch
from torch import Tensor, nn

from sam2lite_core.errors import ConfigurationError
from sam2lite_core.model.student import Student
from training.config.stages import StageConfig
from training.objective.module import ClipLoss


def learning_rate(stage: StageConfig, share: float, step: int) -> float:
    """Warm up linearly, then fall exponentially or as a cosine to `stage.min_lr_ratio` of the peak.

    Args:
        stage: peak, form, warm-up and end.
        share: of the stage that is done, 0..1.
        step: optimiser steps done in the stage.
    """
    done = min(1.0, max(0.0, share))
    if stage.schedule == "exponential":
        factor = math.pow(stage.min_lr_ratio, done)
    else:
        factor = stage.min_lr_ratio + (1.0 - stage.min_lr_ratio) * 0.5 * (1.0 + math.cos(math.pi * done))
    warm = min(1.0, (step + 1) / stage.warmup) if stage.warmup else 1.0
    return stage.learning_rate * factor * warm


def freeze(student: Student, names: tuple[str, ...]) -> list[nn.Module]:
    """Stop training parts of a student, as `key` or `encoder.trunk`; return them, to be kept in evaluation mode.

    Raises:
        ConfigurationError: it has no such part.
    """
    parts = {name: part for name, part in student.named_modules() if name}
    for name in names:
        if name not in parts:
            largest = ", ".join(known for known, _ in student.named_children())
            raise ConfigurationError(f"frozen names {name!r}; a student's parts are {largest}, and theirs")
        parts[name].requires_grad_(False)
    return [parts[name] for name in names]


def parameter_groups(model: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Apply weight decay to matrices and kernels only."""
    matrices = [p for p in model.parameters() if p.requires_grad and p.ndim > 1]
    others = [p for p in model.parameters() if p.requires_grad and p.ndim <= 1]
    return [{"params": matrices, "weight_decay": weight_decay}, {"params": others, "weight_decay": 0.0}]


def clip_gradients(model: ClipLoss, max_grad_norm: float) -> tuple[Tensor, Tensor]:
    """Clip the gate's gradients, tens of times larger, apart from all others; return the others' norm and its norm."""
    gate = list(model.student.gate.parameters())
    # In a fixed order: sums of floats depend on it, and runs are to be repeatable.
    of_gate = {id(parameter) for parameter in gate}
    rest = [parameter for parameter in model.parameters() if id(parameter) not in of_gate]
    return nn.utils.clip_grad_norm_(rest, max_grad_norm), nn.utils.clip_grad_norm_(gate, max_grad_norm)


class ExponentialMovingAverage:
    """Exponential moving average of parameters and buffers, which is validated and exported."""

    def __init__(self, model: nn.Module, ema_decay: float) -> None:
        self.decay = ema_decay
        self.state = {name: value.detach().clone() for name, value in model.state_dict().items()}

    def load(self, state: dict[str, Tensor]) -> None:
        """Take over the values of a checkpoint."""
        for name, value in state.items():
            self.state[name].copy_(value)

    @torch.no_grad()
    def update(self, model: nn.Module, step: int) -> None:
        """Fold the model in; early steps weigh more."""
        decay = min(self.decay, (1 + step) / (10 + step))
        for name, value in model.state_dict().items():
            if value.is_floating_point():
                self.state[name].lerp_(value.detach().to(self.state[name].dtype), 1.0 - decay)
            else:
                self.state[name].copy_(value)
