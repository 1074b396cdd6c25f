"""Define length, learning rate and clip shapes of a training stage."""

import itertools
from typing import Annotated, Literal

from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt, model_validator
from pydantic.dataclasses import dataclass

from training.config.fields import STRICT, Counts, Share, Side


@dataclass(frozen=True, config=STRICT)
class Phase:
    """Part of a stage: the shape of its clips and of its memory.

    Attributes:
        until: share of the stage at which it ends; the last one ends at 1.
        height, width: of a frame, px, multiples of 16.
        frames: of a clip.
        batch: clips that one process holds at a time.
        budgets: bank sizes to draw from; those of `unroll` when none.
        pooled: whether memory tokens cover 2x2 patches; as `unroll` says when none.
        smallest: smallest side of a pasted object, as a share of the frame's.
    """

    until: Share = 1.0
    height: Side = 224
    width: Side = 224
    frames: PositiveInt = 8
    batch: PositiveInt = 8
    budgets: Counts | None = None
    pooled: bool | None = None
    smallest: Annotated[float, Field(ge=0.01, le=0.6)] = 0.12


@dataclass(frozen=True, config=STRICT)
class StageConfig:
    """One of the three stages (paper section 3.5).

    Attributes:
        epochs, steps, minutes: its length in one of three ways: epochs of `data.clips_per_epoch` clips, optimiser
            steps, or minutes; by minutes, runs are not repeatable to the bit.
        learning_rate: at its peak.
        schedule: of the learning rate, down to its share `min_lr_ratio`.
        warmup: steps of linear warm-up.
        prune: prune memory as `unroll.selection` says, instead of keeping every token.
        int8: simulate INT8 in convolutions and linear layers (section 3.5, stage 3).
        calibration_batches: set INT8's ranges and the projection to an image teacher at first.
        phases: shapes of the clips, in order.
        rounds: repetitions of the phases within the stage, so that no shape is forgotten for another.
        frozen: parts of `Student` that keep their weights; a frozen encoder halves the time of long clips.
    """

    epochs: PositiveFloat | None = None
    steps: PositiveInt | None = None
    minutes: PositiveFloat | None = None
    learning_rate: PositiveFloat = 1e-4
    schedule: Literal["exponential", "cosine"] = "exponential"
    min_lr_ratio: Annotated[float, Field(ge=1e-6, le=1.0)] = 0.1
    warmup: NonNegativeInt = 0
    prune: bool = True
    int8: bool = False
    calibration_batches: PositiveInt = 4
    phases: tuple[Phase, ...] = (Phase(),)
    rounds: PositiveInt = 1
    frozen: tuple[str, ...] = ()

    @model_validator(mode="after")
    def _check(self) -> "StageConfig":
        given = [name for name in ("epochs", "steps", "minutes") if getattr(self, name) is not None]
        if len(given) != 1:
            found = " and ".join(given) or "none of them"
            raise ValueError(f"a stage's length is given by epochs, steps or minutes, one of them; {found} found")
        ends = [phase.until for phase in self.phases]
        if not ends or ends[-1] != 1.0 or any(a >= b for a, b in itertools.pairwise(ends)):
            raise ValueError(f"phases end at {ends}; `until` must grow and end at 1.0")
        return self

    def phase(self, number: int) -> Phase:
        """Return the phase of a number that goes on counting through the rounds."""
        return self.phases[number % len(self.phases)]


@dataclass(frozen=True, config=STRICT)
class StagesConfig:
    """Stages by name; none leaves one out."""

    foundation: StageConfig | None = None
    memory: StageConfig | None = None
    deployment: StageConfig | None = None

    def numbered(self) -> dict[int, StageConfig]:
        """Return the stages by the number that `--stage` takes."""
        stages = {1: self.foundation, 2: self.memory, 3: self.deployment}
        return {number: stage for number, stage in stages.items() if stage is not None}
