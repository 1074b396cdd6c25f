"""Quantise the layers of floating point graphs to INT8 (QDQ) by ONNX Runtime; all between the layers stays."""

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

from sam2lite_core.errors import ModelFileError
from sam2lite_core.export.calibration import Feed
from sam2lite_core.export.float_layers import KEEP, is_kept
from sam2lite_core.export.package import errors_only

KEEP_ON_CPU = ("encoder.stem2", "encoder.trunk.stem")
"""The first convolution reads three channels: in INT8 it was no faster, and the layout that it wants made the image's
normalisation before it twelve times slower (19 ms instead of 1.7 at 480x864 on one Zen 4 core)."""

LAYERS = frozenset({"Conv", "Gemm", "MatMul"})
"""Operators that are quantised where one of their operands is a weight."""


@dataclass(frozen=True)
class Scheme:
    """Number format of INT8 graphs for a runtime.

    Attributes:
        activation: unsigned ranges use all 256 steps after a ReLU.
        keep: layers in floating point besides `KEEP`.
        float_outputs: operators whose results stay in floating point.
    """

    activation: QuantType
    keep: tuple[str, ...]
    float_outputs: tuple[str, ...]
    options: dict[str, Any] = field(default_factory=dict)


SCHEMES = {
    # Unsigned by signed is what the CPU kernels are written for, and only with it ReLU disappears into the
    # convolution. A Gemm may write floats, which saves a rounding; a convolution falls back to floats if it does.
    "onnx": Scheme(QuantType.QUInt8, KEEP_ON_CPU, ("Gemm", "MatMul")),
    # TensorRT takes symmetric signed numbers with floating point biases, and places requantisation itself.
    "tensorrt": Scheme(
        QuantType.QInt8,
        (),
        tuple(sorted(LAYERS)),
        {"ActivationSymmetric": True, "WeightSymmetric": True, "QuantizeBias": False, "DedicatedQDQPair": True},
    ),
}
"""By the export's format."""


class Reader(CalibrationDataReader):  # type: ignore[misc]  # onnxruntime has no type information
    """Hands feeds to ONNX Runtime's calibration one by one."""

    def __init__(self, feeds: Sequence[Feed]) -> None:
        self._feeds = iter(feeds)

    def get_next(self) -> Feed | None:
        """Return the next feed, or None after the last."""
        return next(self._feeds, None)


def load_inline(path: Path) -> onnx.ModelProto:
    """Load an exported floating point graph with its fp16-stored weights inside it as fp32, or raise ModelFileError."""
    try:
        model = onnx.load(path)
    except Exception as error:  # onnx and protobuf raise several unrelated types
        raise ModelFileError(f"{path} cannot be read as ONNX: {error}") from error
    graph = model.graph
    halves = {tensor.name: tensor for tensor in graph.initializer if tensor.data_type == TensorProto.FLOAT16}
    casts = [node for node in graph.node if node.op_type == "Cast" and node.input[0] in halves]
    for node in casts:
        values = numpy_helper.to_array(halves[node.input[0]]).astype(np.float32)
        graph.initializer.append(numpy_helper.from_array(values, node.output[0]))
        graph.node.remove(node)
    for name in {node.input[0] for node in casts}:
        graph.initializer.remove(halves[name])
    return model


def layer_of(node: onnx.NodeProto, weights: frozenset[str]) -> str | None:
    """Return the student's layer that a node computes, or None where it multiplies activations only."""
    if node.op_type not in LAYERS:
        return None
    found = [name for name in node.input if name in weights]
    return found[0].removeprefix("student.").rpartition(".")[0] if found else None


def split_layers(model: onnx.ModelProto, keep: Sequence[str]) -> tuple[dict[str, str], dict[str, str]]:
    """Split a floating point graph's layers into those that become INT8 and those in `keep`, by node name."""
    weights = frozenset(tensor.name for tensor in model.graph.initializer)
    quantised: dict[str, str] = {}
    kept: dict[str, str] = {}
    for node in model.graph.node:
        layer = layer_of(node, weights)
        if layer is None:
            continue
        (kept if is_kept(layer, keep) else quantised)[node.name] = layer
    return quantised, kept


def quantise(model: onnx.ModelProto, feeds: Sequence[Feed], scheme: Scheme) -> onnx.ModelProto:
    """Quantise a copy of a graph from `load_inline`: weights by output channel, activations by the feeds' ranges."""
    wanted, _ = split_layers(model, (*KEEP, *scheme.keep))
    copied = onnx.ModelProto()
    copied.CopyFrom(model)
    with tempfile.TemporaryDirectory() as work, errors_only(""):
        path = Path(work) / "int8.onnx"
        quantize_static(
            copied,
            path,
            Reader(feeds),
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=sorted(LAYERS),
            nodes_to_quantize=sorted(wanted),
            per_channel=True,
            activation_type=scheme.activation,
            weight_type=QuantType.QInt8,
            extra_options={**scheme.options, "OpTypesToExcludeOutputQuantization": list(scheme.float_outputs)},
        )
        quantised = onnx.load(path)
    # Quantisation may leave an import of the runtime's own domain that nothing uses.
    used = {node.domain for node in quantised.graph.node}
    kept = [entry for entry in quantised.opset_import if entry.domain in used]
    del quantised.opset_import[:]
    quantised.opset_import.extend(kept or [helper.make_opsetid("", 18)])
    quantised.producer_name, quantised.producer_version = model.producer_name, model.producer_version
    return quantised
