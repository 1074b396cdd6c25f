"""Typed configuration of a training run. A file in `training/configs` fills it in."""

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

TeacherName = Literal["none", "oracle", "student", "sam2", "edgetam"]


@dataclass(frozen=True, config=STRICT)
class OptimizerConfig:
    """AdamW and what surrounds it (methodology section 5.2).

    Attributes:
        betas: of AdamW.
        weight_decay: of matrices and kernels.
        max_grad_norm: norm that gradients are clipped to; the gate's are clipped by themselves.
        ema_decay: of the moving average of the weights, which is what gets exported.
    """

    betas: tuple[Decay, Decay] = (0.9, 0.999)
    weight_decay: NonNegativeFloat = 0.01
    max_grad_norm: PositiveFloat = 1.0
    ema_decay: Decay = 0.999


@dataclass(frozen=True, config=STRICT)
class TeacherConfig:
    """Whom the student learns attention and readout from.

    Attributes:
        name: none, oracle (the true flow of rendered clips), student, sam2 or edgetam.
        path: its checkpoint or folder of weights.
        cache: folder that `cache-teacher` wrote; the teacher itself is then not loaded.
        images: weights of EfficientNet-Lite0, whose features the encoder is taught besides, see
            `training.teachers.image_features`; "packaged" for those that `sam2lite[images]` installs.
    """

    name: TeacherName = "none"
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
    """Times at which checkpoints are written, and how many are kept.

    Attributes:
        every_steps: optimiser steps between two; 0 leaves it to the clock.
        every_minutes: minutes between two, besides.
        keep: the newest ones that stay.
        validation_batches: batches of clips never trained on that decide which checkpoint is the best one; 0 for none.
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
        root: a folder in DAVIS's layout.
        year: 2016 or 2017.
        scale: resolution scale, 0.5..1.
        policy: what memory keeps: learned, fifo, random or uniform.
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
        folder: where the run is kept; relative to where the command runs.
        seed: of weights, clips and everything drawn.
        precision: no, bf16 or fp16: mixed precision, as Accelerate calls it.
        accumulate: batches that make one step, on each process.
        threads: CPU threads; none leaves it to torch.
        init: checkpoint whose averaged weights to start from.
        trunk: published weights that the encoder's trunk starts from where there is no `init`, see
            `training.students.pretrained`; "packaged" for those that `sam2lite[images]` installs.
        log_every: steps between two lines of the log.
        stages: what is trained, in order.
        data: clips.
        unroll: how a clip runs through the student, and the weights of the losses.
        optimizer: AdamW.
        teacher: whom to learn from.
        checkpoints: what is kept.
        evaluation: what `evaluate` scores.
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
