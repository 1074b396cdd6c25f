"""What `sam2lite info` says, against counts by hand."""

import dataclasses
import json
import shutil

import numpy as np
import pytest

from sam2lite_core import model_info
from sam2lite_core.backends.base import BackendSettings
from sam2lite_core.backends.model_files import PROMPT_FILE, STEP_FILE, WEIGHTS_FILE, sha256
from sam2lite_core.backends.registry import open_backend
from sam2lite_core.cli import app
from sam2lite_core.errors import ModelFileError
from sam2lite_core.variants import VARIANTS, Variant

SMALL_CASE = Variant("case", (4, 6, 10), 12, 2, 3, 2.0, 70, 0.0, max_objects=5, queries=20, object_queries=3)


TRUNK_CASE = dataclasses.replace(SMALL_CASE, stem=(16, 24, 40), depth=1, trunk="lite0")

# Tan and Le (2019), table 1, up to stage 6, of Lite0 without its last repeat: the input's stride, kernel, stride,
# expansion, inputs, outputs.
LITE0 = (
    (2, 3, 1, 1, 32, 16),
    (2, 3, 2, 6, 16, 24), (4, 3, 1, 6, 24, 24),
    (4, 5, 2, 6, 24, 40), (8, 5, 1, 6, 40, 40),
    (8, 3, 2, 6, 40, 80), (16, 3, 1, 6, 80, 80), (16, 3, 1, 6, 80, 80),
    (16, 5, 1, 6, 80, 112), (16, 5, 1, 6, 112, 112), (16, 5, 1, 6, 112, 112),
    (16, 5, 2, 6, 112, 192), (32, 5, 1, 6, 192, 192), (32, 5, 1, 6, 192, 192),
)  # fmt: skip

# Lite1 repeats once more whatever is repeated at all, 1.1 times as often and rounded up, and has all of stage 6.
LITE1 = (
    *LITE0[:3], (4, 3, 1, 6, 24, 24),
    *LITE0[3:5], (8, 5, 1, 6, 40, 40),
    *LITE0[5:8], (16, 3, 1, 6, 80, 80),
    *LITE0[8:11], (16, 5, 1, 6, 112, 112),
    *LITE0[11:], (32, 5, 1, 6, 192, 192), (32, 5, 1, 6, 192, 192),
)  # fmt: skip


def stem_by_hand(v: Variant, n: int) -> int:
    """Multiply-adds of the plain stem."""
    sides = (64 * n, 16 * n, 4 * n, n)  # pixels at strides 2, 4, 8, 16
    channels = (3, *v.stem, v.width)
    return sum(side * 9 * a * b for side, a, b in zip(sides, channels, channels[1:], strict=False))


def trunk_by_hand(v: Variant, n: int, pooled: int) -> int:
    """Multiply-adds of the trunk, and of what joins its strides 16 and 32."""
    pixels = {2: 64 * n, 4: 16 * n, 8: 4 * n, 16: n, 32: pooled}
    total = pixels[2] * 27 * 32
    for before, kernel, stride, expansion, inputs, outputs in {"lite0": LITE0, "lite1": LITE1}[v.trunk]:
        hidden, after = inputs * expansion, before * stride
        total += pixels[before] * inputs * hidden * (expansion > 1)
        total += pixels[after] * hidden * (kernel**2 + outputs)
    return total + n * 112 * v.width + pooled * 192 * v.width


