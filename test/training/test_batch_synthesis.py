"""Scenes rendered by torch look like those rendered by OpenCV, and their flow is what really moved."""

import json

import numpy as np
import pytest
import torch

from sam2lite_core.errors import ConfigurationError
from training.data.clip import SynthesisConfig, flows
from training.data.synthesis.compose import compose_scene
from training.data.synthesis.drawn_stills import rendered_stills
from training.data.synthesis.layers import Scene
from training.data.synthesis.render import render_scene
from training.data.synthesis.render_batch import render_scenes, scene_tensors, stack_scenes
from training.data.synthesis.stills import Stills
from training.loop.trainer import Trainer

SHAPE = SynthesisConfig(height=96, width=128, frames=3)
SEEDS = range(5)


@pytest.fixture(scope="module")
def stills() -> Stills:
    return rendered_stills(4)


@pytest.fixture(scope="module")
def scenes(stills: Stills) -> list[Scene]:
    return [compose_scene(np.random.default_rng(seed), stills, SHAPE) for seed in SEEDS]


@pytest.fixture(scope="module")
def rendered(scenes: list[Scene]) -> dict[str, torch.Tensor]:
    return render_scenes(stack_scenes([scene_tensors(scene) for scene in scenes]), SHAPE)


def test_images_labels_and_places_are_those_of_the_other_renderer(
    scenes: list[Scene], rendered: dict[str, torch.Tensor]
) -> None:
    for index, scene in enumerate(scenes):
        images, labels, places = render_scene(scene, SHAPE)
        difference = np.abs(rendered["images"][index].numpy().astype(int) - images)
        # OpenCV samples at 1/32 px: noisy textures differ by a few grey levels.
        assert difference.mean() < 2.0
        assert (rendered["labels"][index].numpy() == labels).mean() > 0.995
        layer, place = rendered["places"][index, ..., 0].numpy(), rendered["places"][index, ..., 1:].numpy()
        same = layer == places[..., 0]
        assert same.mean() > 0.98
        assert np.abs(place - places[..., 1:])[same].max() < 0.05
        assert int(rendered["count"][index]) == len(scene.followed)


def test_a_scene_does_not_depend_on_the_batch_that_it_is_in(
    scenes: list[Scene], rendered: dict[str, torch.Tensor]
) -> None:
    alone = render_scenes(stack_scenes([scene_tensors(scenes[1])]), SHAPE)
    assert torch.equal(alone["labels"][0], rendered["labels"][1])
    assert (alone["images"][0].int() - rendered["images"][1].int()).abs().max() <= 1
    assert torch.allclose(alone["flow"][0], rendered["flow"][1], atol=1e-4)


def test_shapes_and_types_are_those_of_a_clip(rendered: dict[str, torch.Tensor]) -> None:
    kinds = {name: (tuple(tensor.shape[1:]), tensor.dtype) for name, tensor in rendered.items()}
    assert kinds == {
        "images": ((3, 96, 128, 3), torch.uint8),
        "labels": ((3, 96, 128), torch.uint8),
        "count": ((), torch.int64),
        "flow": ((3, 24, 32, 2), torch.float32),
        "motion": ((3, 6, 8), torch.float32),
        "places": ((3, 6, 8, 3), torch.float32),
    }
    assert not rendered["flow"][:, 0].any()


def test_the_flow_leads_to_the_same_place_of_the_same_layer(rendered: dict[str, torch.Tensor]) -> None:
    """Patches follow their flow to where, a frame ago, the same point showed."""
    errors = []
    for n in range(len(rendered["images"])):
        for t in (1, 2):
            for row in range(1, 5):
                for column in range(1, 7):
                    layer, x, y = rendered["places"][n, t, row, column].tolist()
                    dx, dy = rendered["flow"][n, t, 4 * row + 2, 4 * column + 2].tolist()
                    c, r = column + dx * 8, row + dy * 6
                    if not (0 <= c < 7 and 0 <= r < 5):
                        continue
                    corners = rendered["places"][n, t - 1, int(r) : int(r) + 2, int(c) : int(c) + 2]
                    if (corners[..., 0] != layer).any():
                        continue
                    u, v = c - int(c), r - int(r)
                    weights = torch.tensor([[(1 - v) * (1 - u), (1 - v) * u], [v * (1 - u), v * u]])
                    found = (corners[..., 1:] * weights.unsqueeze(-1)).sum((0, 1))
                    errors.append(float(torch.dist(found, torch.tensor([x, y]))))
    assert len(errors) > 50
    assert np.median(errors) < 1.0  # px; the flow's pixel lies 2 px beside the patch's centre, and bends are curved


def test_the_true_flow_agrees_with_the_estimate_that_the_robot_has(
    scenes: list[Scene], rendered: dict[str, torch.Tensor]
) -> None:
    errors = []
    for index in range(len(scenes)):
        estimate, _ = flows(rendered["images"][index].numpy())
        errors.append(np.abs(estimate[1:] - rendered["flow"][index, 1:].numpy()).max(-1))
    assert np.median(np.stack(errors)) < 0.01  # shares of the frame


def test_the_camera_is_repeatable_and_leaves_the_truth_alone(scenes: list[Scene], rendered) -> None:
    batch = stack_scenes([scene_tensors(scene) for scene in scenes])
    first, again = (render_scenes(batch, SHAPE, torch.Generator().manual_seed(3)) for _ in range(2))
    assert all(torch.equal(value, again[name]) for name, value in first.items())
    other = render_scenes(batch, SHAPE, torch.Generator().manual_seed(4))
    assert not torch.equal(first["images"], other["images"])
    assert torch.equal(first["labels"], rendered["labels"])
    assert torch.equal(first["places"], rendered["places"])
    assert not first["flow"][:, 0].any() and not torch.equal(first["flow"], rendered["flow"])


def test_a_run_learns_from_scenes_that_its_device_renders(small_run, tmp_path) -> None:
    config = small_run({"data": {"render_on": "device"}, "stages": {"memory": {"steps": 1}}})
    assert Trainer(config, (2,), resume=False, max_minutes=None).run() == 0
    (row,) = (config.folder / "log.jsonl").read_text().splitlines()
    assert json.loads(row)["loss"] > 0
    with pytest.raises(ConfigurationError, match="render_on is device, but source mose is filmed"):
        small_run({"data": {"render_on": "device", "sources": [{"kind": "mose", "root": str(tmp_path)}]}})
