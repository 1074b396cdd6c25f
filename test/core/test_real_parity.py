"""The shipped weights say the same on both backends, on frames that a camera took."""

import cv2
import numpy as np
import pytest

from sam2lite_core.frame_sources import open_source
from sam2lite_core.tracker import Tracker
from sam2lite_core.types import Prompt

pytest.importorskip("torch", reason="needs torch: pip install 'sam2lite[torch]'")

FRAMES = 20


@pytest.fixture(scope="module")
def soapbox(shared_data):
    """Twenty frames, and three objects on the first: the cart with its men, and two patches of the street."""
    davis = shared_data / "davis16_dev"
    with open_source(davis / "JPEGImages" / "soapbox", limit=FRAMES) as source:
        frames = [frame.image for frame in source]
    truth = cv2.imread(str(davis / "Annotations" / "soapbox" / "00000.png"), cv2.IMREAD_GRAYSCALE) > 0
    left, right = np.zeros_like(truth), np.zeros_like(truth)
    left[60:200, 40:180] = right[60:220, 660:820] = True
    masks = (truth, left & ~truth, right & ~truth)
    return frames, [Prompt(object_id=k, mask=mask) for k, mask in enumerate(masks, start=1)]


def kept(tracker) -> set[tuple[float, ...]]:
    """Frame and place of every token that memory holds."""
    bank = tracker._backend.bank()
    rows = np.stack([bank.column(name) for name in ("birth", "x", "y")], axis=1).round(5)
    return {tuple(row) for row in rows[bank.column("valid") > 0.5]}


@pytest.mark.slow
@pytest.mark.parametrize(("policy", "scale"), [("fifo", 0.5), ("learned", 0.5)])
def test_both_backends_agree_on_real_frames(soapbox, policy, scale) -> None:
    """In fp32: 99.9 % of all pixels get the same object, and memory keeps the same tokens on every frame."""
    frames, prompts = soapbox
    trackers = [
        Tracker(backend=name, scale=scale, memory_policy=policy, threads=1)
        for name in ("onnxruntime", "torch")
    ]
    labelled = 0
    for index, frame in enumerate(frames):
        first, second = (tracker.step(frame, prompts if index == 0 else []) for tracker in trackers)
        assert np.mean(first.label_map == second.label_map) >= 0.999, f"frame {index}"
        assert kept(trackers[0]) == kept(trackers[1]), f"frame {index}"
        labelled += len(np.unique(first.label_map)) - 1
    # Most of the three were followed most of the time, so that there was something to disagree on.
    assert labelled >= FRAMES