def products_by_hand(v: Variant, h: int, w: int, r: int, c: int, slots: int, objects: int) -> int:
    """Multiply-adds of a frame of h x w patches that writes r x c tokens, from the paper's equations and design."""
    n, pooled, tokens = h * w, -(-h // 2) * -(-w // 2), r * c
    key, wide, queries = v.key_width, v.decoder_width, objects + v.queries - v.object_queries
    hidden = int(v.width * v.mlp_ratio)
    convolutions = trunk_by_hand(v, n, pooled) if v.trunk else stem_by_hand(v, n)
    block = n * v.width * 9 + 2 * n * v.width**2 + pooled * v.width * 2 * v.width
    block += 2 * n * pooled * v.width + 2 * n * v.width * hidden
    # Beside the key: the squared distance's three terms and the token's own; values are projected before they are read.
    read = n * slots * (key + 4 + wide + 2 * objects) + 2 * slots * v.max_objects * objects
    project = n * key * (v.width + v.width + 2) + n * wide * v.width + slots * wide * key
    layer = queries * wide * (3 + 1 + 1 + 1) * wide + 2 * queries**2 * wide + 2 * queries * pooled * wide
    layer += pooled * wide * 2 * wide + 2 * queries * wide * v.decoder_ffn
    decoder = objects * n * wide + objects * wide**2 + v.decoder_layers * layer
    response = queries * wide**2 + queries * wide * n
    head = n * wide * 64 + 4 * n * v.stem[2] * 32 + 16 * n * v.stem[1] * 16
    head += objects * wide * (64 + 64 + 32 + 16) + objects * n * (7 * 64 + 64 * 64 * 9 + 64 * 32)
    head += objects * 4 * n * (32 * 32 * 9 + 32 * 16) + objects * 16 * n * (9 * 16 + 16 * 16 * 9 + 16 * 9)
    presence = objects * ((wide + 4) * 64 + 64)
    # Once by key and place, once by shares, once by key alone; what is known of tokens is brought to patches.
    compared = tokens * slots * (key + 2 + v.max_objects + key) + key * (r * h * w + r * w * c)
    compared += 2 * (h * r * c + h * c * w)
    written = (2 * key + objects + 2) * (r * h * w + r * w * c) + (tokens + 1) * objects * v.max_objects
    gate = (slots + tokens) * ((2 * key + 3) * 128 + 128 * 64 + 64)
    return (
        convolutions
        + v.depth * block
        + read
        + project
        + decoder
        + response
        + head
        + presence
        + compared
        + written
        + gate
    )


@pytest.mark.parametrize(
    ("variant", "case"),
    [
        (SMALL_CASE, (2, 3, 2, 2, 9, 1)),
        (SMALL_CASE, (5, 4, 3, 2, 70, 4)),
        (TRUNK_CASE, (5, 4, 3, 2, 70, 4)),
        (VARIANTS["tiny"], (15, 27, 15, 27, 256, 1)),
        (VARIANTS["tiny"], (30, 54, 15, 27, 256, 8)),
        (VARIANTS["small"], (15, 27, 15, 27, 384, 1)),
    ],
    ids=["few", "more objects", "trunk", "tiny at half", "tiny at full with eight", "small at half"],
)
def test_operations_of_a_frame_are_twice_the_products_by_hand(variant, case) -> None:
    torch = pytest.importorskip("torch", reason="needs torch: pip install 'sam2lite[export]'")
    from sam2lite_core.model.cost import flops_per_frame
    from sam2lite_core.model.student import Student

    h, w, r, c, slots, objects = case
    with torch.device("meta"):
        student = Student(variant)
    counted = flops_per_frame(student, (16 * h, 16 * w), (r, c), slots, objects)
    assert counted == 2 * products_by_hand(variant, h, w, r, c, slots, objects)


def test_exported_model_says_what_it_costs(exported) -> None:
    document = model_info.describe_model("tiny", exported.folder)
    rows_columns = {"0.5": (15, 27), "0.6": (18, 33), "0.7": (21, 38), "0.8": (24, 43), "0.9": (27, 49), "1": (30, 54)}
    expected = {
        rung: 2 * products_by_hand(VARIANTS["tiny"], *size, 15, 27, 256, 1) for rung, size in rows_columns.items()
    }
    assert document["flops_per_frame"] == expected
    parameters = dict(document["parameters"])
    assert parameters.pop("total") == sum(parameters.values()) == sum(p.numel() for p in exported.student.parameters())
    assert {"encoder", "decoder", "gate", "head"} <= set(parameters)
    assert document["memory_budget"] == 256
    assert document["weights"]["state"] == "given"
    assert document["weights"]["sha256"] == sha256(exported.folder / WEIGHTS_FILE)
    assert {name: entry["bytes"] for name, entry in document["files"].items()} == {
        path.name: path.stat().st_size for path in exported.folder.iterdir()
    }


@pytest.mark.parametrize("name", VARIANTS)
def test_memory_is_what_the_arrays_take(name) -> None:
    variant = VARIANTS[name]
    memory = model_info.memory_bytes(variant)
    bank = {key: value for key, value in memory.items() if key.startswith("bank_")}
    assert memory["bank"] == sum(bank.values()) == variant.memory_budget * (256 + 256 + 16 + 16 + 10) * 4
    assert memory["previous_masks"] == np.zeros((16, 120, 216), np.float32).nbytes
    assert memory["previous_grey"] == np.zeros((120, 214), np.uint8).nbytes
    assert memory["total"] == memory["bank"] + memory["previous_masks"] + memory["previous_grey"]


def test_memory_of_the_bank_is_that_of_a_backend(exported) -> None:
    backend = open_backend("onnxruntime", BackendSettings(exported.folder, VARIANTS["tiny"].memory_budget))
    arrays = dataclasses.asdict(backend.bank())
    memory = model_info.memory_bytes(VARIANTS["tiny"])
    assert {f"bank_{name}": array.nbytes for name, array in arrays.items()} == {
        name: size for name, size in memory.items() if name.startswith("bank_")
    }


@pytest.mark.parametrize("name", ["tiny", "small"])
def test_what_ships_says_what_its_definition_does(name) -> None:
    from sam2lite_core.model.cost import count_variant

    parameters, flops = count_variant(VARIANTS[name])
    document = model_info.describe_model(name)
    assert (document["parameters"], document["flops_per_frame"]) == (parameters, flops)


def test_a_variant_without_weights_is_described_by_its_definition(monkeypatch, tmp_path) -> None:
    pytest.importorskip("torch", reason="needs torch: pip install 'sam2lite[export]'")
    from sam2lite_core.backends import model_files

    monkeypatch.setattr(model_files, "SHIPPED", tmp_path)
    document = model_info.describe_model("small")
    assert document["weights"]["state"] == "none"
    assert "no weights ship for small" in document["weights"]["reason"]
    assert document["files"] == {}
    assert document["memory_budget"] == 384
    assert document["parameters"]["total"] / 1e6 == pytest.approx(12.8, rel=0.03)
    assert document["flops_per_frame"]["1"] == 2 * products_by_hand(VARIANTS["small"], 30, 54, 15, 27, 384, 1)


def test_a_robot_without_torch_and_weights_says_what_it_cannot_know(monkeypatch, tmp_path, capsys) -> None:
    from sam2lite_core.backends import model_files

    monkeypatch.setattr(model_files, "SHIPPED", tmp_path)
    monkeypatch.setattr(model_info.importlib.util, "find_spec", lambda name: None)
    app.app(["info", "--variant", "base", "--json", str(tmp_path / "info.json")], standalone_mode=False)
    document = json.loads((tmp_path / "info.json").read_text())
    assert document["parameters"] is None and document["flops_per_frame"] is None
    assert document["memory_budget"] == 512 and document["memory_bytes"]["bank"] == 512 * 554 * 4
    printed = capsys.readouterr().out
    assert "no weights ship for base" in " ".join(printed.replace("│", " ").split())
    assert printed.count("unknown: ") == 2


def test_folders_that_hold_something_else_are_refused(exported, tmp_path) -> None:
    with pytest.raises(ModelFileError, match="holds variant tiny, not base"):
        model_info.describe_model("base", exported.folder)
    folder = shutil.copytree(exported.folder, tmp_path / "model")
    for name in (STEP_FILE, PROMPT_FILE, WEIGHTS_FILE):
        (folder / name).rename(tmp_path / name)
        with pytest.raises(ModelFileError, match=f"lacks {name}"):
            model_info.describe_model("tiny", folder)
        (tmp_path / name).rename(folder / name)
