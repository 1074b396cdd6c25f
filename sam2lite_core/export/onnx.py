"""The student's two graphs as ONNX files that share one file of weights."""

import contextlib
import copy
import hashlib
import io
import json
import logging
import shutil
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn

from sam2lite_core.backends.files import INFO_KEY, PROMPT_FILE, STEP_FILE, WEIGHTS_FILE
from sam2lite_core.errors import ModelFileError
from sam2lite_core.model import graphs, memory
from sam2lite_core.model.decoder import PROMPT_CHANNELS
from sam2lite_core.model.student import Student
from sam2lite_core.preprocess import averaging_matrix
from sam2lite_core.variants import PATCH

OPSET = 18
SHARED_BYTES = 1024
"""Initializers from this size on move to the shared weights file."""


def fold_batch_norms(student: Student) -> Student:
    """A copy in evaluation mode whose stem holds convolutions with folded batch norms."""
    folded = copy.deepcopy(student).eval()
    for stem in (folded.encoder.stem2, folded.encoder.stem4, folded.encoder.stem8, folded.encoder.stem16):
        convolution, norm = stem[0], stem[1]
        assert isinstance(convolution, nn.Conv2d)
        assert isinstance(norm, nn.BatchNorm2d)
        stem[0] = nn.utils.fuse_conv_bn_eval(convolution, norm)
        stem[1] = nn.Identity()
    return folded


def round_to_half(student: Student) -> Student:
    """A copy whose matrices and kernels hold only values that fp16 can store, as the weights file does."""
    rounded = copy.deepcopy(student)
    with torch.no_grad():
        for parameter in rounded.parameters():
            if parameter.numel() * 4 >= SHARED_BYTES:
                parameter.copy_(parameter.half().float())
    return rounded


def parameters_by_part(student: Student) -> dict[str, int]:
    """Parameter counts of the student's parts and their total."""
    counts = {name: sum(p.numel() for p in part.parameters()) for name, part in student.named_children()}
    direct = sum(p.numel() for p in student.parameters(recurse=False))
    return {**counts, "scalars": direct, "total": sum(counts.values()) + direct}


