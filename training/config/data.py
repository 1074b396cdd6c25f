"""Configuration of data sources and augmentation."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from sam2lite_core.errors import ConfigurationError
from training.config.checks import at_least, within

SourceKind = Literal["davis", "youtube_vos", "mose", "bdd100k", "stills", "clips", "synthetic", "rendered"]


RENDERING = ("stills", "synthetic", "rendered")
"""Sources whose clips are rendered from stills alone."""


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
