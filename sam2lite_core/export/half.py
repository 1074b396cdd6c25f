"""fp16 graphs from fp32 ones, for runtimes that take their precision from the file; inputs and outputs stay fp32."""

import onnx
from onnxruntime.transformers.float16 import convert_float_to_float16

FLOAT_PARTS = ("memory", "key", "gate", "presence")
"""Parts whose arithmetic stays in fp32: ages and frame indices beyond 2048, ranks told apart by 1e-4, and masked logits
are not numbers for fp16."""


def to_half(model: onnx.ModelProto) -> onnx.ModelProto:
    """Convert a graph to fp16 but for `FLOAT_PARTS`.

    Args:
        model: in fp32 with its weights inside; not changed.
    """
    copied = onnx.ModelProto()
    copied.CopyFrom(model)
    stay = [node.name for node in copied.graph.node if node.name.split("/")[0] in FLOAT_PARTS]
    half: onnx.ModelProto = convert_float_to_float16(copied, keep_io_types=True, node_block_list=stay)
    # A kept node that takes one tensor twice gets the same Cast twice, which no runtime loads.
    made: set[str] = set()
    for node in list(half.graph.node):
        if made.issuperset(node.output):
            half.graph.node.remove(node)
        made.update(node.output)
    return half
