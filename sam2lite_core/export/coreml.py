"""Convert the student's graphs to Core ML packages in fp32 (experimental: no Apple device has run them yet).

One package serves one frame size and one number of objects.
"""

import itertools
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from sam2lite_core import graph_io
from sam2lite_core.errors import ConfigurationError, ModelFileError
from sam2lite_core.files import output_folder
from sam2lite_core.frame.resolution import BASE_SHORT_SIDE, REFERENCE_SOURCE, network_size, token_pool
from sam2lite_core.graph_io import PromptTensors, StepTensors
from sam2lite_core.model import graphs
from sam2lite_core.model.bank import Bank
from sam2lite_core.model.deploy import fold_batch_norms
from sam2lite_core.model.student import Student
from sam2lite_core.variants import PATCH

STEP_PACKAGE, PROMPT_PACKAGE = "step.mlpackage", "prompt.mlpackage"


def export_coreml(
    student: Student, folder: Path, scale: float = 1.0, objects: int = 1, overwrite: bool = True
) -> dict[str, Any]:
    """Convert both graphs (experimental), load their specifications again and check them.

    Args:
        student: any variant, in evaluation mode.
        folder: created, or an earlier result replaced; nothing is left when anything fails.
        scale: resolution scale of a 480x854 source, which fixes the frame's size.
        objects: K, and the object slots M.
        overwrite: replace an earlier export.

    Returns:
        The shapes of every input and output by package, and why there is no parity report.

    Raises:
        ConfigurationError, ModelFileError, SourceError: no coremltools, a wrong package, or a folder of something else.
    """
    ready = fold_batch_norms(student)
    ready.variant = replace(student.variant, max_objects=objects)
    height, width = network_size(*REFERENCE_SOURCE, scale, BASE_SHORT_SIDE)
    found: dict[str, Any] = {}
    with output_folder(folder, marker=STEP_PACKAGE, overwrite=overwrite) as partial:
        for name, prompt in ((STEP_PACKAGE, False), (PROMPT_PACKAGE, True)):
            convert_graph(ready, partial / name, (height, width), objects, prompt)
            found[name] = check_package(partial / name, prompt)
    return {
        "variant": student.variant.name,
        "precision": "fp32",
        "network_size": [height, width],
        "packages": found,
        "parity": None,
        "parity_reason": "experimental: Core ML runs on Apple's devices only, and nobody has run these packages",
    }


class FlatGraph(nn.Module):
    """A graph that takes its inputs one by one, as TorchScript's tracer and the converter want them."""

    def __init__(self, graph: nn.Module) -> None:
        super().__init__()
        self.graph = graph

    def forward(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        """Run the graph; tensors in the order of `graph_io.graph_inputs`."""
        parts, start = [], 0
        for kind in (StepTensors, Bank, PromptTensors)[: 2 + (len(tensors) > len(graph_io.STEP_INPUTS))]:
            end = start + len(kind._fields)
            parts.append(kind(*tensors[start:end]))
            start = end
        outputs: tuple[Tensor, ...] = self.graph(*parts)
        return outputs


def convert_graph(student: Student, path: Path, size: tuple[int, int], objects: int, prompt: bool) -> None:
    """Trace one graph for frames of (height, width) px and save it as a package."""
    tools = load_tools()
    graph = graphs.build_graph(student, prompt).eval()
    capacity = student.variant.memory_budget
    inputs, *rest = graphs.example_inputs(student, objects, capacity, size[0] // PATCH, size[1] // PATCH, prompt)
    rows, columns = (
        torch.from_numpy(weights).unsqueeze(0) for weights in token_pool(*REFERENCE_SOURCE, size, BASE_SHORT_SIDE)
    )
    example = (inputs._replace(token_rows=rows, token_columns=columns), *rest)
    tensors = dict(zip(graph_io.graph_inputs(prompt), itertools.chain(*example), strict=True))
    with torch.no_grad(), warnings.catch_warnings(), patched_operators():
        warnings.simplefilter("ignore")  # tracing says of every shape that it is a constant: it is meant to be
        traced = torch.jit.trace(FlatGraph(graph), tuple(tensors.values()), check_trace=False)
        model = tools.convert(
            traced,
            convert_to="mlprogram",
            inputs=[
                tools.TensorType(name=name, shape=tuple(tensor.shape), dtype=np.float32)
                for name, tensor in tensors.items()
            ],
            outputs=[tools.TensorType(name=name, dtype=np.float32) for name in graph_io.OUTPUTS],
            minimum_deployment_target=tools.target.iOS17,
            compute_precision=tools.precision.FLOAT32,
            skip_model_load=True,
        )
    model.short_description = f"SAM2-Lite {student.variant.name}, {'prompt' if prompt else 'step'} graph"
    model.save(str(path))


def check_package(path: Path, prompt: bool) -> dict[str, dict[str, list[int]]]:
    """Return the shapes of a package's inputs and outputs; raise ModelFileError where they are not the graph's."""
    spec = load_tools().models.MLModel(str(path), skip_model_load=True).get_spec()
    wanted = {"inputs": graph_io.graph_inputs(prompt), "outputs": graph_io.OUTPUTS}
    found = {}
    for kind, values in (("inputs", spec.description.input), ("outputs", spec.description.output)):
        shapes = {value.name: [int(n) for n in value.type.multiArrayType.shape] for value in values}
        if different := set(shapes) ^ set(wanted[kind]):
            raise ModelFileError(f"{path.name}: {kind} {', '.join(sorted(different))} differ from the graph's")
        found[kind] = shapes
    return found


def load_tools() -> Any:
    """Import the coremltools package, or raise ConfigurationError."""
    try:
        import coremltools
    except ImportError as error:
        raise ConfigurationError(f"Core ML needs {error.name}: python -m pip install 'sam2lite[coreml]'") from None
    return coremltools


class patched_operators:  # a context manager that reads as one
    """Inside, coremltools 9.0 knows `|` of booleans, and takes a number from an array of one as NumPy 2.4 wants it."""

    def __enter__(self) -> None:
        from coremltools.converters.mil import Builder
        from coremltools.converters.mil.frontend.torch import ops, torch_op_registry

        def either(context: Any, node: Any) -> None:
            x, y = ops._get_inputs(context, node, expected=2)
            context.add(Builder.logical_or(x=x, y=y, name=node.name))

        def integer(context: Any, node: Any) -> None:
            (x,) = ops._get_inputs(context, node, expected=1)
            if x.val is not None:
                value = Builder.const(val=int(np.asarray(x.val).item()), name=node.name)
            else:
                scalar = Builder.squeeze(x=x) if x.shape else x
                value = Builder.cast(x=scalar, dtype="int32", name=node.name)
            context.add(value, node.name)

        self._table: dict[str, Callable[..., Any]] = torch_op_registry._TORCH_OPS_REGISTRY.name_to_func_mapping
        self._before = dict(self._table)
        self._table.setdefault("or", either)
        self._table["int"] = integer

    def __exit__(self, *_: object) -> None:
        self._table.clear()
        self._table.update(self._before)
