"""The encoder's trunk and its published weights, against the network that they come from."""

from pathlib import Path

import pytest
import torch
from torch import nn

from sam2lite_core.errors import ConfigurationError
from sam2lite_core.model.student import Student
from sam2lite_core.model.trunk import Trunk
from sam2lite_core.variants import get_variant
from training import checkpoint
from training.config import loading
from training.config.run import PACKAGED, RunConfig
from training.loop.trainer import Trainer
from training.students.pretrained import fill_trunk
from training.teachers.base import TeacherError
from training.teachers.image_features import packaged_weights


def filled(variant: str) -> Student:
    student = Student(get_variant(variant))
    fill_trunk(student, PACKAGED)
    return student.eval()


@pytest.fixture(scope="module")
def student() -> Student:
    return filled("tiny")


@pytest.mark.parametrize(
    ("variant", "network_name", "last_blocks"),
    [("tiny", "efficientnet-lite0", (2, 4, 10, 13)), ("small", "efficientnet-lite1", (3, 6, 14, 19))],
)
def test_maps_are_those_of_the_network_that_the_weights_come_from(variant, network_name, last_blocks):
    from efficientnet_lite_pytorch import EfficientNet

    student = filled(variant)
    # It pads as its training pictures need it unless told otherwise; Lite1's have odd sides at stride 16.
    network = EfficientNet.from_name(network_name, image_size=128)
    weights = packaged_weights(student.variant.trunk)
    network.load_state_dict(torch.load(weights, map_location="cpu", weights_only=True))
    network.eval()
    seen: dict[int, torch.Tensor] = {}
    for index in last_blocks:
        network._blocks[index].register_forward_hook(lambda _, given, output, index=index: seen.update({index: output}))
    images = torch.randn(1, 3, 128, 192, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        network.extract_features(images)
        ours = student.encoder.trunk(images)
    for theirs, found in zip(seen.values(), ours, strict=True):
        assert found.shape == theirs.shape
        assert torch.allclose(found, theirs, atol=1e-3 * float(theirs.abs().max()))


@pytest.mark.parametrize(("height", "width"), [(240, 432), (176, 208), (16, 48)])
def test_sides_are_rounded_up(height, width):
    with torch.no_grad():
        maps = Trunk("lite0").eval()(torch.zeros(1, 3, height, width))
        features = Student(get_variant("tiny")).eval().encoder(torch.zeros(1, 3, height, width))
    sizes = [(-(-height // stride), -(-width // stride)) for stride in (4, 8, 16, 32)]
    assert [grid.shape[-2:] for grid in maps] == sizes
    assert [grid.shape[-2:] for grid in features] == sizes[:3]


def test_batch_norms_do_not_look_at_batches(student):
    trunk = student.encoder.trunk
    before = {name: value.clone() for name, value in trunk.state_dict().items()}
    student.train()
    norms = [module for module in trunk.modules() if isinstance(module, nn.BatchNorm2d)]
    assert trunk.training and norms and not any(norm.training for norm in norms)
    trunk(torch.randn(2, 3, 64, 64) * 9.0)
    student.eval()
    assert all(torch.equal(value, before[name]) for name, value in trunk.state_dict().items())


def test_a_run_starts_from_them(small_run):
    config = small_run({"trunk": "packaged", "stages": {"memory": {"frozen": ["encoder.trunk"]}}})
    assert Trainer(config, (2,), resume=False, max_minutes=None).run() == 0
    (last,) = sorted((config.folder / "checkpoints").glob("step_*.pt"))[-1:]
    state = checkpoint.load(last)["student"]
    published = torch.load(packaged_weights(), map_location="cpu", weights_only=True)
    assert torch.equal(state["encoder.trunk.stem.0.weight"], published["_conv_stem.weight"])
    assert torch.equal(state["encoder.trunk.late.0.2.project.1.running_var"], published["_blocks.13._bn2.running_var"])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "no such file"),
        (b"not weights", "not the weights of EfficientNet-Lite0: ."),
        ({}, r"not the weights of EfficientNet-Lite0: '_conv_stem\.weight'"),
    ],
)
def test_other_files_are_refused_by_name(tmp_path: Path, content, message):
    path = tmp_path / "trunk.pt"
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content is not None:
        torch.save(content, path)
    student = Student(get_variant("tiny"))
    with pytest.raises(TeacherError, match=rf"trunk\.pt: {message}"):
        fill_trunk(student, path)


def test_another_size_of_the_network_is_refused():
    with pytest.raises(TeacherError, match="not the weights of EfficientNet-Lite1: '_blocks"):
        fill_trunk(Student(get_variant("small")), packaged_weights("lite0"))


def test_a_variant_without_a_trunk_refuses_its_weights():
    with pytest.raises(ConfigurationError, match="the encoder of base has no trunk"):
        fill_trunk(Student(get_variant("base")), PACKAGED)
    with pytest.raises(ConfigurationError, match="the encoder of base has no trunk"):
        loading.build(RunConfig, {"variant": "base", "trunk": PACKAGED})
