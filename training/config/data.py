"""Configuration of data sources and augmentation."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt, model_validator
from pydantic.dataclasses import dataclass

from training.config.fields import STRICT, Counts, Share

RENDERING = ("stills", "synthetic", "rendered")
"""Sources whose clips are rendered from stills alone."""


@dataclass(frozen=True, config=STRICT)
class Augmentation:
    """Variation of filmed clips (methodology section 4.2); rendered ones vary by themselves.

    Attributes:
        crop: smallest side of the random crop, as a share of the frame; the largest is 1.
        flip: probability of a horizontal flip.
        jitter: largest change of brightness, contrast and saturation.
        blur: probability of motion blur; `blur_kernels` are its lengths, px.
        max_gap: largest distance of successive frames of a clip, in annotated frames.
        reverse: probability that a clip runs backwards.
    """

    crop: Annotated[float, Field(ge=0.1, le=1.0)] = 0.8
    flip: Share = 0.5
    jitter: Share = 0.2
    blur: Share = 0.3
    blur_kernels: Counts = (3, 5)
    max_gap: PositiveInt = 3
    reverse: Share = 0.0


@dataclass(frozen=True, config=STRICT)
class SourceConfig:
    """One source of clips.

    Attributes:
        kind: layout of the dataset; `rendered` needs no files.
        root: the dataset's folder.
        weight: probability of a draw, relative to the others.
        split: part of a dataset with parts.
        stills: folder of masked stills to paste over the videos of `clips`; rendered ones when none.
        count: stills that `rendered` makes.
        limit: most videos or stills that are read.
    """

    kind: Literal["davis", "youtube_vos", "mose", "bdd100k", "stills", "clips", "synthetic", "rendered"]
    root: Path | None = None
    weight: PositiveFloat = 1.0
    split: str = "train"
    stills: Path | None = None
    count: PositiveInt = 24
    limit: PositiveInt | None = None

    @model_validator(mode="after")
    def _check(self) -> "SourceConfig":
        if self.kind != "rendered" and self.root is None:
            raise ValueError(f"root is missing: {self.kind} needs the folder that it reads")
        return self


@dataclass(frozen=True, config=STRICT)
class DataConfig:
    """Sources of clips, and their preparation.

    Attributes:
        sources: drawn by weight.
        clips_per_epoch: length of an epoch; clips are drawn at random without an end.
        objects: most objects that are followed in a clip.
        distinct: clips that a phase repeats, to overfit; none draws new ones for ever.
        workers: processes that prepare clips; 0 prepares them in the training process.
        prefetch: batches that each worker prepares ahead.
        render_on: workers render clips; or they compose scenes that the training device renders, which needs sources
            of stills, synthetic or rendered.
        skip_bad: count and replace samples that cannot be read, instead of stopping.
        augmentation: of filmed clips.
    """

    sources: Annotated[tuple[SourceConfig, ...], Field(min_length=1)] = (SourceConfig("rendered"),)
    clips_per_epoch: PositiveInt = 4000
    objects: Annotated[int, Field(ge=1, le=16)] = 3
    distinct: PositiveInt | None = None
    workers: NonNegativeInt = 1
    prefetch: PositiveInt = 4
    render_on: Literal["workers", "device"] = "workers"
    skip_bad: bool = False
    augmentation: Augmentation = Augmentation()

    @model_validator(mode="after")
    def _check(self) -> "DataConfig":
        filmed = [source.kind for source in self.sources if source.kind not in RENDERING]
        if self.render_on == "device" and filmed:
            raise ValueError(
                f"render_on is device, but source {filmed[0]} is filmed; leave it out or render on workers"
            )
        return self
