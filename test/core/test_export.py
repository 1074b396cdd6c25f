"""What the exporter writes, and what it leaves alone."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

onnx = pytest.importorskip("onnx", reason="needs onnx: pip install 'sam2lite[export]'")
torch = pytest.importorskip("torch", reason="needs torch: pip install 'sam2lite[export]'")

from sam2lite_core.backends.model_files import (
    PROMPT_FILE,
    STEP_FILE,
    WEIGHTS_FILE,
    parse_info,
    read_weights_info,
    sha256,
)
from sam2lite_core.backends.torch import load_shipped
from sam2lite_core.errors import ConfigurationError, InvalidPromptError, ModelFileError, Sam2LiteError
from sam2lite_core.export import onnx as export
from sam2lite_core.export import package
from sam2lite_core.export.checkpoint import load_checkpoint
from sam2lite_core.model import graphs
from sam2lite_core.model.deploy import fold_batch_norms, round_to_half
from sam2lite_core.scenes.clip import render_clip
from sam2lite_core.tracker import Tracker
from sam2lite_core.types import Prompt


def narrowed(student, objects: int):
    """The student as it is exported for that many objects."""
    ready = fold_batch_norms(student)
    ready.variant = replace(ready.variant, max_objects=objects)
    return ready


def load(folder: Path, name: str):
    return onnx.load(folder / name, load_external_data=False)


def external(model) -> dict[str, tuple[int, int]]:
    """Offset and length of every initializer that lies outside the file."""
    places = {}
    for tensor in model.graph.initializer:
        if tensor.data_location == onnx.TensorProto.EXTERNAL:
            entries = {entry.key: entry.value for entry in tensor.external_data}
            assert entries["location"] == WEIGHTS_FILE
            places[tensor.name] = int(entries["offset"]), int(entries["length"])
    return places


def test_a_folder_of_the_tiny_model_is_small_and_holds_every_weight_once(exported) -> None:
    sizes = {path.name: path.stat().st_size for path in exported.folder.iterdir()}
    assert set(sizes) == {STEP_FILE, PROMPT_FILE, WEIGHTS_FILE}
    assert sum(sizes.values()) < 25e6
    parameters = sum(p.numel() for p in exported.student.parameters())
    assert sizes[WEIGHTS_FILE] < 2 * parameters * 1.05
    # Nothing heavy is left in the graphs, and they point into the same tensors.
    step, prompt = (external(load(exported.folder, name)) for name in (STEP_FILE, PROMPT_FILE))
    assert sizes[STEP_FILE] < 0.5e6 and sizes[PROMPT_FILE] < 0.5e6
    assert set(step.values()) <= set(prompt.values())
    assert sum(length for _, length in set(prompt.values())) > 0.97 * 2 * parameters


def test_the_weights_are_the_student_s(exported) -> None:
    shipped, _ = load_shipped(exported.folder / WEIGHTS_FILE)
    expected = round_to_half(fold_batch_norms(exported.student)).state_dict()
    found = shipped.state_dict()
    assert set(found) == set(expected)
    for name, tensor in expected.items():
        assert torch.equal(found[name], tensor), name


def test_every_file_tells_the_same_of_itself(exported) -> None:
    weights = read_weights_info(exported.folder / WEIGHTS_FILE)
    assert weights.weights_sha256 == sha256(exported.folder / WEIGHTS_FILE)
    for name in (STEP_FILE, PROMPT_FILE):
        (entry,) = load(exported.folder, name).metadata_props
        assert parse_info(entry.value, exported.folder / name) == weights
    assert (weights.variant, weights.max_objects, weights.memory_budget) == ("tiny", 16, 256)
    assert weights.parameters["total"] == sum(p.numel() for p in exported.student.parameters())
    assert list(weights.flops_per_frame) == ["0.5", "0.6", "0.7", "0.8", "0.9", "1"]
    assert weights.note == "random weights"


def test_graphs_keep_to_what_every_runtime_has(exported) -> None:
    for name in (STEP_FILE, PROMPT_FILE):
        model = load(exported.folder, name)
        assert [(entry.domain, entry.version) for entry in model.opset_import] == [("", export.OPSET)]
        operators = {node.op_type for node in model.graph.node}
        # TensorRT has neither NonZero nor what needs it, and uint8 only as the input of a Cast.
        assert operators & {"NonZero", "Compress", "Unique", "Loop", "If", "Attention"} == set()
        assert {node.op_type for node in model.graph.node if "image" in node.input} == {"Cast"}
        assert not model.doc_string and not any(node.doc_string or node.metadata_props for node in model.graph.node)


@pytest.fixture
def traced(monkeypatch):
    """Stands in for the minute that tracing takes: a graph of one product with one of the student's matrices."""

    def trace(graph, prompt: bool):
        weight = graph.student.key.weight.detach().numpy().T
        tensor = onnx.numpy_helper.from_array(np.ascontiguousarray(weight), "turned")
        big = onnx.numpy_helper.from_array(np.ones((30, 30), np.float32), "constant")
        node = onnx.helper.make_node("MatMul", ["x", "turned"], ["y"])
        value = onnx.helper.make_tensor_value_info
        inputs = [value("x", onnx.TensorProto.FLOAT, [1, weight.shape[0]])]
        outputs = [value("y", onnx.TensorProto.FLOAT, [1, weight.shape[1]])]
        return onnx.helper.make_model(onnx.helper.make_graph([node], "g", inputs, outputs, [tensor, big]))

    monkeypatch.setattr(export, "trace", trace)
    monkeypatch.setattr(package, "count_variant", lambda variant: ({}, {}))


