"""Learning rates over a stage."""

import math

from training.config.stages import StageConfig


def learning_rate(stage: StageConfig, progress: float, step: int) -> float:
    """Rate of a step: linear warm-up, then an exponential or cosine fall to `stage.final` of the peak.

    Args:
        stage: peak, form, warm-up and end.
        progress: share of the stage that is done, 0..1.
        step: optimiser steps done in the stage.
    """
    done = min(1.0, max(0.0, progress))
    if stage.schedule == "exponential":
        factor = stage.final**done
    else:
        factor = stage.final + (1.0 - stage.final) * 0.5 * (1.0 + math.cos(math.pi * done))
    warm = min(1.0, (step + 1) / stage.warmup) if stage.warmup else 1.0
    return stage.rate * factor * warm
