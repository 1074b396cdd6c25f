"""Measure the error of what each part of a converted graph hands on, against floating point."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx
import onnxruntime as ort
from onnx import helper

from sam2lite_core.export.calibration import Feed
from sam2lite_core.export.fp16 import HALF


@dataclass(frozen=True)
class PartError:
    """Relative error ||converted - float|| / ||float|| of the tensors that a part hands on, earlier errors included."""

    part: str
    error: float
    tensors: int


def handed_on(model: onnx.ModelProto) -> dict[str, str]:
    """Tensors that leave their part, with the part: what a node of another part takes, and the graph's outputs."""
    made = {name: node.name.split("/")[0] for node in model.graph.node if "/" in node.name for name in node.output}
    leaves = {value.name for value in model.graph.output}
    for node in model.graph.node:
        leaves |= {name for name in node.input if name in made and made[name] != node.name.split("/")[0]}
    return {name: made[name] for name in made if name in leaves}


def part_errors(plain: onnx.ModelProto, converted: onnx.ModelProto, feeds: Sequence[Feed]) -> list[PartError]:
    """Run both graphs on the same inputs and compare what their parts hand on, in the graph's order of parts.

    `converted` is quantised or in fp16, with the names of fp32's tensors where it holds the same values.
    """
    names = handed_on(plain)
    kept = {name for node in converted.graph.node for name in node.output}
    # Where a graph computes in fp16, its tensors carry another name.
    found = {name: name if name in kept else name + HALF for name in names}
    wanted = [name for name in names if found[name] in kept]
    others = [found[name] for name in wanted]
    first, second = _with_outputs(plain, wanted), _with_outputs(converted, others)
    total: dict[str, list[float]] = defaultdict(lambda: [0.0, 0.0])
    tensors: dict[str, set[str]] = defaultdict(set)
    for feed in feeds:
        for name, ours, theirs in zip(wanted, first.run(wanted, feed), second.run(others, feed), strict=True):
            if ours.dtype.kind != "f":
                continue
            difference = theirs.astype(np.float64) - ours
            total[names[name]][0] += float(np.square(difference).sum())
            total[names[name]][1] += float(np.square(ours.astype(np.float64)).sum())
            tensors[names[name]].add(name)
    return [
        PartError(part, float(np.sqrt(wrong / max(all_, 1e-30))), len(tensors[part]))
        for part, (wrong, all_) in total.items()
    ]


def _with_outputs(model: onnx.ModelProto, names: Sequence[str]) -> ort.InferenceSession:
    """Open a session that also gives these tensors; without fusions, which would compute them away."""
    copied = onnx.ModelProto()
    copied.CopyFrom(model)
    there = {value.name for value in copied.graph.output}
    copied.graph.output.extend(helper.make_empty_tensor_value_info(name) for name in names if name not in there)
    options = ort.SessionOptions()
    options.log_severity_level = 3
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_BASIC
    return ort.InferenceSession(copied.SerializeToString(), options, providers=["CPUExecutionProvider"])
