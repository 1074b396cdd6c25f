"""The weights of `small` that ship: they follow, and both runtimes follow alike. `tiny` is in all the other tests."""

import numpy as np
import pytest

from sam2lite_core.scenes.clip import render_clip
from sam2lite_core.tracker import Tracker
from sam2lite_core.types import Prompt


@pytest.fixture(scope="module")
def clip():
    """Twelve frames, of which object 1 spends some behind a post."""
    return render_clip(1, height=240, width=320, frames=12)


def follow(tracker: Tracker, clip) -> list[np.ndarray]:
    prompts = [Prompt(object_id=k, mask=clip.label_maps[0] == k) for k in (1, 2)]
    return [tracker.step(image, prompts if frame == 0 else ()).label_map for frame, image in enumerate(clip.frames)]


@pytest.fixture(scope="module")
def followed(clip) -> list[np.ndarray]:
    return follow(Tracker.from_pretrained("small", backend="onnxruntime", threads=1, scale=1.0), clip)


@pytest.mark.parametrize("object_id", [1, 2])
def test_objects_are_followed_through_an_occlusion(clip, followed, object_id) -> None:
    overlaps = []
    for answer, truth in zip(followed, clip.label_maps, strict=True):
        mine, true = answer == object_id, truth == object_id
        overlaps.append((mine & true).sum() / max(1, (mine | true).sum()))
    assert np.mean(overlaps) > 0.6 and overlaps[-1] > 0.6


def test_torch_follows_alike(clip, followed) -> None:
    pytest.importorskip("torch", reason="needs torch: pip install 'sam2lite[torch]'")
    others = follow(Tracker.from_pretrained("small", backend="torch", threads=1, scale=1.0), clip)
    assert np.mean([one == other for one, other in zip(followed, others, strict=True)]) >= 0.999
