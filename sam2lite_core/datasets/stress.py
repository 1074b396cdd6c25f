"""Serve the stress sets as a dataset: videos that are drawn on demand, with ground truth to the pixel."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sam2lite_core.errors import ConfigurationError
from sam2lite_core.media.label_map import LabelMap
from sam2lite_core.media.source import NOMINAL_FPS
from sam2lite_core.scenes.stress import FRAMES, SETS, Scene, make_scene
from sam2lite_core.types import Frame


@dataclass(frozen=True)
class Stress:
    """Rendered videos, some of each set; the same settings give the same videos everywhere.

    Attributes:
        sets: names, as in `scenes.stress.SETS`; None for all.
        clips: of each set.

    Raises:
        ConfigurationError: no such set, or no clip.
    """

    sets: tuple[str, ...] | None = None
    clips: int = 3

    key = "stress"
    title = "rendered stress sets"

    def __post_init__(self) -> None:
        unknown = [name for name in self.sets or () if name not in SETS]
        if unknown or self.sets == ():
            which = repr(unknown[0]) if unknown else "chosen"
            raise ConfigurationError(f"no stress set {which}; choose from {', '.join(SETS)}")
        if self.clips < 1:
            raise ConfigurationError(f"{self.clips} clips of each set; give at least 1")

    def names(self) -> list[str]:
        """See `Dataset.names`."""
        return [f"{name}-{seed:02d}" for name in self.sets or SETS for seed in range(self.clips)]

    def open(self, name: str) -> "RenderedSequence":
        """See `Dataset.open`."""
        kind, seed = name.rsplit("-", 1)
        return RenderedSequence(name, make_scene(kind, int(seed)))

    def describe(self) -> dict[str, Any]:
        """See `Dataset.describe`."""
        return {"layout": self.key, "sets": list(self.sets or SETS), "clips": self.clips, "frames": FRAMES}


@dataclass(frozen=True)
class RenderedSequence:
    """A scene as a sequence; holds one frame at a time."""

    name: str
    scene: Scene

    def shown(self) -> dict[int, LabelMap]:
        """See `VideoSequence.shown`: all objects are there from the start."""
        return {0: _draw(self.scene, 0)[1]}

    def frames(self) -> Iterator[Frame]:
        """See `VideoSequence.frames`."""
        for index in range(FRAMES):
            yield Frame(_draw(self.scene, index)[0], index / NOMINAL_FPS, index, f"{index:05d}")

    def truth(self, frame: Frame) -> LabelMap:
        """See `VideoSequence.truth`."""
        return _draw(self.scene, frame.index)[1]

    def mask_file(self, frame: Frame) -> str:
        """See `VideoSequence.mask_file`."""
        return f"{self.name}/{frame.name}.png"


@lru_cache(maxsize=1)
def _draw(scene: Scene, index: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Draw a frame and its truth, which are asked for one after the other."""
    return scene.draw(index)
