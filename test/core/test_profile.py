"""Where a step's time goes, from ONNX Runtime's own profile."""

import pytest

from sam2lite_core.backends.base import BackendSettings
from sam2lite_core.backends.onnxruntime import OnnxRuntimeBackend
from sam2lite_core.bench import parts as profile
from sam2lite_core.errors import BackendError


def event(name: str, microseconds: float, category: str = "Node") -> dict:
    return {"cat": category, "name": name, "dur": microseconds}


def test_nodes_are_summed_up_by_part() -> None:
    events = [
        *(event("gate/Gemm_1_kernel_time", us) for us in (1000, 1000, 4000)),
        *(event("gate/Relu_2_kernel_time", us) for us in (500, 500, 500)),
        *(event("reorder_kernel_time", us) for us in (250, 250, 250, 250, 250, 250)),
        event("gate/Gemm_1_fence_before", 9000),
        event("model_run", 9000, "Session"),
    ]
    assert profile.parts_of(events, 3) == {"gate": 1.5, "layout": 0.5}


def test_the_table_is_the_same_in_every_process() -> None:
    names = ["value", "pixel", "key", "head", "gate", "layout", "memory", "readout"]
    times = {"graph_ms": 9.0, "gflop": 1.0, "gflop_per_s": 111.1, "product_gflop_per_s": None}
    of = {"variant": "tiny", "scale": 0.5, "parts_ms": dict.fromkeys(names, 0.5) | {"decoder": 5.0}, **times}
    rows = profile.markdown([of]).splitlines()[2:]
    # The dearest first; among equals the name decides, since a set's own order differs between processes.
    assert [row.split(" | ")[0].removeprefix("| ") for row in rows[:9]] == ["decoder", *sorted(names)]


@pytest.mark.slow
def test_every_part_of_the_student_is_timed(exported) -> None:
    found = profile.profile_parts(scale=0.5, threads=1, model=str(exported.folder), steps=3)
    parts = set(found["parts_ms"])
    assert {"encoder.trunk", "encoder.blocks", "decoder", "head", "gate", "memory"} <= parts
    # Nothing but reordering is without a name, so the parts are the graph.
    assert parts <= {
        "encoder", "encoder.trunk", "encoder.blocks", "key", "value", "pixel", "readout", "pixel_norm", "decoder",
        "similarity", "head", "presence", "gate", "memory", "layout",
    }  # fmt: skip
    assert found["gflop_per_s"] == pytest.approx(found["gflop"] * 1e3 / found["graph_ms"], rel=0.02)
    table = profile.markdown([found, found])
    assert table.count("| encoder.blocks |") == 1
    assert table.splitlines()[0].count("tiny, scale 0.5") == 2


def test_a_backend_without_a_profile_says_so(exported) -> None:
    backend = OnnxRuntimeBackend(BackendSettings(exported.folder, 64))
    with pytest.raises(BackendError, match="no profile"):
        backend.end_profiling()
