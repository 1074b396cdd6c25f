"""Draw clips from several sources by weight."""

from dataclasses import replace

import cv2
import numpy as np

from sam2lite_core.datasets.registry import LAYOUTS
from sam2lite_core.errors import SourceError
from training.config.data import DataConfig, SourceConfig
from training.config.stages import Phase
from training.data.clip import Clip, SynthesisConfig
from training.data.filmed import FilmedClips
from training.data.pasted import PastedClips
from training.data.synthesis.compose import compose_scene, render_clip
from training.data.synthesis.drawn_stills import rendered_stills
from training.data.synthesis.layers import Scene
from training.data.synthesis.stills import Stills

TRIES = 20
"""Bad samples in a row that end a run."""


class SynthesisedClips:
    """Clips rendered from masked stills; with `pasted` 0 the photograph alone moves."""

    def __init__(self, stills: Stills, pasted: int | None = None) -> None:
        self.stills, self.skipped = stills, stills.skipped
        self._pasted = pasted

    def clip(self, rng: np.random.Generator, shape: SynthesisConfig) -> Clip:
        """Render one."""
        return render_clip(rng, self.stills, self._shape(shape))

    def scene(self, rng: np.random.Generator, shape: SynthesisConfig) -> Scene:
        """Compose one, for the device to render."""
        return compose_scene(rng, self.stills, self._shape(shape))

    def _shape(self, shape: SynthesisConfig) -> SynthesisConfig:
        return shape if self._pasted is None else replace(shape, pasted=self._pasted)


ClipSource = SynthesisedClips | FilmedClips | PastedClips


def open_source(config: SourceConfig, data: DataConfig, seed: int) -> ClipSource:
    """Open one source of clips and check that its files are there.

    Raises:
        SourceError: naming the folder or file.
    """
    if config.kind == "rendered":
        return SynthesisedClips(rendered_stills(config.count, seed))
    assert config.root is not None  # SourceConfig refuses that
    if config.kind in LAYOUTS:
        dataset = LAYOUTS[config.kind](config.root, config.split)
        videos = [dataset.labelled(name) for name in dataset.names()[: config.limit]]
        return FilmedClips(videos, dataset, data.augmentation, config.root, data.skip_bad)
    if config.kind == "clips":
        folder = config.stills
        pasted = rendered_stills(config.count, seed) if folder is None else Stills(folder, skip_bad=data.skip_bad)
        return PastedClips(config.root, pasted, data.augmentation, config.limit)
    stills = Stills(config.root, config.limit, data.skip_bad)
    return SynthesisedClips(stills, pasted=0 if config.kind == "stills" else None)


class Mixture:
    """Sources drawn by weight."""

    def __init__(self, data: DataConfig, seed: int) -> None:
        """Open all of them.

        Raises:
            SourceError: naming the folder or file that is missing or bad.
        """
        # Forked workers hang in a copy of OpenCV's thread pool.
        cv2.setNumThreads(1)
        self.data = data
        self.sources = [open_source(config, data, seed) for config in data.sources]
        self.skipped = sum(source.skipped for source in self.sources)
        weights = np.array([config.weight for config in data.sources])
        self._weights = weights / weights.sum()

    def draw(self, rng: np.random.Generator, shape: SynthesisConfig) -> tuple[Clip | Scene, int]:
        """Draw a clip, or a scene that the device renders, and count the bad samples skipped on the way.

        Raises:
            SourceError: a bad sample that may not be skipped, or too many in a row.
        """
        for skipped in range(TRIES):
            source = self.sources[int(rng.choice(len(self.sources), p=self._weights))]
            try:
                if self.data.render_on == "device":
                    assert isinstance(source, SynthesisedClips)  # DataConfig sees to it
                    return source.scene(rng, shape), skipped
                return source.clip(rng, shape), skipped
            except SourceError as error:
                if not self.data.skip_bad:
                    raise
                last = error
        raise SourceError(f"{TRIES} bad samples in a row; the last one: {last}")


def clip_shape(mixture: Mixture, phase: Phase) -> SynthesisConfig:
    """Describe a phase's clips."""
    return SynthesisConfig(phase.height, phase.width, phase.frames, mixture.data.objects, smallest=phase.smallest)
