"""What a training run is: every number of it, typed. A file in `training/configs` fills these in.

Checks that concern one value stand beside it; `training.config.loading` names the key in front of the message.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from sam2lite_core.errors import ConfigurationError
from sam2lite_core.tracking.settings import check_policy
from sam2lite_core.variants import get_variant
from training.config.checks import at_least, within
from training.config.data import DataConfig
from training.config.objective import UnrollConfig
from training.config.stages import StagesConfig

PACKAGED = Path("packaged")
"""Stands for the weights that `sam2lite[images]` installs."""

TeacherName = Literal["none", "oracle", "student", "sam2", "edgetam"]


@dataclass(frozen=True)
class OptimizerConfig:
    """AdamW and what surrounds it (methodology section 5.2).

    Attributes:
        betas: of AdamW.
        decay: weight decay of matrices and kernels.
        clip: largest gradient norm; the gate's gradients are clipped by themselves.
        average: decay of the moving average of the weights, which is what gets exported.
    """

    betas: tuple[float, float] = (0.9, 0.999)
    decay: float = 0.01
    clip: float = 1.0
    average: float = 0.999

    def __post_init__(self) -> None:
        for value in (*self.betas, self.average):
            within("betas and average", value, 0.0, 0.999999)
        if self.clip <= 0 or self.decay < 0:
            raise ConfigurationError(f"clip {self.clip} must be above 0, decay {self.decay} not below 0")


@dataclass(frozen=True)
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

    def __post_init__(self) -> None:
        if self.name in ("student", "sam2", "edgetam") and self.path is None and self.cache is None:
            raise ConfigurationError(f"path is missing: teacher {self.name} needs its weights, or a cache")


@dataclass(frozen=True)
class CheckpointConfig:
    """When checkpoints are written, and which are kept.

    Attributes:
        every_steps: optimiser steps between two; 0 leaves it to the clock.
        every_minutes: minutes between two, besides.
        keep: the newest ones that stay.
        validation_batches: batches of clips never trained on that decide which checkpoint is the best one; 0 for none.
    """

    every_steps: int = 0
    every_minutes: float = 4.0
    keep: int = 2
    validation_batches: int = 4

    def __post_init__(self) -> None:
        at_least("every_steps", self.every_steps, 0)
        at_least("keep", self.keep, 1)
        at_least("validation_batches", self.validation_batches, 0)
        if self.every_minutes <= 0:
            raise ConfigurationError(f"every_minutes is {self.every_minutes}, expected more than 0")


@dataclass(frozen=True)
class EvaluationConfig:
    """What `evaluate` scores by default.

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
    policy: str = "learned"
    budget: int | None = None
    sequences: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        check_policy(self.policy)


@dataclass(frozen=True)
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
    seed: int = 0
    precision: Literal["no", "bf16", "fp16"] = "bf16"
    accumulate: int = 1
    threads: int | None = None
    init: Path | None = None
    trunk: Path | None = None
    log_every: int = 1
    stages: StagesConfig = field(default_factory=StagesConfig)
    data: DataConfig = field(default_factory=DataConfig)
    unroll: UnrollConfig = field(default_factory=UnrollConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    teacher: TeacherConfig = field(default_factory=TeacherConfig)
    checkpoints: CheckpointConfig = field(default_factory=CheckpointConfig)
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)

    def __post_init__(self) -> None:
        variant = get_variant(self.variant)
        if self.trunk is not None and not variant.trunk:
            raise ConfigurationError(f"trunk is {self.trunk}, but the encoder of {self.variant} has no trunk")
        at_least("seed", self.seed, 0)
        at_least("accumulate", self.accumulate, 1)
        at_least("log_every", self.log_every, 1)
        if self.threads is not None:
            at_least("threads", self.threads, 1)
        if not self.stages.numbered():
            raise ConfigurationError("stages is empty; give foundation, memory or deployment")
