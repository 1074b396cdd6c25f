"""Both graphs build into TensorRT for RTX engines. Building needs no GPU; running them does, and is not tested here."""

import pytest

from sam2lite_core.backends.files import PROMPT_FILE, STEP_FILE
from sam2lite_core.errors import BackendError, ModelFileError
from sam2lite_core.export.tensorrt_rtx import build_engine

trt = pytest.importorskip(
    "tensorrt_rtx_bindings",
    reason="needs TensorRT for RTX: pip install tensorrt_rtx_cu13_bindings tensorrt_rtx_cu13_libs",
)


@pytest.mark.slow
@pytest.mark.parametrize("name", [STEP_FILE, PROMPT_FILE])
def test_graph_builds_for_three_generations_of_gpus(exported, name) -> None:
    engine = build_engine(exported.folder / name, slots=256, capabilities=("SM86", "SM89", "SM120"))
    # The weights are inside, as fp32 or smaller.
    assert len(engine) > 2 * sum(p.numel() for p in exported.student.parameters())


def test_what_is_not_a_graph_is_refused_with_the_parser_s_reason(tmp_path) -> None:
    (tmp_path / STEP_FILE).write_bytes(b"not a model at all")
    with pytest.raises(ModelFileError, match=r"step\.onnx cannot be parsed by TensorRT for RTX"):
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