def listing(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_matrix_is_stored_once_in_the_order_that_the_graph_wants(traced, exported, tmp_path) -> None:
    export.export_student(exported.student, tmp_path / "m")
    model = load(tmp_path / "m", STEP_FILE)
    assert set(external(model)) == {"turned_fp16"}  # a constant that is not the student's stays in the graph
    offset, length = external(model)["turned_fp16"]
    data = (tmp_path / "m" / WEIGHTS_FILE).read_bytes()[offset : offset + length]
    parameter = exported.student.key.weight.detach()
    weight = parameter.numpy()
    assert np.array_equal(np.frombuffer(data, np.float16).reshape(weight.T.shape), weight.T.astype(np.float16))
    shipped, _ = load_shipped(tmp_path / "m" / WEIGHTS_FILE)
    assert torch.equal(shipped.key.weight, parameter.half().float())


def test_an_export_replaces_an_earlier_one_and_keeps_the_card(traced, exported, tmp_path) -> None:
    folder = tmp_path / "m"
    export.export_student(exported.student, folder, "first")
    (folder / "MODEL_CARD.md").write_text("card")
    export.export_student(exported.student, folder, "second")
    assert read_weights_info(folder / WEIGHTS_FILE).note == "second"
    assert (folder / "MODEL_CARD.md").read_text() == "card"
    assert [path.name for path in tmp_path.iterdir()] == ["m"]


def test_foreign_files_are_named_and_kept(exported, tmp_path) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    before = listing(tmp_path)
    with pytest.raises(ModelFileError, match=r"holds thesis\.tex; export into a folder of its own"):
        export.export_student(exported.student, tmp_path)
    assert listing(tmp_path) == before


@pytest.mark.parametrize("broken", ["trace", "move_weights"])
def test_a_failed_export_leaves_everything_as_it_was(traced, exported, tmp_path, monkeypatch, broken) -> None:
    export.export_student(exported.student, tmp_path / "old", "first")
    before = listing(tmp_path)

    def fail(*_, **__):
        raise RuntimeError("out of luck")

    monkeypatch.setattr(export, broken, fail)
    for folder in (tmp_path / "old", tmp_path / "new"):
        with pytest.raises(RuntimeError, match="out of luck"):
            export.export_student(exported.student, folder, "second")
    assert listing(tmp_path) == before
    assert [path.name for path in tmp_path.iterdir()] == ["old"]


def test_a_full_disk_leaves_the_earlier_export(traced, exported, tmp_path, monkeypatch) -> None:
    export.export_student(exported.student, tmp_path / "old", "first")
    before = listing(tmp_path)
    write = Path.write_bytes

    def full(path: Path, content: bytes) -> int:
        if path.name == PROMPT_FILE:
            raise OSError(28, "No space left on device")
        return write(path, content)

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OSError, match="No space left"):
        export.export_student(exported.student, tmp_path / "old", "second")
    assert listing(tmp_path) == before
    assert [path.name for path in tmp_path.iterdir()] == ["old"]