def example_inputs(
    student: Student, objects: int, slots: int, rows: int = 9, columns: int = 16, prompt: bool = False
) -> dict[str, Tensor]:
    """Inputs of the right shapes and types: K = objects, S = slots, a frame of rows x columns patches."""
    width, most = student.variant.key_width, student.variant.max_objects
    fine = (1, objects, rows * 4, columns * 4)
    bank = memory.empty_bank(1, slots, width, most)
    values = {
        "image": torch.zeros(1, rows * PATCH, columns * PATCH, 3, dtype=torch.uint8),
        "motion": torch.zeros(1, 1, rows, columns),
        "warped": torch.zeros(fine),
        "slots": torch.eye(most)[:objects].unsqueeze(0),
        "active": torch.ones(1, most),
        "window": torch.full((1,), 8.0),
        "budget": torch.full((1,), float(slots)),
        "frame": torch.zeros(1),
        "policy": torch.tensor([[1.0, 0.0, 0.0, 0.0]]),
        "presence_threshold": torch.full((1,), 0.5),
        "token_rows": torch.from_numpy(averaging_matrix(rows, (rows + 1) // 2)).unsqueeze(0),
        "token_columns": torch.from_numpy(averaging_matrix(columns, (columns + 1) // 2)).unsqueeze(0),
        **dict(zip(graphs.BANK_NAMES, bank, strict=True)),
    }
    if prompt:
        values["prompts"] = torch.zeros(1, objects, PROMPT_CHANNELS, rows * 4, columns * 4)
        values["masks"] = torch.zeros(fine)
        values["mask_given"] = torch.zeros(1, objects)
        values["prompted"] = torch.zeros(1, objects)
    return values


def dynamic_shapes(names: tuple[str, ...]) -> dict[str, dict[int, object]]:
    """Which sides may vary: rows and columns of patches and of tokens, objects K, bank slots S."""
    dims = torch.export.Dim
    rows, columns = dims("rows", min=2, max=255), dims("columns", min=2, max=255)
    objects, slots = dims("objects", min=1, max=1024), dims("bank_slots", min=2, max=4096)
    token_rows, token_columns = (
        dims("token_row_count", min=2, max=255),
        dims("token_column_count", min=2, max=255),
    )
    table: dict[str, dict[int, object]] = {
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
        **{name: {1: slots} for name in graphs.BANK_NAMES},
    }
    return {name: table.get(name, {}) for name in names}


def trace(graph: graphs.StepGraph, prompt: bool) -> onnx.ModelProto:
    """Export one graph with dynamic frame size, object count and bank size."""
    names = graphs.PROMPT_INPUTS if prompt else graphs.STEP_INPUTS
    example = example_inputs(graph.student, objects=3, slots=64, prompt=prompt)
    with torch.no_grad(), quiet():
        program = torch.onnx.export(
            graph.eval(),
            tuple(example[name] for name in names),
            dynamo=True,
            opset_version=OPSET,
            input_names=list(names),
            output_names=list(graphs.OUTPUTS),
            dynamic_shapes=tuple(dynamic_shapes(names).values()),
            verbose=False,
        )
    assert program is not None  # dynamo=True always returns a program
    model = program.model_proto
    strip_traces(model)
    onnx.checker.check_model(model)
    return model


def strip_traces(model: onnx.ModelProto) -> None:
    """Drop the exporter's notes on where each node came from: they are most of the file, and name the build machine."""
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
    """The exporter prints its progress, and warns of packages and axis names that do not concern us."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*The axis name.*")
        warnings.filterwarnings("ignore", message=".*treespec.*", category=FutureWarning)
        try:
            yield
        finally:
            logger.setLevel(level)


def share_weights(models: dict[str, onnx.ModelProto]) -> bytes:
    """Move large float initializers of all models into one blob, fp16, each distinct tensor once.

    The initializer becomes fp16 data outside the file and a Cast to fp32, which runtimes fold while loading.

    Args:
        models: changed in place.

    Returns:
        The blob for `WEIGHTS_FILE`.
    """
    blob = io.BytesIO()
    known: dict[str, tuple[int, int]] = {}
    for model in models.values():
        casts = []
        for tensor in model.graph.initializer:
            if tensor.data_type != TensorProto.FLOAT or np.prod(tensor.dims) * 4 < SHARED_BYTES:
                continue
            data = numpy_helper.to_array(tensor).astype(np.float16).tobytes()
            digest = hashlib.sha256(data).hexdigest()
            if digest not in known:
                blob.write(b"\0" * (-blob.tell() % 64))
                known[digest] = (blob.tell(), len(data))
                blob.write(data)
            name = tensor.name
            stored = f"{name}_fp16"
            tensor.ClearField("raw_data")
            tensor.ClearField("float_data")
            tensor.name = stored
            tensor.data_type = TensorProto.FLOAT16
            tensor.data_location = TensorProto.EXTERNAL
            offset, length = known[digest]
            for key, value in (("location", WEIGHTS_FILE), ("offset", str(offset)), ("length", str(length))):
                entry = tensor.external_data.add()
                entry.key, entry.value = key, value
            casts.append(
                helper.make_node("Cast", [stored], [name], name=f"{name}_cast", to=TensorProto.FLOAT)
            )
        nodes = list(model.graph.node)
        del model.graph.node[:]
        model.graph.node.extend(casts + nodes)
    return blob.getvalue()


def export_student(student: Student, folder: Path, note: str = "") -> None:
    """Write `step.onnx`, `prompt.onnx` and `weights.bin` of a student.

    Args:
        student: any variant, trained or not.
        folder: created or replaced as a whole; on failure it is left as it was.
        note: where the weights come from; kept in the files' metadata.

    Raises:
        ModelFileError: the folder exists and holds something else.
    """
    ours = {STEP_FILE, PROMPT_FILE, WEIGHTS_FILE, "MODEL_CARD.md"}
    foreign = {p.name for p in folder.iterdir()} - ours if folder.is_dir() else set()
    if foreign:
        raise ModelFileError(f"{folder} holds {', '.join(sorted(foreign))}; export into a folder of its own")
    ready = round_to_half(fold_batch_norms(student))
    models = {
        STEP_FILE: trace(graphs.StepGraph(ready), prompt=False),
        PROMPT_FILE: trace(graphs.PromptGraph(ready), prompt=True),
    }
    weights = share_weights(models)
    info = {
        "format": 1,
        "variant": student.variant.name,
        "max_objects": student.variant.max_objects,
        "memory_budget": student.variant.memory_budget,
        "parameters": parameters_by_part(student),
        "weights_sha256": hashlib.sha256(weights).hexdigest(),
        "note": note,
    }
    folder.parent.mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    try:
        for name, model in models.items():
            entry = model.metadata_props.add()
            entry.key, entry.value = INFO_KEY, json.dumps(info)
            (partial / name).write_bytes(model.SerializeToString())
        (partial / WEIGHTS_FILE).write_bytes(weights)
        folder.mkdir(exist_ok=True)
        for name in (WEIGHTS_FILE, STEP_FILE, PROMPT_FILE):
            (partial / name).replace(folder / name)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
