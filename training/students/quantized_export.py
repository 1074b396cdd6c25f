"""Export a student that was trained in simulated INT8 as QDQ operators (paper section 3.5)."""

import copy
import json
import math
from functools import partial
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
from training.students.quantization import HIGHEST, LOWEST, SimulatedLayer, simulated_layers, weight_scale


class Deployed(nn.Module):
    """A layer between QuantizeLinear and DequantizeLinear, for the exporter; run in Python it computes nothing."""

    weight: Tensor
    weight_step: Tensor
    weight_zero: Tensor
    step: Tensor
    zero: Tensor

    def __init__(self, layer: SimulatedLayer) -> None:
        super().__init__()
        scale = weight_scale(layer.weight)
        weight = (layer.weight.detach() / scale).round().clamp(LOWEST, HIGHEST).to(torch.int8)
        self.geometry = layer.geometry
        # Products want matrices as (in, out).
        self.axis = 1 if self.geometry is None else 0
        self.register_buffer("weight", weight.T.contiguous() if self.axis else weight)
        self.register_buffer("weight_step", scale.flatten())
        self.register_buffer("weight_zero", torch.zeros(len(weight), dtype=torch.int8))
        self.register_buffer("step", layer.input_log_scale.detach().exp())
        self.register_buffer("zero", torch.zeros((), dtype=torch.int8))
        self.bias = layer.bias

    def forward(self, inputs: Tensor) -> Tensor:
        """Map as the layer does."""
        symbolic = partial(torch.onnx.ops.symbolic, version=OPSET)
        scale = (self.step, self.zero)
        eight = symbolic("QuantizeLinear", (inputs, *scale), dtype=torch.int8, shape=inputs.shape)
        values = symbolic("DequantizeLinear", (eight, *scale), dtype=torch.float32, shape=inputs.shape)
        weight = symbolic(
            "DequantizeLinear",
            (self.weight, self.weight_step, self.weight_zero),
            attrs={"axis": self.axis},
            dtype=torch.float32,
            shape=self.weight.shape,
        )
        if self.geometry is not None:
            return torch.conv2d(values, weight, self.bias, *self.geometry)
        product = values @ weight
        return product if self.bias is None else product + self.bias


def deployed(student: Student) -> Student:
    """Make a copy whose layers become QDQ operators when it is traced; it is not for Python.

    Raises:
        ConfigurationError: a layer has no range yet.
    """
    copied = copy.deepcopy(student).eval()
    for name, layer in simulated_layers(copied).items():
        if not math.isfinite(float(layer.input_log_scale.detach())):
            raise ConfigurationError(f"{name} has no range; calibrate the student before it is exported")
        copied.set_submodule(name, Deployed(layer))
    return copied


def in_floating_point(student: Student) -> Student:
    """Copy a prepared student without the simulation."""
    plain = folded_student(student.variant)
    state = student.state_dict()
    plain.load_state_dict({name: state[name] for name in state if not name.endswith("input_log_scale")})
    return plain.eval()


def export_int8(student: Student, folder: Path, note: str = "") -> None:
    """Write a folder that the tracker loads: both graphs with INT8 weights, and floating-point weights for torch.

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
