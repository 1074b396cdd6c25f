"""Stage 3: INT8 simulated in training (paper section 3.5).

Convolutions and linear layers multiply signed, symmetric 8-bit numbers: weights with a range per output channel,
activations with one range per tensor, calibrated first and learned from then on. Everything between the layers, the
attention's products and softmax among it, stays in floating point.

    student = prepare(student)
    with calibrating(student):
        ...  # run some clips
    ...  # train
    export_int8(student, folder)  # of training.students.quantized_export
"""

import contextlib
import copy
import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sam2lite_core.errors import ConfigurationError
from sam2lite_core.export.float_layers import KEEP, is_kept
from sam2lite_core.model.deploy import fold_batch_norms
from sam2lite_core.model.student import Student

LOWEST, HIGHEST = -128, 127
SAMPLES = 100_000
"""Values of a tensor that calibration looks at; more say nothing new."""


@dataclass(frozen=True)
class QuantizationConfig:
    """The layers that run in INT8.

    Attributes:
        keep: layers that stay in floating point, by name or by the name of a part that holds them.
        coverage: share of an activation's magnitudes that its calibrated range holds; the rest is clipped.
    """

    keep: tuple[str, ...] = KEEP
    coverage: float = 0.9999


def rounded(values: Tensor) -> Tensor:
    """Round half to even as ONNX does; the gradient passes straight through."""
    return values + (values.round() - values).detach()


def simulate(values: Tensor, scale: Tensor) -> Tensor:
    """Quantise and dequantise; values past the range are clipped, and both they and the rounding teach the scale.

    Args:
        values: any shape.
        scale: value of one step, broadcastable.
    """
    return rounded((values / scale).clamp(LOWEST, HIGHEST)) * scale


def weight_scale(weight: Tensor) -> Tensor:
    """Step per output channel that makes the largest weight 127, (out, 1, ...)."""
    peak = weight.detach().abs().flatten(1).amax(dim=1).clamp(min=1e-8)
    return (peak / HIGHEST).view(-1, *[1] * (weight.ndim - 1))


class _Simulated:
    """Common parts of both kinds of layers: the learned range of their input, and its calibration.

    The range starts as NaN: a layer that was never calibrated answers NaN rather than something plausible.
    """

    input_log_scale: nn.Parameter
    coverage: float
    observing: bool = False
    peak: float = 0.0

    def _begin(self, coverage: float, like: Tensor) -> None:
        self.coverage = coverage
        self.input_log_scale = nn.Parameter(torch.tensor(math.nan, device=like.device))

    def _observe(self, inputs: Tensor) -> None:
        magnitude = inputs.detach().float().abs().flatten()
        magnitude = magnitude[:: max(1, len(magnitude) // SAMPLES)]
        self.peak = max(self.peak, float(torch.quantile(magnitude, self.coverage)))

    def _operands(self, inputs: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
        scale = weight_scale(weight)
        return simulate(inputs.float(), self.input_log_scale.exp()), simulate(weight.float(), scale)


class SimulatedLinear(nn.Linear, _Simulated):
    """A linear layer that computes as INT8 will; `weight` and `bias` are those of the layer it replaces."""

    def __init__(self, layer: nn.Linear, coverage: float) -> None:
        nn.Module.__init__(self)
        self.in_features, self.out_features = layer.in_features, layer.out_features
        self.weight, self.bias = layer.weight, layer.bias
        self._begin(coverage, layer.weight)

    def forward(self, inputs: Tensor) -> Tensor:
        """Map (..., in) to (..., out)."""
        if self.observing:
            self._observe(inputs)
            return super().forward(inputs)
        # bfloat16 cannot hold products of 8-bit numbers: no autocast in here.
        with torch.autocast(inputs.device.type, enabled=False):
            return F.linear(*self._operands(inputs, self.weight), self.bias)


class SimulatedConv2d(nn.Conv2d, _Simulated):
    """A convolution that computes as INT8 will; `weight` and `bias` are those of the layer it replaces."""

    def __init__(self, layer: nn.Conv2d, coverage: float) -> None:
        nn.Module.__init__(self)
        for name in nn.Conv2d.__constants__:
            setattr(self, name, getattr(layer, name))
        self._reversed_padding_repeated_twice = layer._reversed_padding_repeated_twice
        self.weight, self.bias = layer.weight, layer.bias
        self._begin(coverage, layer.weight)

    def forward(self, inputs: Tensor) -> Tensor:
        """Map (N, in, H, W) to (N, out, H', W')."""
        if self.observing:
            self._observe(inputs)
            return super().forward(inputs)
        with torch.autocast(inputs.device.type, enabled=False):
            values, weight = self._operands(inputs, self.weight)
            return torch.conv2d(values, weight, self.bias, self.stride, self.padding, self.dilation, self.groups)


def prepare(student: Student, config: QuantizationConfig | None = None) -> Student:
    """Make a copy that simulates INT8, batch norms folded; calibrate it before it is used.

    Its state holds the folded student's names and one `input_log_scale` per layer.

    Raises:
        ConfigurationError: config.keep names something that the student does not have.
    """
    config = config or QuantizationConfig()
    copied = copy.deepcopy(student) if _is_folded(student) else fold_batch_norms(student)
    names = {name for name, _ in copied.named_modules()}
    if unknown := [name for name in config.keep if name not in names]:
        raise ConfigurationError(f"the student has no part named {', '.join(unknown)} to keep from INT8")
    for name, layer in list(copied.named_modules()):
        if is_kept(name, config.keep):
            continue
        if isinstance(layer, _Simulated):
            continue
        if isinstance(layer, nn.Linear):
            copied.set_submodule(name, SimulatedLinear(layer, config.coverage))
        elif isinstance(layer, nn.Conv2d):
            copied.set_submodule(name, SimulatedConv2d(layer, config.coverage))
    return copied


def _is_folded(student: Student) -> bool:
    return not any(isinstance(module, nn.BatchNorm2d) for module in student.modules())


def simulated_layers(student: Student) -> dict[str, SimulatedLinear | SimulatedConv2d]:
    """Return the layers of a prepared student that run in INT8, by name."""
    kinds = (SimulatedLinear, SimulatedConv2d)
    return {name: layer for name, layer in student.named_modules() if isinstance(layer, kinds)}


@contextlib.contextmanager
def calibrating(student: Student) -> Iterator[None]:
    """Inside, a prepared student computes in floating point and notes its activations; at the end ranges are set.

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
