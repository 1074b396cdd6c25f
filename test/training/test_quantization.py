"""INT8 simulated in training, and the operators that it is exported to."""

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from torch import nn

from sam2lite_core.backends.torch import load_shipped
from sam2lite_core.errors import ConfigurationError
from sam2lite_core.export.onnx import OPSET, quiet
from sam2lite_core.model.deploy import fold_batch_norms
from sam2lite_core.model.student import Student
from sam2lite_core.tracker import Tracker
from sam2lite_core.types import Prompt
from sam2lite_core.variants import get_variant
from training.config.objective import UnrollConfig
from training.objective.unroll import Unroller
from training.students import quantization, quantized_export

SHIPPED = Path(__file__).parents[2] / "sam2lite_core" / "weights" / "tiny"
LEVELS = onnxruntime.GraphOptimizationLevel


def small():
    torch.manual_seed(0)
    return Student(replace(get_variant("tiny"), depth=1, decoder_layers=1)).eval()


def pictures(count=1, height=96, width=128, seed=0):
    coarse = torch.rand(count, 3, height // 8, width // 8, generator=torch.Generator().manual_seed(seed))
    return nn.functional.interpolate(coarse, (height, width), mode="bilinear") * 255.0


def clip():
    labels = torch.zeros(1, 3, 96, 128, dtype=torch.uint8)
    labels[:, :, 16:64, 16:64] = 1
    return {
        "images": pictures(3).permute(0, 2, 3, 1).unsqueeze(0).to(torch.uint8),
        "labels": labels,
        "count": torch.tensor([1]),
        "flow": torch.zeros(1, 3, 24, 32, 2),
        "motion": torch.zeros(1, 3, 6, 8),
        "places": torch.full((1, 3, 6, 8, 3), -1.0),
    }


def unroll(student):
    config = UnrollConfig(drop_warp=(0.0, 0.0), joins_late=0.0)
    return Unroller(student, config, torch.Generator().manual_seed(0))(clip(), 0.5)


@pytest.fixture(scope="module")
def calibrated():
    """A small student with random weights, calibrated on one clip."""
    student = quantization.prepare(small())
    with torch.no_grad(), quantization.calibrating(student):
        unroll(student)
    return student.eval()


@pytest.mark.parametrize(
    ("value", "simulated", "slope", "scale_slope"),
    [
        (0.0, 0.0, 1.0, 0.0),
        (0.26, 0.5, 1.0, 1.0 - 0.52),  # steps of .5; the slope of the scale is q - x / s
        (0.74, 0.5, 1.0, 1.0 - 1.48),
        (1.25, 1.0, 1.0, 2.0 - 2.5),  # half to even
        (1.75, 2.0, 1.0, 4.0 - 3.5),
        (90.0, 63.5, 0.0, 127.0),
        (-90.0, -64.0, 0.0, -128.0),
    ],
)
def test_simulation_by_hand(value, simulated, slope, scale_slope):
    values = torch.tensor(value, requires_grad=True)
    scale = torch.tensor(0.5, requires_grad=True)
    out = quantization.simulate(values, scale)
    out.backward()
    assert float(out.detach()) == pytest.approx(simulated)
    assert float(values.grad) == slope
    assert float(scale.grad) == pytest.approx(scale_slope, abs=1e-6)


def test_every_output_channel_has_a_range_of_its_own():
    weight = torch.tensor([[0.5, -1.27], [0.0254, 0.01], [0.0, 0.0]])
    scale = quantization.weight_scale(weight)
    assert scale.flatten().tolist() == pytest.approx([0.01, 0.0002, 1e-8 / 127])
    assert quantization.weight_scale(torch.ones(4, 2, 3, 3)).shape == (4, 1, 1, 1)
    assert torch.allclose(quantization.simulate(weight, scale), weight, atol=0.005)


def test_convolutions_and_linear_layers_are_simulated_and_the_rest_is_not():
    student = small()
    prepared = quantization.prepare(student)
    layers = quantization.simulated_layers(prepared)
    assert {"encoder.trunk.stem.0", "encoder.blocks.0.attention.query", "head.conv4", "value", "pixel"} <= set(layers)
    left = [n for n, m in prepared.named_modules() if isinstance(m, nn.Linear | nn.Conv2d) and n not in layers]
    assert sorted(left) == sorted(
        [
            "key",
            "gate.layers.0",
            "gate.layers.2",
            "gate.layers.4",
            "presence.0",
            "presence.2",
            "similarity",
            "head.out",
            "prompt.out",
        ]
    )
    assert not any(isinstance(m, nn.BatchNorm2d) for m in prepared.modules())
    names = {n for n in prepared.state_dict() if not n.endswith(".input_log_scale")}
    assert names == set(fold_batch_norms(student).state_dict())
    # The given student is as it was.
    assert any(isinstance(m, nn.BatchNorm2d) for m in student.modules())


def test_parts_to_keep_must_exist():
    with pytest.raises(ConfigurationError, match="heads"):
        quantization.prepare(small(), keep=("heads",))


def test_calibration_computes_in_floating_point_and_sets_every_range():
    student = small()
    prepared = quantization.prepare(student)
    with torch.no_grad(), quantization.calibrating(prepared):
        seen, _ = prepared.encode(pictures())
        unroll(prepared)
    with torch.no_grad():
        plain, _ = fold_batch_norms(student).encode(pictures())
        eight, _ = prepared.encode(pictures())
    assert torch.equal(seen.stride16, plain.stride16)
    error = (eight.stride16 - plain.stride16).abs().mean() / plain.stride16.abs().mean()
    assert 0.0 < error < 0.15
    first = quantization.simulated_layers(prepared)["encoder.trunk.stem.0"]
    normalised = (pictures() - 127.0) / 128.0  # (pixel - MIDDLE) / HALF_RANGE of the trunk
    assert float(first.input_log_scale.exp()) * 127 == pytest.approx(float(normalised.abs().max()), rel=0.1)


def test_a_layer_that_was_never_calibrated_cannot_be_used():
    prepared = quantization.prepare(small())
    with torch.no_grad():
        assert prepared.encode(pictures())[0].stride16.isnan().all()
    with pytest.raises(ConfigurationError, match="has no range"):
        quantized_export.deployed(prepared)
    with (
        pytest.raises(ConfigurationError, match=r"prompt\.prompt4"),
        torch.no_grad(),
        quantization.calibrating(prepared),
    ):
        prepared.encode(pictures())


def test_a_calibrated_student_is_restored_from_its_state(calibrated):
    restored = quantization.prepare(small())
    restored.load_state_dict(calibrated.state_dict())
    with torch.no_grad():
        assert torch.equal(restored.encode(pictures())[1], calibrated.encode(pictures())[1])


def test_the_weights_without_the_simulation_are_the_student_s(calibrated):
    plain = quantized_export.in_floating_point(calibrated)
    with torch.no_grad():
        expected = fold_batch_norms(small()).encode(pictures())[1]
        assert torch.equal(plain.encode(pictures())[1], expected)


def test_weights_and_ranges_learn_through_the_rounding(calibrated):
    student = quantization.prepare(small())
    student.load_state_dict(calibrated.state_dict())
    layers = quantization.simulated_layers(student)
    with torch.no_grad():
        target, _ = fold_batch_norms(small()).encode(pictures())
        for layer in layers.values():
            layer.input_log_scale -= math.log(3.0)  # ranges that clip most of what they should hold
    encoder = [p for n, p in student.named_parameters() if n.startswith("encoder.")]
    optimizer = torch.optim.Adam(encoder, lr=3e-3)
    seen = []
    for _ in range(50):
        features, _ = student.encode(pictures())
        loss = nn.functional.mse_loss(features.stride16, target.stride16)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        seen.append(float(loss.detach()))
    assert seen[-1] < 0.3 * seen[0]
    total, _ = unroll(student)
    total.backward()
    blind = [n for n, layer in layers.items() if not layer.input_log_scale.grad.isfinite()]
    assert not blind and all(layer.weight.grad.abs().sum() > 0 for layer in layers.values())


def test_mixed_precision_leaves_the_8_bits_alone(calibrated):
    layer = quantization.simulated_layers(calibrated)["pixel"]
    values = torch.randn(4, layer.weight.shape[1], generator=torch.Generator().manual_seed(0))
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        mixed = layer(values)
    with torch.no_grad():
        assert mixed.dtype == torch.float32 and torch.equal(mixed, layer(values))


def export(module, *inputs):
    with torch.no_grad(), quiet():
        program = torch.onnx.export(module.eval(), inputs, dynamo=True, opset_version=OPSET, verbose=False)
    return program.model_proto


def run(model, value, level=LEVELS.ORT_DISABLE_ALL):
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = level
    session = onnxruntime.InferenceSession(model.SerializeToString(), options)
    return session.run(None, {session.get_inputs()[0].name: value.numpy()})


@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        (nn.Linear(24, 16), (2, 5, 24)),
        (nn.Linear(24, 16, bias=False), (7, 24)),
        (nn.Conv2d(8, 12, 3, 2, 1), (1, 8, 10, 12)),
        (nn.Conv2d(8, 8, 3, 1, 1, groups=8), (1, 8, 6, 6)),
        (nn.Conv2d(8, 4, 1, bias=False), (1, 8, 6, 6)),
    ],
)
def test_a_layer_is_exported_as_it_was_simulated(layer, shape):
    values = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    simulated = quantization.SimulatedLayer(layer)
    with torch.no_grad():
        simulated.input_log_scale.fill_(math.log(2.0 / 127))  # clips some of the values
    model = export(quantized_export.Deployed(simulated), values)
    operators = {node.op_type for node in model.graph.node}
    assert {"QuantizeLinear", "DequantizeLinear"} <= operators
    stored = {tensor.name: tensor.data_type for tensor in model.graph.initializer}
    assert stored["weight"] == 3  # onnx.TensorProto.INT8
    with torch.no_grad():
        expected, plain = simulated(values).numpy(), layer(values).numpy()
    assert np.allclose(run(model, values)[0], expected, atol=1e-5)
    assert np.abs(expected - plain).max() > 1e-3


