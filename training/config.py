"""What a training run is: every number of it, typed. A file in `training/configs` fills these in.

Checks that concern one value stand beside it; `training.typed_yaml` names the key in front of the message.
"""

import itertools
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from sam2lite_core.errors import ConfigurationError
from sam2lite_core.settings import check_policy
from sam2lite_core.variants import PATCH, get_variant
from training.unroll import UnrollConfig

SourceKind = Literal["davis", "youtube_vos", "mose", "bdd100k", "stills", "clips", "synthetic", "rendered"]
RENDERING = ("stills", "synthetic", "rendered")
"""Sources whose clips are rendered from stills alone."""

PACKAGED = Path("packaged")
"""Stands for the weights that `sam2lite[images]` installs."""

TeacherName = Literal["none", "oracle", "student", "sam2", "edgetam"]


def within(name: str, value: float, low: float, high: float) -> None:
    """Refuse a value outside low..high with a ConfigurationError that names it."""
    if not low <= value <= high:
        raise ConfigurationError(f"{name} is {value}, expected {low}..{high}")


def at_least(name: str, value: int, low: int) -> None:
    """Refuse a value below `low` with a ConfigurationError that names it."""
    if value < low:
        raise ConfigurationError(f"{name} is {value}, expected at least {low}")


@dataclass(frozen=True)
class Augmentation:
    """How filmed clips are varied (methodology section 4.2); rendered ones vary by themselves.

    Attributes:
        crop: smallest side of the random crop, as a share of the frame; the largest is 1.
        flip: probability of a horizontal flip.
        jitter: brightness, contrast and saturation change by up to this share.
        blur: probability of motion blur.
        blur_kernels: its lengths, px.
        max_gap: largest distance of successive frames of a clip, in annotated frames.
        reverse: probability that a clip runs backwards.
    """

    crop: float = 0.8
    flip: float = 0.5
    jitter: float = 0.2
    blur: float = 0.3
    blur_kernels: tuple[int, ...] = (3, 5)
    max_gap: int = 3
    reverse: float = 0.0

    def __post_init__(self) -> None:
        within("crop", self.crop, 0.1, 1.0)
        for name in ("flip", "jitter", "blur", "reverse"):
            within(name, getattr(self, name), 0.0, 1.0)
        at_least("max_gap", self.max_gap, 1)
        if not self.blur_kernels or any(length < 1 for length in self.blur_kernels):
            raise ConfigurationError(
                f"blur_kernels is {self.blur_kernels}, expected lengths of at least 1 px"
            )


@dataclass(frozen=True)
class SourceConfig:
    """Where some of the clips come from.

    Attributes:
        kind: davis, youtube_vos, mose, bdd100k, stills, clips, synthetic, or rendered, which needs no files.
        root: the dataset's folder.
        weight: how often it is drawn, relative to the others.
        split: which part of a dataset with parts.
        stills: of `clips`: folder of masked stills whose objects are pasted over the videos; rendered ones when none.
        count: of `rendered`: stills that are made.
        limit: read at most this many videos or stills.
    """

    kind: SourceKind
    root: Path | None = None
    weight: float = 1.0
    split: str = "train"
    stills: Path | None = None
    count: int = 24
    limit: int | None = None

    def __post_init__(self) -> None:
        if self.kind != "rendered" and self.root is None:
            raise ConfigurationError(f"root is missing: {self.kind} needs the folder that it reads")
        if self.weight <= 0:
            raise ConfigurationError(f"weight is {self.weight}, expected a positive number")
        at_least("count", self.count, 1)


@dataclass(frozen=True)
class DataConfig:
    """Where clips come from, and how they are prepared.

    Attributes:
        sources: drawn by weight.
        clips_per_epoch: what counts as an epoch; clips are drawn at random, so no source has an end.
        objects: most objects that are followed in a clip.
        distinct: a phase goes round this many clips, for trials that are to overfit; none draws new ones for ever.
        workers: processes that prepare clips; 0 prepares them in the training process.
        prefetch: batches that each worker prepares ahead.
        render_on: workers render clips whole; with device they compose the scenes, and the device that trains draws
            them in batches, which wants sources that render (stills, synthetic, rendered).
        skip_bad: count and replace samples that cannot be read, instead of stopping.
        augmentation: of filmed clips.
    """

    sources: tuple[SourceConfig, ...] = (SourceConfig("rendered"),)
    clips_per_epoch: int = 4000
    objects: int = 3
    distinct: int | None = None
    workers: int = 1
    prefetch: int = 4
    render_on: Literal["workers", "device"] = "workers"
    skip_bad: bool = False
    augmentation: Augmentation = Augmentation()

    def __post_init__(self) -> None:
        if not self.sources:
            raise ConfigurationError("sources is empty; name at least one")
        at_least("clips_per_epoch", self.clips_per_epoch, 1)
        within("objects", self.objects, 1, 16)
        if self.distinct is not None:
            at_least("distinct", self.distinct, 1)
        at_least("workers", self.workers, 0)
        at_least("prefetch", self.prefetch, 1)
        filmed = [source.kind for source in self.sources if source.kind not in RENDERING]
        if self.render_on == "device" and filmed:
            raise ConfigurationError(
                f"render_on is device, but source {filmed[0]} is filmed; leave it out or render on workers"
            )


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
            `training.teachers.images`; "packaged" for those that `sam2lite[images]` installs.
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
            `training.pretrained`; "packaged" for those that `sam2lite[images]` installs.
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
