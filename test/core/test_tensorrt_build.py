"""Both graphs build into TensorRT for RTX engines. Building needs no GPU; running them does, and is not tested here."""

import dataclasses

import numpy as np
import pytest

pytest.importorskip("onnx", reason="needs onnx: pip install 'sam2lite[export]'")
pytest.importorskip("torch", reason="needs torch: pip install 'sam2lite[export]'")

from onnx import TensorProto, helper, numpy_helper

from sam2lite_core.backends.model_files import PROMPT_FILE, STEP_FILE
from sam2lite_core.backends.tensorrt.build import build_engine
from sam2lite_core.errors import BackendError, ModelFileError
from sam2lite_core.export.int8 import SCHEMES, load_inline, quantise
from sam2lite_core.export.onnx import trace
from sam2lite_core.model import graphs
from sam2lite_core.model.deploy import fold_batch_norms
from sam2lite_core.model.student import Student
from sam2lite_core.variants import get_variant

trt = pytest.importorskip(
    "tensorrt_rtx_bindings",
    reason="needs TensorRT for RTX: pip install tensorrt_rtx_cu13_bindings tensorrt_rtx_cu13_libs",
)

GENERATIONS = ("SM86", "SM89", "SM120")


@pytest.mark.slow
@pytest.mark.parametrize("name", [STEP_FILE, PROMPT_FILE])
def test_graph_builds_for_three_generations_of_gpus(exported, name) -> None:
    engine = build_engine(exported.folder / name, capacity=256, capabilities=GENERATIONS)
    # The weights are inside, as fp32 or smaller.
    assert len(engine) > 2 * sum(p.numel() for p in exported.student.parameters())


@pytest.mark.slow
@pytest.mark.parametrize("variant", ["small", "base"])
@pytest.mark.parametrize("prompt", [False, True])
def test_the_operators_of_the_larger_variants_build(tmp_path, variant, prompt) -> None:
    """In their true widths, with one block and one decoder layer of each kind: the others only repeat them."""
    definition = dataclasses.replace(get_variant(variant), depth=1, decoder_layers=1)
    student = fold_batch_norms(Student(definition))
    graph = graphs.build_graph(student, prompt)
    path = tmp_path / STEP_FILE
    path.write_bytes(trace(graph, prompt).SerializeToString())
    engine = build_engine(path, definition.memory_budget, GENERATIONS)
    assert len(engine) > 2 * sum(p.numel() for p in student.parameters())


@pytest.mark.slow
@pytest.mark.parametrize("name", [STEP_FILE, PROMPT_FILE])
def test_int8_builds_in_the_scheme_for_tensorrt(shipped, shipped_feeds, tmp_path, name) -> None:
    seen = shipped_feeds.step[-1:] if name == STEP_FILE else shipped_feeds.prompt[:1]
    path = tmp_path / name
    path.write_bytes(quantise(load_inline(shipped / name), seen, SCHEMES["tensorrt"]).SerializeToString())
    assert len(build_engine(path, 256, GENERATIONS)) > 5e6


def test_int8_in_the_scheme_for_onnx_runtime_is_refused(tmp_path) -> None:
    """One layer is enough: what TensorRT refuses is an int32 bias, and every layer of that scheme has one."""
    layer = helper.make_node("Gemm", ["x", "student.a.weight", "student.a.bias"], ["y"], name="a/Gemm_0")
    weights = {"student.a.weight": (4, 3), "student.a.bias": (3,)}
    graph = helper.make_graph(
        [layer],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [2, 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [2, 3])],
        [numpy_helper.from_array(np.ones(shape, np.float32), name) for name, shape in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    feed = {"x": np.linspace(-1, 1, 8, dtype=np.float32).reshape(2, 4)}
    path = tmp_path / STEP_FILE
    path.write_bytes(quantise(model, [feed], SCHEMES["tensorrt"]).SerializeToString())
    assert build_engine(path, 256, GENERATIONS)
    path.write_bytes(quantise(model, [feed], SCHEMES["onnx"]).SerializeToString())
    with pytest.raises(ModelFileError, match="cannot be parsed by"):
        build_engine(path, 256, GENERATIONS)


def test_what_is_not_a_graph_is_refused_with_the_parser_s_reason(tmp_path) -> None:
    (tmp_path / STEP_FILE).write_bytes(b"not a model at all")
    with pytest.raises(ModelFileError, match=r"step\.onnx cannot be parsed by tensorrt_rtx_bindings .*ailed to parse"):
        build_engine(tmp_path / STEP_FILE, 256, ("SM89",))


@pytest.mark.parametrize(
    ("capabilities", "message"),
    [
        (("SM89", "SM12"), "no GPU generation SM12; choose among SM75"),
        ((), "no GPU generation given; choose among SM75"),
    ],
)
def test_unknown_generations_are_refused(exported, capabilities, message) -> None:
    with pytest.raises(BackendError, match=message):
        build_engine(exported.folder / STEP_FILE, 256, capabilities)
