"""Write the student's two graphs as ONNX files that share one weights file with the torch backend."""

import contextlib
import hashlib
import io
import json
import re
import warnings
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import safetensors.numpy
import torch
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from sam2lite_core import graph_io
from sam2lite_core.backends.model_files import INFO_KEY, PROMPT_FILE, STEP_FILE, TRANSPOSED, WEIGHTS_FILE
from sam2lite_core.errors import ConfigurationError
from sam2lite_core.export.package import check_folder, describe, errors_only, replace_files, stamp
from sam2lite_core.model import graphs
from sam2lite_core.model.deploy import SHARED_BYTES, fold_batch_norms, round_to_half, split_last_convolution
from sam2lite_core.model.graphs import GraphInputs, example_inputs
from sam2lite_core.model.student import Student
from sam2lite_core.variants import PATCH

OPSET = 18
MOST_OBJECTS = 255
"""Every object costs a share and a flag in each memory token, and its own masks."""

SCOPES = "pkg.torch.onnx.name_scopes"
"""Where the exporter notes the modules that a node comes from, outermost first."""

PART = re.compile(r"'student\.(encoder\.(?:stem|trunk|blocks)|[a-z_]+)")
"""A module inside the student; the encoder's stem, trunk and blocks apart."""

HALF = "_fp16"
"""Ends the name of an initializer that is kept as fp16."""


def dynamic_shapes(arguments: GraphInputs) -> tuple[Any, ...]:
    """Name the sides that may vary, in the shape of a graph's arguments.

    They are rows and columns of patches and of tokens, objects K, and the bank's capacity S.
    """
    dims = torch.export.Dim
    rows, columns = dims("rows", min=2, max=255), dims("columns", min=2, max=255)
    objects, capacity = dims("objects", min=1, max=1024), dims("bank_slots", min=2, max=4096)
    token_rows, token_columns = (dims("token_row_count", min=2, max=255), dims("token_column_count", min=2, max=255))
    table: dict[str, Any] = {
        "image": {1: PATCH * rows, 2: PATCH * columns},
        "motion": {2: rows, 3: columns},
        "warped": {1: objects, 2: 4 * rows, 3: 4 * columns},
        "slots": {1: objects},
        "token_rows": {1: token_rows, 2: rows},
        "token_columns": {1: token_columns, 2: columns},
        "prompts": {1: objects, 3: 4 * rows, 4: 4 * columns},
        "masks": {1: objects, 2: 4 * rows, 3: 4 * columns},
        "mask_given": {1: objects},
        "prompted": {1: objects},
        **{name: {1: capacity} for name in graph_io.BANK_FIELDS},
    }
    return tuple(type(part)(*(table.get(name, {}) for name in part._fields)) for part in arguments)


def trace(graph: graphs.StepGraph | graphs.PromptGraph, prompt: bool) -> onnx.ModelProto:
    """Export one graph with dynamic frame size, object count and bank size."""
    example = example_inputs(graph.student, objects=3, capacity=64, prompt=prompt)
    with torch.no_grad(), quiet():
        program = torch.onnx.export(
            graph.eval(),
            example,
            dynamo=True,
            opset_version=OPSET,
            input_names=list(graph_io.graph_inputs(prompt)),
            output_names=list(graph_io.OUTPUTS),
            dynamic_shapes=dynamic_shapes(example),
            verbose=False,
        )
    assert program is not None  # dynamo=True always returns a program
    model = program.model_proto
    name_parts(model)
    strip_traces(model)
    onnx.checker.check_model(model)
    return model


def name_parts(model: onnx.ModelProto) -> None:
    """Put the student's part that a node belongs to before its name, so that profiles can be read by part.

    Runtimes name what they fuse after a node or after its output, so the outputs are renamed alike. What the graphs and
    the student do between their modules is the memory's and the masks' arithmetic: part "memory".
    """
    graph = model.graph
    fixed = {value.name for value in graph.output}
    renamed: dict[str, str] = {}
    for index, node in enumerate(graph.node):
        scopes = {entry.key: entry.value for entry in node.metadata_props}.get(SCOPES, "")
        part = max(PART.findall(scopes), key=len, default="memory")
        node.name = f"{part}/{node.op_type}_{index}"
        renamed.update((name, f"{node.name}:{k}") for k, name in enumerate(node.output) if name and name not in fixed)
        for values in (node.input, node.output):
            for position, name in enumerate(values):
                values[position] = renamed.get(name, name)
    for value in graph.value_info:
        value.name = renamed.get(value.name, value.name)


def strip_traces(model: onnx.ModelProto) -> None:
    """Drop the exporter's notes on nodes' origins: they are most of the file, and name the build machine."""
    model.doc_string = ""
    del model.graph.metadata_props[:]
    del model.metadata_props[:]
    for node in model.graph.node:
        node.doc_string = ""
        del node.metadata_props[:]
    for value in (*model.graph.value_info, *model.graph.input, *model.graph.output):
        value.doc_string = ""
        del value.metadata_props[:]


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Silence the exporter's progress and its warnings of packages and axis names."""
    with errors_only("torch.onnx"), contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*The axis name.*")
        warnings.filterwarnings("ignore", message=".*treespec.*", category=FutureWarning)
        yield


