"""Simulate INT8 in training, stage 3 (paper section 3.5): `prepare`, run clips within `calibrating`, train, export.

Convolutions and linear layers multiply signed, symmetric 8-bit numbers: weights with a range per output channel,
activations with one per tensor, calibrated first and then learned. All else stays in floating point.
"""

import contextlib
import math
from collections.abc import Iterator, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sam2lite_core.errors import ConfigurationError
from sam2lite_core.export.float_layers import KEEP, is_kept
from sam2lite_core.model.deploy import fold_batch_norms
from sam2lite_core.model.student import Student

LOWEST, HIGHEST = -128, 127
COVERAGE = 0.9999
"""Share of an activation's magnitudes that its calibrated range holds; the rest is clipped."""

SAMPLES = 100_000
"""Most values of a tensor that calibration looks at."""


def simulate(values: Tensor, scale: Tensor) -> Tensor:
    """Quantise and dequantise; gradients pass straight through the rounding, and teach the scale.

    Args:
        values: any shape; those past the range are clipped.
        scale: value of one step, broadcastable.
    """
    steps = (values / scale).clamp(LOWEST, HIGHEST)
    return (steps + (steps.round() - steps).detach()) * scale


def weight_scale(weight: Tensor) -> Tensor:
    """Return the step of each output channel that makes the largest weight 127, (out, 1, ...)."""
    peak = weight.detach().abs().flatten(1).amax(dim=1).clamp(min=1e-8)
    return (peak / HIGHEST).view(-1, *[1] * (weight.ndim - 1))


class SimulatedLayer(nn.Module):
    """Linear layer or convolution that computes as INT8 will, with its weights and a learned input range.

    The range starts as NaN, so that a layer that was never calibrated is noticed.
    """

    def __init__(self, layer: nn.Linear | nn.Conv2d) -> None:
        super().__init__()
        self.weight, self.bias = layer.weight, layer.bias
        self.input_log_scale = nn.Parameter(torch.tensor(math.nan, device=layer.weight.device))
        self.geometry: Any = None
        if isinstance(layer, nn.Conv2d):
            self.geometry = (layer.stride, layer.padding, layer.dilation, layer.groups)
        self.observing, self.peak = False, 0.0

    def forward(self, inputs: Tensor) -> Tensor:
        """Map as the replaced layer does."""
        if self.observing:
            magnitude = inputs.detach().float().abs().flatten()
            magnitude = magnitude[:: max(1, len(magnitude) // SAMPLES)]
            self.peak = max(self.peak, float(torch.quantile(magnitude, COVERAGE)))
            return self._multiply(inputs, self.weight)
        # bfloat16 cannot hold products of 8-bit numbers: no autocast in here.
        with torch.autocast(inputs.device.type, enabled=False):
            values = simulate(inputs.float(), self.input_log_scale.exp())
            return self._multiply(values, simulate(self.weight.float(), weight_scale(self.weight)))

    def _multiply(self, inputs: Tensor, weight: Tensor) -> Tensor:
        if self.geometry is None:
            return F.linear(inputs, weight, self.bias)
        return torch.conv2d(inputs, weight, self.bias, *self.geometry)


def prepare(student: Student, keep: Sequence[str] = KEEP) -> Student:
    """Make a copy that simulates INT8, batch norms folded; calibrate it before it is used.

    Its state holds the folded student's names and one `input_log_scale` per layer.

    Args:
        student: stays as it is.
        keep: layers that stay in floating point, by name or by the name of a part that holds them.

    Raises:
        ConfigurationError: `keep` names something that the student does not have.
    """
    copied = fold_batch_norms(student)
    names = {name for name, _ in copied.named_modules()}
    if unknown := [name for name in keep if name not in names]:
        raise ConfigurationError(f"the student has no part named {', '.join(unknown)} to keep from INT8")
    for name, layer in list(copied.named_modules()):
        if not is_kept(name, keep) and isinstance(layer, nn.Linear | nn.Conv2d):
            copied.set_submodule(name, SimulatedLayer(layer))
    return copied


def simulated_layers(student: Student) -> dict[str, SimulatedLayer]:
    """Return the layers of a prepared student that run in INT8, by name."""
    return {name: layer for name, layer in student.named_modules() if isinstance(layer, SimulatedLayer)}


@contextlib.contextmanager
def calibrating(student: Student) -> Iterator[None]:
    """Compute in floating point and note activations inside; set the ranges of a prepared student at the end.

    Raises:
        ConfigurationError: a layer saw nothing, or nothing but zeros; frames with prompts are needed as well.
    """
    layers = simulated_layers(student)
    for layer in layers.values():
        layer.observing, layer.peak = True, 0.0
    try:
        yield
    finally:
        for layer in layers.values():
            layer.observing = False
    if blind := [name for name, layer in layers.items() if not 0.0 < layer.peak < math.inf]:
        raise ConfigurationError(
            f"calibration showed nothing to {', '.join(blind)}; run clips whose frames carry prompts and warped masks"
        )
    with torch.no_grad():
        for layer in layers.values():
            layer.input_log_scale.fill_(math.log(layer.peak / HIGHEST))