# --- files.parse_info


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "is not a SAM2-Lite model"),
        ("{", "unreadable"),
        ("[]", "unreadable"),
        ('{"variant": "tiny"}', "unreadable"),
        ('{"format": 1, "variant": "tiny"}', "has format 1, this version reads 3; export the model again"),
        ('{"format": 3, "variant": "tiny"}', "unreadable"),
        ('{"format": 3, "variant": "tiny", "colour": "red"}', "unreadable"),
    ],
)
def test_metadata_that_cannot_be_used_is_refused(text, message) -> None:
    with pytest.raises(ModelFileError, match=message):
        parse_info(text, Path("some.onnx"))


def header(document: object, data: bytes = b"") -> bytes:
    text = json.dumps(document).encode()
    return len(text).to_bytes(8, "little") + text + data


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is not a safetensors file"),
        (b"\xff" * 64, "is not a safetensors file"),
        (header([1, 2]), "is not a safetensors file"),
        (header({"a": {"data_offsets": [0]}}), "is not a safetensors file"),
        (header({"a": {"data_offsets": [0, 8]}}, bytes(7)), "should have"),
        (header({"a": {"data_offsets": [0, 8]}}, bytes(9)), "should have"),
        (header({"a": {"data_offsets": [0, 8]}}, bytes(8)), "is not a SAM2-Lite model"),
    ],
)
def test_weights_files_that_cannot_be_used_are_refused(tmp_path, content, message) -> None:
    (tmp_path / WEIGHTS_FILE).write_bytes(content)
    with pytest.raises(ModelFileError, match=message):
        read_weights_info(tmp_path / WEIGHTS_FILE)


def test_a_model_for_another_number_of_objects_has_the_same_weights(exported, tmp_path, monkeypatch) -> None:
    """On the torch backend: a trace takes half a minute, so the graphs of sixteen objects stand in for those of two."""
    traced = {name: load(exported.folder, name) for name in (STEP_FILE, PROMPT_FILE)}
    monkeypatch.setattr(export, "trace", lambda graph, prompt: traced[PROMPT_FILE if prompt else STEP_FILE])
    monkeypatch.setattr(export, "add_casts", lambda model: None)
    example, bank = graphs.example_inputs(narrowed(exported.student, 2), objects=3, capacity=8)
    assert bank.identity.shape == (1, 8, 2) and example.slots.shape == (1, 3, 2)
    export.export_student(exported.student, tmp_path / "two", max_objects=2)
    first, second = (read_weights_info(f / WEIGHTS_FILE) for f in (exported.folder, tmp_path / "two"))
    assert (first.max_objects, second.max_objects) == (16, 2)
    clip = render_clip(2, height=64, width=96, frames=3, objects=2)
    prompts = [Prompt(object_id=k, mask=clip.label_maps[0] == k) for k in (1, 2)]
    trackers = [
        Tracker(backend="torch", scale=0.5, threads=1, model_path=f) for f in (exported.folder, tmp_path / "two")
    ]
    for frame in range(3):
        shown = prompts if frame == 0 else []
        maps = [tracker.step(clip.frames[frame], shown).label_map for tracker in trackers]
        assert np.array_equal(*maps)
    with pytest.raises(InvalidPromptError, match="follows 2 at once"):
        trackers[1].step(clip.frames[0], [Prompt(object_id=3, mask=clip.label_maps[0] == 1)])


@pytest.mark.parametrize("count", [0, 256])
def test_a_number_of_objects_that_no_graph_holds_is_refused(exported, tmp_path, count) -> None:
    with pytest.raises(ConfigurationError, match=f"{count}.*1 to 255"):
        export.export_student(exported.student, tmp_path / "none", max_objects=count)
    assert not (tmp_path / "none").exists()


def test_a_checkpoint_gives_its_averaged_weights(exported, tmp_path) -> None:
    state = exported.student.state_dict()
    torch.save({"variant": "tiny", "average": state, "step": 7}, tmp_path / "last.pt")
    loaded = load_checkpoint(tmp_path / "last.pt")
    assert all(torch.equal(loaded.state_dict()[name], tensor) for name, tensor in state.items())
    assert not loaded.training


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "last.pt.*does not exist"),
        (b"not a checkpoint", "last.pt.*cannot be read"),
        ({"variant": "tiny"}, "last.pt.*'average'"),
        ({"variant": "huge", "average": {}}, "huge"),
        ({"variant": "tiny", "average": {}}, "last.pt.*does not fit"),
    ],
)
def test_checkpoints_that_cannot_be_used_are_refused(tmp_path, content, message) -> None:
    path = tmp_path / "last.pt"
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content is not None:
        torch.save(content, path)
    with pytest.raises(Sam2LiteError, match=message):
        load_checkpoint(path)