def move_weights(models: dict[str, onnx.ModelProto], student: Student, metadata: dict[str, str]) -> bytes:
    """Move the models' large initializers into the student's safetensors file, and return its contents.

    Both graphs and torch read the same bytes. Products want a linear layer's matrix transposed; it is stored that way,
    under a name that ends in `TRANSPOSED`. The initializer becomes outside fp16 data and a Cast to fp32, which runtimes
    fold while loading. `metadata` goes into the file's header.
    """
    large = [
        (tensor, digest(numpy_helper.to_array(tensor).astype(np.float16)))
        for model in models.values()
        for tensor in model.graph.initializer
        if tensor.data_type == TensorProto.FLOAT and np.prod(tensor.dims) * 4 >= SHARED_BYTES
    ]
    stored = stored_state(student, {name for _, name in large})
    content = safetensors.numpy.save(stored, metadata)
    place = {digest(array): span for array, span in zip(stored.values(), spans(content, stored), strict=True)}
    for tensor, name in large:
        # A constant that is no part of the student, if the exporter ever computes one, stays in its file.
        if name in place:
            refer(tensor, *place[name])
    for model in models.values():
        add_casts(model)
    return content


def stored_state(student: Student, wanted: set[str]) -> dict[str, NDArray[np.generic]]:
    """Return the student's state by name as stored, transposed where only that matches a wanted digest."""
    stored: dict[str, NDArray[np.generic]] = {}
    for name, tensor in student.state_dict().items():
        array = tensor.numpy()
        if array.dtype != np.float32 or array.nbytes < SHARED_BYTES:
            stored[name] = array
            continue
        half = array.astype(np.float16)
        turned = np.ascontiguousarray(half.T)
        if half.ndim == 2 and digest(half) not in wanted and digest(turned) in wanted:
            stored[name + TRANSPOSED] = turned
        else:
            stored[name] = half
    return stored


def digest(array: NDArray[np.generic]) -> str:
    """Name an array by its contents."""
    return hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest()


def spans(content: bytes, names: Iterable[str]) -> list[tuple[int, int]]:
    """Find the offset and length in bytes of named tensors in a safetensors file."""
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    pairs = (header[name]["data_offsets"] for name in names)
    return [(8 + length + start, end - start) for start, end in pairs]


def refer(tensor: onnx.TensorProto, offset: int, length: int) -> None:
    """Turn an fp32 initializer into a reference to fp16 data in the weights file; its name gets the suffix `HALF`."""
    tensor.ClearField("raw_data")
    tensor.ClearField("float_data")
    tensor.name += HALF
    tensor.data_type = TensorProto.FLOAT16
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in (("location", WEIGHTS_FILE), ("offset", str(offset)), ("length", str(length))):
        entry = tensor.external_data.add()
        entry.key, entry.value = key, value


def add_casts(model: onnx.ModelProto) -> None:
    """Cast every outside initializer back to the fp32 tensor that the nodes expect."""
    outside = [t.name for t in model.graph.initializer if t.data_location == TensorProto.EXTERNAL]
    casts = []
    for stored in outside:
        name = stored.removesuffix(HALF)
        casts.append(helper.make_node("Cast", [stored], [name], name=f"{name}_cast", to=TensorProto.FLOAT))
    nodes = list(model.graph.node)
    del model.graph.node[:]
    model.graph.node.extend(casts + nodes)


def export_student(student: Student, folder: Path, note: str = "", max_objects: int | None = None) -> None:
    """Write `step.onnx`, `prompt.onnx` and `weights.safetensors` of a student.

    Args:
        student: any variant, trained or not.
        folder: created or replaced as a whole; on failure it is left as it was.
        note: where the weights come from; kept in the files' metadata.
        max_objects: objects that the graphs hold at once; the variant's own when None. The weights are the same.

    Raises:
        ConfigurationError: fewer objects than one, or more than MOST_OBJECTS.
        ModelFileError: the folder exists and holds something else.
    """
    check_folder(folder)
    if max_objects is not None and not 1 <= max_objects <= MOST_OBJECTS:
        raise ConfigurationError(f"max_objects is {max_objects}; choose 1 to {MOST_OBJECTS}")
    ready = round_to_half(fold_batch_norms(student))
    ready.variant = replace(student.variant, max_objects=max_objects or student.variant.max_objects)
    traced = split_last_convolution(ready)
    models = {
        name: trace(graphs.build_graph(traced, prompt), prompt)
        for name, prompt in ((STEP_FILE, False), (PROMPT_FILE, True))
    }
    info = describe(student, note, ready.variant.max_objects)
    weights = move_weights(models, ready, {INFO_KEY: json.dumps(info)})
    replace_files(folder, stamp(models, weights, info))
