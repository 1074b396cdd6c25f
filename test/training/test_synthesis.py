"""Rendered clips: shapes, determinism, and truths that can be checked from the pixels."""

from pathlib import Path

import numpy as np
import pytest
import torch

from sam2lite_core.model.student import Student
from sam2lite_core.variants import VARIANTS
from training.config.objective import UnrollConfig
from training.data.clip import SynthesisConfig, to_tensors
from training.data.synthesis.compose import render_clip
from training.data.synthesis.stills import Stills, StillsError
from training.data.tensors import one_hot, warp
from training.objective.corruption import corrupt, random_prompts
from training.objective.unroll import Unroller

SHAPE = SynthesisConfig(height=96, width=128, frames=3)


@pytest.fixture(scope="module")
def stills(stills_folder: Path) -> Stills:
    return Stills(stills_folder)


@pytest.mark.parametrize("seed", range(4))
def test_clip_has_the_promised_shapes_and_an_object_to_follow(stills: Stills, seed: int) -> None:
    clip = render_clip(np.random.default_rng(seed), stills, SHAPE)
    assert clip.images.shape == (3, 96, 128, 3) and clip.images.dtype == np.uint8
    assert clip.labels.shape == (3, 96, 128) and clip.labels.max() <= clip.count
    assert set(range(1, clip.count + 1)) <= set(np.unique(clip.labels[0]).tolist())
    assert clip.flow.shape == (3, 24, 32, 2) and not clip.flow[0].any()
    assert clip.motion.shape == (3, 6, 8) and clip.places.shape == (3, 6, 8, 3)
    assert all(np.isfinite(a).all() for a in (clip.flow, clip.motion, clip.places))


def test_same_seed_same_clip(stills: Stills) -> None:
    first, second = (render_clip(np.random.default_rng(11), stills, SHAPE) for _ in range(2))
    assert np.array_equal(first.images, second.images) and np.array_equal(first.labels, second.labels)


def test_objects_stay_in_the_picture_of_long_clips(stills: Stills) -> None:
    """Left to their first velocity, most would be gone after a dozen frames."""
    shape = SynthesisConfig(height=96, width=128, frames=16, absence=0.0)
    clips = [render_clip(np.random.default_rng(seed), stills, shape) for seed in range(12)]
    last = [len(np.unique(clip.labels[-1])) - 1 for clip in clips]
    assert sum(last) > 0.7 * sum(clip.count for clip in clips)


def test_patches_that_show_the_same_place_carry_the_same_label(stills: Stills) -> None:
    agreements = []
    for seed in range(12):
        clip = render_clip(np.random.default_rng(seed), stills, SHAPE)
        labels = clip.labels[:, 8::16, 8::16].reshape(3, -1)
        places = clip.places.reshape(3, -1, 3)
        same_layer = places[0][:, None, 0] == places[2][None, :, 0]
        close = np.linalg.norm(places[0][:, None, 1:] - places[2][None, :, 1:], axis=-1) < 3.0
        rows, columns = np.nonzero(same_layer & close)
        agreements.extend(labels[0][rows] == labels[2][columns])
    assert len(agreements) > 100
    assert np.mean(agreements) > 0.97


def test_missing_and_broken_stills_name_the_file(stills_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(StillsError, match=r"manifest\.json"):
        Stills(tmp_path)
    (tmp_path / "manifest.json").write_text((stills_folder / "manifest.json").read_text())
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "parts_0.jpg").write_bytes(b"not a picture")
    with pytest.raises(StillsError, match=r"parts_0\.jpg"):
        Stills(tmp_path)


def test_warp_moves_masks_with_the_flow() -> None:
    mask = torch.zeros(1, 1, 8, 8)
    mask[0, 0, 2:4, 2:4] = 1.0
    flow = torch.zeros(1, 8, 8, 2)
    flow[..., 0] = -0.25
    expected = torch.roll(mask, 2, -1)
    assert torch.allclose(warp(mask, flow), expected, atol=1e-5)


def test_prompts_lie_on_their_object() -> None:
    truth = torch.zeros(6, 1, 24, 32)
    truth[:, 0, 6:18, 8:20] = 1.0
    rasters = random_prompts(truth, torch.Generator().manual_seed(0))
    seen = set()
    for n in range(6):
        box, positive, negative = rasters[n, 0]
        if box.any():
            seen.add("box")
            assert box[8:16, 10:18].all() and box.sum() < 14 * 14
        else:
            seen.add("points")
            y, x = divmod(int(positive.argmax()), 32)
            assert truth[n, 0, y, x] == 1.0
            if negative.any():
                y, x = divmod(int(negative.argmax()), 32)
                assert truth[n, 0, y, x] == 0.0
    assert seen == {"box", "points"}


def test_corruption_is_rare_when_asked_to_be() -> None:
    masks = torch.rand(20, 1, 12, 12, generator=torch.Generator().manual_seed(0))
    assert torch.equal(corrupt(masks, torch.Generator().manual_seed(0), 0.0), masks)
    assert not torch.equal(corrupt(masks, torch.Generator().manual_seed(0), 1.0), masks)


def test_one_hot_splits_labels() -> None:
    labels = torch.tensor([[0, 1], [2, 2]], dtype=torch.uint8)
    assert one_hot(labels, 2).tolist() == [[[0, 1], [0, 0]], [[0, 0], [1, 1]]]


def test_every_part_learns_from_a_clip(stills: Stills) -> None:
    """Gradients reach all of the student but the gate, which has a training of its own, and the loss falls."""
    torch.manual_seed(0)
    student = Student(VARIANTS["tiny"])
    clip = to_tensors(render_clip(np.random.default_rng(3), stills, SHAPE))
    batch = {name: value.unsqueeze(0) for name, value in clip.items()}
    optimizer = torch.optim.AdamW(student.parameters(), lr=5e-4)
    totals = []
    for _ in range(8):
        total, _ = Unroller(student, UnrollConfig(drop_warp=(0.0, 0.0)), torch.Generator().manual_seed(0))(batch, 0.5)
        optimizer.zero_grad()
        total.backward()
        missing = [n for n, p in student.named_parameters() if p.grad is None and not n.startswith("gate.")]
        assert not missing
        optimizer.step()
        totals.append(float(total.detach()))
    assert min(totals[-2:]) < 0.8 * totals[0]
