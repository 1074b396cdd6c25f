"""Define the configuration of a training run; files are in `training/configs`."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt, model_validator
from pydantic.dataclasses import dataclass

from sam2lite_core.errors import ConfigurationError
from sam2lite_core.tracking.settings import check_policy
from sam2lite_core.variants import get_variant
from training.config.data import DataConfig
from training.config.fields import STRICT, Decay
from training.config.objective import UnrollConfig
from training.config.stages import StagesConfig

PACKAGED = Path("packaged")
"""Stands for the weights that `sam2lite[images]` installs."""


@dataclass(frozen=True, config=STRICT)
class OptimizerConfig:
    """AdamW and what surrounds it (methodology section 5.2).

    Attributes:
        betas: of AdamW.
        weight_decay: of matrices and kernels.
        max_grad_norm: of all gradients, and apart from them of the gate's.
        ema_decay: of the moving average of the weights, which gets exported.
    """

    betas: tuple[Decay, Decay] = (0.9, 0.999)
    weight_decay: NonNegativeFloat = 0.01
    max_grad_norm: PositiveFloat = 1.0
    ema_decay: Decay = 0.999


@dataclass(frozen=True, config=STRICT)
class TeacherConfig:
    """Teacher of attention, readout and features.

    Attributes:
        name: the teacher; the oracle has the true flow of rendered clips.
        path: its checkpoint or folder of weights.
        cache: folder that `cache-teacher` wrote; the teacher itself is then not loaded.
        images: weights of EfficientNet-Lite0 for `training.teachers.image_features`; "packaged" for those that
            `sam2lite[images]` installs.
    """

    name: Literal["none", "oracle", "student", "sam2", "edgetam"] = "none"
    path: Path | None = None
    cache: Path | None = None
    images: Path | None = None

    @model_validator(mode="after")
    def _check(self) -> "TeacherConfig":
        if self.name in ("student", "sam2", "edgetam") and self.path is None and self.cache is None:
            raise ValueError(f"path is missing: teacher {self.name} needs its weights, or a cache")
        return self


@dataclass(frozen=True, config=STRICT)
class CheckpointConfig:
    """Schedule and number of checkpoints.

    Attributes:
        every_steps: optimiser steps between two; 0 leaves it to the clock.
        every_minutes: minutes between two, besides.
        keep: newest ones that stay.
        validation_batches: batches of held-out clips that decide on the best checkpoint; 0 for none.
    """

    every_steps: NonNegativeInt = 0
    every_minutes: PositiveFloat = 4.0
    keep: PositiveInt = 2
    validation_batches: NonNegativeInt = 4


def _policy(name: str) -> str:
    try:
        return check_policy(name)
    except ConfigurationError as error:
        raise ValueError(str(error)) from None


@dataclass(frozen=True, config=STRICT)
class EvaluationConfig:
    """Dataset and settings that `evaluate` scores by default.

    Attributes:
        root: folder in DAVIS's layout; `year` is 2016 or 2017.
        scale: resolution scale, 0.5..1.
        policy: retention policy: learned, fifo, random or uniform.
        budget: memory tokens; the variant's own when none.
        sequences: names; all when empty.
    """

    root: Path | None = None
    year: int = 2017
    scale: float = 1.0
    policy: Annotated[str, AfterValidator(_policy)] = "learned"
    budget: int | None = None
    sequences: tuple[str, ...] = ()


@dataclass(frozen=True, config=STRICT)
class RunConfig:
    """A training run.

    Attributes:
        variant: tiny, small or base.
        folder: of the run; relative to the working directory.
        seed: of everything drawn.
        precision: mixed precision, as Accelerate calls it.
        accumulate: batches that make one step, on each process.
        threads: CPU threads; none leaves it to torch.
        init: checkpoint whose averaged weights to start from.
        trunk: published weights that the encoder's trunk starts from without `init`, see
            `training.students.pretrained`; "packaged" for those that `sam2lite[images]` installs.
        log_every: steps between two lines of the log.
    """

    variant: str = "tiny"
    folder: Path = Path("runs/tiny")
    seed: NonNegativeInt = 0
    precision: Literal["no", "bf16", "fp16"] = "bf16"
    accumulate: PositiveInt = 1
    threads: PositiveInt | None = None
    init: Path | None = None
    trunk: Path | None = None
    log_every: PositiveInt = 1
    stages: StagesConfig = StagesConfig()
    data: DataConfig = DataConfig()
    unroll: UnrollConfig = UnrollConfig()
    optimizer: OptimizerConfig = OptimizerConfig()
    teacher: TeacherConfig = TeacherConfig()
    checkpoints: CheckpointConfig = CheckpointConfig()
    evaluation: EvaluationConfig = EvaluationConfig()

    @model_validator(mode="after")
    def _check(self) -> "RunConfig":
        variant = get_variant(self.variant)
        if self.trunk is not None and not variant.trunk:
            raise ValueError(f"trunk is {self.trunk}, but the encoder of {self.variant} has no trunk")
        if not self.stages.numbered():
            raise ValueError("stages is empty; give foundation, memory or deployment")
        return self
