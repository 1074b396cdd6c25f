"""A student whose training simulated INT8, as the QDQ operators that run later (paper section 3.5)."""

import copy
import json
import math
from pathlib import Path

import safetensors.numpy
import torch
from torch import Tensor, nn

from sam2lite_core.backends.model_files import INFO_KEY, PROMPT_FILE, STEP_FILE
from sam2lite_core.errors import ConfigurationError
from sam2lite_core.export.onnx import OPSET, stored_state, trace
from sam2lite_core.export.package import describe, replace_files, stamp
from sam2lite_core.model import graphs
from sam2lite_core.model.deploy import folded_student
from sam2lite_core.model.student import Student
from training.students.quantization import (
    HIGHEST,
    LOWEST,
    SimulatedConv2d,
    SimulatedLinear,
    simulated_layers,
    weight_scale,
)


class _Deployed(nn.Module):
    """QuantizeLinear and DequantizeLinear around a layer's product. For tracing: run in Python it computes nothing."""

    weight: Tensor
    weight_step: Tensor
    weight_zero: Tensor
    step: Tensor
    zero: Tensor

    def __init__(self, layer: nn.Linear | nn.Conv2d, log_scale: Tensor, turned: bool) -> None:
        """Quantise the weights; `turned` stores a matrix as products want it, (in, out)."""
        super().__init__()
        scale = weight_scale(layer.weight)
        weight = (layer.weight.detach() / scale).round().clamp(LOWEST, HIGHEST).to(torch.int8)
        self.axis = 1 if turned else 0
        self.register_buffer("weight", weight.T.contiguous() if turned else weight)
        self.register_buffer("weight_step", scale.flatten())
        self.register_buffer("weight_zero", torch.zeros(len(weight), dtype=torch.int8))
        self.register_buffer("step", log_scale.detach().exp())
        self.register_buffer("zero", torch.zeros((), dtype=torch.int8))
        self.bias = layer.bias

    def _operands(self, inputs: Tensor) -> tuple[Tensor, Tensor]:
        symbolic = torch.onnx.ops.symbolic
        steps = (self.step, self.zero)
        eight = symbolic("QuantizeLinear", (inputs, *steps), dtype=torch.int8, shape=inputs.shape, version=OPSET)
        back = symbolic("DequantizeLinear", (eight, *steps), dtype=torch.float32, shape=inputs.shape, version=OPSET)
        weight = symbolic(
            "DequantizeLinear",
            (self.weight, self.weight_step, self.weight_zero),
            attrs={"axis": self.axis},
            dtype=torch.float32,
            shape=self.weight.shape,
            version=OPSET,
        )
        return back, weight


class DeployedLinear(_Deployed):
    """A linear layer for the exporter."""

    def __init__(self, layer: SimulatedLinear) -> None:
        super().__init__(layer, layer.input_log_scale, turned=True)

    def forward(self, inputs: Tensor) -> Tensor:
        """Map (..., in) to (..., out)."""
        values, weight = self._operands(inputs)
        product = values @ weight
        return product if self.bias is None else product + self.bias


class DeployedConv2d(_Deployed):
    """A convolution for the exporter."""

    def __init__(self, layer: SimulatedConv2d) -> None:
        super().__init__(layer, layer.input_log_scale, turned=False)
        self._layer = (layer.stride, layer.padding, layer.dilation, layer.groups)

    def forward(self, inputs: Tensor) -> Tensor:
        """Map (N, in, H, W) to (N, out, H', W')."""
        values, weight = self._operands(inputs)
        stride, padding, dilation, groups = self._layer
        return torch.conv2d(values, weight, self.bias, stride, padding, dilation, groups)


def deployed(student: Student) -> Student:
    """Make a copy whose layers become QDQ operators when it is traced; what it computes in Python is meaningless.

    Raises:
        ConfigurationError: a layer has no range yet.
    """
    copied = copy.deepcopy(student).eval()
    for name, layer in simulated_layers(copied).items():
        if not math.isfinite(float(layer.input_log_scale.detach())):
            raise ConfigurationError(f"{name} has no range; calibrate the student before it is exported")
        swap = DeployedLinear(layer) if isinstance(layer, SimulatedLinear) else DeployedConv2d(layer)
        copied.set_submodule(name, swap)
    return copied


def in_floating_point(student: Student) -> Student:
    """Return a prepared student's weights without the simulation."""
    plain = folded_student(student.variant)
    plain.load_state_dict(
        {name: value for name, value in student.state_dict().items() if not name.endswith("input_log_scale")}
    )
    return plain.eval()


def export_int8(student: Student, folder: Path, note: str = "") -> None:
    """Write a folder that the tracker loads: both graphs with their INT8 weights inside.

    The weights file beside them holds the same weights in floating point: backend torch runs those.

    Args:
        student: prepared, calibrated and trained.
        folder: created, or its files replaced.
        note: where the weights come from; kept in the files' metadata.

    Raises:
        ConfigurationError: a layer has no range yet.
    """
    ready, plain = deployed(student), in_floating_point(student)
    models = {
        STEP_FILE: trace(graphs.StepGraph(ready), prompt=False),
        PROMPT_FILE: trace(graphs.PromptGraph(ready), prompt=True),
    }
    info = describe(plain, note, precision="int8")
    weights = safetensors.numpy.save(stored_state(plain, set()), {INFO_KEY: json.dumps(info)})
    replace_files(folder, stamp(models, weights, info))