def test_the_exported_encoder_agrees_with_the_simulated_one(calibrated):
    """Exact up to the float error of a few layers; a value on the brink rounds the other way, and then so do others."""

    class Maps(nn.Module):
        def __init__(self, student):
            super().__init__()
            self.student = student

        def forward(self, image):
            features, key = self.student.encode(image)
            return features.stride4, features.stride16, key

    image = pictures(seed=3)
    model = export(Maps(quantized_export.deployed(calibrated)), image)
    with torch.no_grad():
        simulated = Maps(calibrated)(image)
        plain = Maps(fold_batch_norms(small()))(image)
    for level, brink in ((LEVELS.ORT_DISABLE_ALL, 0.3), (LEVELS.ORT_ENABLE_ALL, 0.8)):
        answers = run(model, image, level)
        for ours, theirs, reference in zip(simulated, answers, plain, strict=True):
            mistaken = np.abs(theirs - ours.numpy()).mean()
            assert mistaken < brink * (ours - reference).abs().mean()
        if level == LEVELS.ORT_DISABLE_ALL:
            assert np.allclose(answers[0], simulated[0].numpy(), atol=1e-5)


@pytest.mark.slow
def test_the_tracker_runs_an_int8_folder_like_the_floating_point_one(tmp_path):
    """The shipped weights, calibrated on a drawn clip: an object that moves over a background is followed alike."""
    shipped, _ = load_shipped(SHIPPED / "weights.safetensors")
    prepared = quantization.prepare(shipped)
    with torch.no_grad(), quantization.calibrating(prepared):
        unroll(prepared)
    quantized_export.export_int8(prepared, tmp_path / "int8", "a test")
    labels = {}
    for name, folder in (("float", SHIPPED), ("int8", tmp_path / "int8")):
        tracker = Tracker("tiny", backend="onnxruntime", model_path=folder, scale=1.0, base_short_side=128)
        seen = []
        for t in range(4):
            image = pictures(height=128, width=160)[0].permute(1, 2, 0).numpy().astype(np.uint8) // 2
            image[40:88, 30 + 6 * t : 90 + 6 * t] = (230, 220, 40)
            mask = np.zeros((128, 160), bool)
            mask[40:88, 30:90] = True
            seen.append(tracker.step(image, [Prompt(object_id=1, mask=mask)] if t == 0 else []).label_map)
        labels[name] = np.stack(seen)
    assert (labels["float"] > 0).mean() > 0.05
    assert (labels["float"] == labels["int8"]).mean() > 0.99
