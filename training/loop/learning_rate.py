"""Compute the learning rate over a stage."""

import math

from training.config.stages import StageConfig


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
