"""Fixtures that every test may use."""

from pathlib import Path

import numpy as np
import pytest

from sam2lite_core.evaluation.rendered import render_clip

SHARED_DATA = Path(__file__).resolve().parents[2] / "shared" / "data"


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Research data beside the checkout; it is not part of the project."""
    if not SHARED_DATA.is_dir():
        pytest.skip(f"research data is not on this machine: no folder {SHARED_DATA}")
    return SHARED_DATA


@pytest.fixture
def rng() -> np.random.Generator:
    """The same random numbers in every run."""
    return np.random.default_rng(20)


@pytest.fixture
def random_clip(rng: np.random.Generator) -> np.ndarray:
    """(6, 48, 64, 3) uint8 noise."""
    return rng.integers(0, 256, (6, 48, 64, 3), dtype=np.uint8)


@pytest.fixture(scope="session")
def small_clip():
    """A rendered clip of 6 frames of 96x128 with two objects and their true label maps; not to be changed."""
    clip = render_clip(1, height=96, width=128, frames=6)
    clip.frames.flags.writeable = clip.label_maps.flags.writeable = False
    return clip
