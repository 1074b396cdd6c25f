"""Play short sequences forward and backward as long ones, so that no cut appears."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from sam2lite_core.datasets.base import FolderSequence
from sam2lite_core.datasets.davis import Davis
from sam2lite_core.errors import ConfigurationError


@dataclass(frozen=True)
class Looped:
    """A dataset whose sequences go to their end, back to their start, and so on, for `count` frames.

    Raises:
        ConfigurationError: fewer than two frames.
    """

    dataset: Davis
    count: int

    key = "long"

    def __post_init__(self) -> None:
        if self.count < 2:
            raise ConfigurationError(f"{self.count} frames of each sequence; give at least 2")

    @property
    def title(self) -> str:
        """See `Dataset.title`."""
        return f"{self.dataset.title}, forward and backward for {self.count} frames"

    def names(self) -> list[str]:
        """See `Dataset.names`."""
        return self.dataset.names()

    def open(self, name: str) -> FolderSequence:
        """See `Dataset.open`."""
        once = self.dataset.open(name)
        return replace(once, images=forward_and_backward(once.images, self.count))

    def describe(self) -> dict[str, Any]:
        """See `Dataset.describe`."""
        return {**self.dataset.describe(), "layout": self.key, "frames": self.count}


def forward_and_backward(images: tuple[Path, ...], count: int) -> tuple[Path, ...]:
    """Return `count` frames: 0 1 2 3 2 1 0 1 …; the frames at either end come once each time."""
    loop = images + images[-2:0:-1]
    return tuple(loop[index % len(loop)] for index in range(count))
