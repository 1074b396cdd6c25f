"""Length, learning rate and clip shapes of a training stage."""

import itertools
from dataclasses import dataclass
from typing import Literal

from sam2lite_core.errors import ConfigurationError
from sam2lite_core.variants import PATCH
from training.config.checks import at_least, within


@dataclass(frozen=True)
class Phase:
    """Part of a stage: the shape of its clips and of its memory.

    Attributes:
        until: share of the stage at which it ends; the last one ends at 1.
        height: of a frame, px, a multiple of 16.
        width: of a frame, px, a multiple of 16.
        frames: of a clip.
        batch: clips that one process holds at a time.
        budgets: bank sizes to draw from; those of `unroll` when none.
        pooled: whether memory tokens cover 2x2 patches; as `unroll` says when none.
        smallest: smallest side of a pasted object, as a share of the frame's.
    """

    until: float = 1.0
    height: int = 224
    width: int = 224
    frames: int = 8
    batch: int = 8
    budgets: tuple[int, ...] | None = None
    pooled: bool | None = None
    smallest: float = 0.12

    def __post_init__(self) -> None:
        for name in ("height", "width"):
            side = getattr(self, name)
            if side < 2 * PATCH or side % PATCH:
                raise ConfigurationError(
                    f"{name} is {side}, expected a multiple of {PATCH} from {2 * PATCH} on"
                )
        within("until", self.until, 0.0, 1.0)
        at_least("frames", self.frames, 1)
        at_least("batch", self.batch, 1)
        within("smallest", self.smallest, 0.01, 0.6)


@dataclass(frozen=True)
class StageConfig:
    """One of the three stages (paper section 3.5). Its length is given in exactly one of three ways.

    Attributes:
        epochs: its length in epochs of `data.clips_per_epoch` clips.
        steps: its length in optimiser steps.
        minutes: its length in minutes; the schedule then follows the clock, and runs are not repeatable to the bit.
        rate: peak learning rate.
        schedule: exponential or cosine, from `rate` down to `final` of it.
        final: share of the rate that is left at the end.
        warmup: steps of linear warm-up.
        prune: whether memory is pruned, as `unroll.selection` says; else it keeps every token.
        int8: simulate INT8 in convolutions and linear layers (section 3.5, stage 3).
        calibration_batches: of clips that INT8's ranges, and the projection to an image teacher, are first set by.
        phases: shapes of the clips, in order.
        rounds: how often the phases are gone through within the stage, so that no shape is forgotten for another.
        frozen: parts of the student that keep their weights, by their names in `Student`; a frozen encoder saves half
            of the time of long clips.
    """

    epochs: float | None = None
    steps: int | None = None
    minutes: float | None = None
    rate: float = 1e-4
    schedule: Literal["exponential", "cosine"] = "exponential"
    final: float = 0.1
    warmup: int = 0
    prune: bool = True
    int8: bool = False
    calibration_batches: int = 4
    phases: tuple[Phase, ...] = (Phase(),)
    rounds: int = 1
    frozen: tuple[str, ...] = ()

    def phase(self, number: int) -> Phase:
        """The phase of a number that goes on counting through the rounds."""
        return self.phases[number % len(self.phases)]

    def __post_init__(self) -> None:
        given = [name for name in ("epochs", "steps", "minutes") if getattr(self, name) is not None]
        if len(given) != 1:
            found = " and ".join(given) or "none of them"
            raise ConfigurationError(
                f"a stage's length is given by epochs, steps or minutes, one of them; {found} found"
            )
        if getattr(self, given[0]) <= 0:
            raise ConfigurationError(f"{given[0]} is {getattr(self, given[0])}, expected more than 0")
        if self.rate <= 0:
            raise ConfigurationError(f"rate is {self.rate}, expected more than 0")
        within("final", self.final, 1e-6, 1.0)
        at_least("warmup", self.warmup, 0)
        at_least("rounds", self.rounds, 1)
        at_least("calibration_batches", self.calibration_batches, 1)
        ends = [phase.until for phase in self.phases]
        if not ends or ends[-1] != 1.0 or any(a >= b for a, b in itertools.pairwise(ends)):
            raise ConfigurationError(f"phases end at {ends}; `until` must grow and end at 1.0")


@dataclass(frozen=True)
class StagesConfig:
    """The stages by name; a stage that is none is left out."""

    foundation: StageConfig | None = None
    memory: StageConfig | None = None
    deployment: StageConfig | None = None

    def numbered(self) -> dict[int, StageConfig]:
        """Stages by the number that `--stage` takes."""
        stages = {1: self.foundation, 2: self.memory, 3: self.deployment}
        return {number: stage for number, stage in stages.items() if stage is not None}
