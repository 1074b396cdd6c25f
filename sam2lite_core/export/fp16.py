"""Convert fp32 graphs to fp16, but for the memory's arithmetic, the gate and the graph's inputs and outputs.

ONNX Runtime's own converter rounds these too, and the tracker lost its object on the second frame.
"""

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

FLOAT_PARTS = frozenset({"memory", "key", "gate", "presence"})
"""Parts whose arithmetic stays in fp32: ages and frame indices beyond 2048, ranks told apart by 1e-4, logits clipped at
1e-6 and masked with -1e4 are not numbers for fp16."""

HALF_OPERATORS = frozenset(
    {
        *("Add", "AveragePool", "Concat", "Conv", "Div", "Erf", "Expand", "Gather", "Gemm", "LayerNormalization"),
        *("MatMul", "Mul", "Pad", "Relu", "Reshape", "Resize", "Slice", "Softmax", "Split", "Squeeze", "Sub"),
        *("Tanh", "Transpose", "Unsqueeze"),
    }
)
"""Operators that every runtime has in fp16."""

FLOAT_OPERANDS = {"Resize": (1, 2)}
"""Operands that are fp32 by ONNX's definition."""

HALF = "_half"


def to_half(model: onnx.ModelProto) -> onnx.ModelProto:
    """Convert a copy of an fp32 graph with its weights inside to fp16 but for `FLOAT_PARTS`, adding Casts."""
    converted = onnx.shape_inference.infer_shapes(model)
    graph = converted.graph
    weights = {tensor.name: tensor for tensor in graph.initializer if tensor.data_type == TensorProto.FLOAT}
    floats = set(weights) | {
        value.name
        for value in (*graph.input, *graph.output, *graph.value_info)
        if value.type.tensor_type.elem_type == TensorProto.FLOAT
    }
    halves = [node for node in graph.node if _is_half(node)]
    made = {name for node in halves for name in node.output if name in floats}
    wanted = {value.name for value in graph.output}
    for node in graph.node:
        wanted |= {name for i, name in enumerate(node.input) if not _is_half(node) or i in _float_operands(node)}
    nodes: list[onnx.NodeProto] = []
    ready: set[str] = set()
    for node in graph.node:
        if not _is_half(node):
            nodes.append(node)
            continue
        for index, name in enumerate(node.input):
            if name not in floats or index in _float_operands(node):
                continue
            if name not in made | ready:
                ready.add(name)
                if name in weights:
                    values = numpy_helper.to_array(weights[name]).astype(np.float16)
                    graph.initializer.append(numpy_helper.from_array(values, name + HALF))
                else:
                    nodes.append(_cast(name, name + HALF, TensorProto.FLOAT16))
            node.input[index] = name + HALF
        nodes.append(node)
        for index, name in enumerate(node.output):
            if name in made:
                node.output[index] = name + HALF
                if name in wanted:
                    nodes.append(_cast(name + HALF, name, TensorProto.FLOAT))
    del graph.node[:]
    graph.node.extend(nodes)
    used = {name for node in nodes for name in node.input}
    for name in set(weights) - used:
        graph.initializer.remove(weights[name])
    # The noted types of what lies between are those of the fp32 graph.
    del graph.value_info[:]
    onnx.checker.check_model(converted)
    return converted


def _is_half(node: onnx.NodeProto) -> bool:
    return node.op_type in HALF_OPERATORS and node.name.split("/")[0] not in FLOAT_PARTS


def _float_operands(node: onnx.NodeProto) -> tuple[int, ...]:
    return FLOAT_OPERANDS.get(node.op_type, ())


def _cast(source: str, target: str, to: int) -> onnx.NodeProto:
    return helper.make_node("Cast", [source], [target], name=f"cast/{target}", to=to)
