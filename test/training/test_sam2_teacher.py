"""SAM 2 and EdgeTAM as teachers, on randomly initialised models of small configuration."""

import json

import pytest
import torch

from training.config.objective import LossWeights, UnrollConfig
from training.objective.unroll import Unroller
from training.teachers import open_teacher, readout_projection
from training.teachers.attention_bins import CELLS, grid_cells
from training.teachers.base import TeacherError

transformers = pytest.importorskip("transformers", reason="the extra [train] is not installed")

from sam2lite_core.backends.transformers.session import new_session
from training.teachers import sam2_session
from training.teachers.sam2 import Sam2Teacher
from training.teachers.sam2_session import NOWHERE, Stream, Tap, key_cells

SIDE, GRID, WIDTH = 128, 8, 128
NAMES = ["sam2", "edgetam"]


def start(model):
    return Stream(model, lambda: new_session(model, SIDE, SIDE, torch.device("cpu")), Tap(model))


def square(x):
    mask = torch.zeros(SIDE, SIDE)
    mask[32:96, x : x + 48] = 1.0
    return mask


def frames(count, seed=0):
    generator = torch.Generator().manual_seed(seed)
    for _ in range(count):
        yield torch.randn(3, SIDE, SIDE, generator=generator)


def clip(batch=1, length=4, late=0):
    """Noise with two squares; the second is in sight from frame `late` on."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.zeros(batch, length, 96, 128, dtype=torch.uint8)
    labels[:, :, 8:48, 8:48] = 1
    labels[:, late:, 50:90, 60:120] = 2
    return {
        "images": torch.randint(0, 256, (batch, length, 96, 128, 3), generator=generator).to(torch.uint8),
        "labels": labels,
        "count": torch.full((batch,), 2),
        "flow": torch.zeros(batch, length, 24, 32, 2),
        "motion": torch.zeros(batch, length, 6, 8),
        "places": torch.full((batch, length, 6, 8, 3), -1.0),
    }


class Record:
    """What the last memory attention layer and the memory encoder really did, by hooks of the test's own."""

    def __init__(self, model):
        self.calls, self.memories, self.written = [], [], []
        layers = model.memory_attention.layers
        layers[-1].cross_attn_image.register_forward_hook(self.on_layer, with_kwargs=True)
        layers[-2].cross_attn_image.register_forward_hook(self.on_layer, with_kwargs=True)
        model.memory_attention.register_forward_pre_hook(self.on_memory, with_kwargs=True)
        encoder = model.spatial_perceiver if hasattr(model, "spatial_perceiver") else model.memory_encoder
        encoder.register_forward_hook(lambda module, args, output: self.written.append(output[0]))

    def on_layer(self, module, args, kwargs, output):
        heads = module.num_attention_heads
        value = module.v_proj(kwargs["value"]).view(1, -1, heads, module.head_dim).transpose(1, 2)
        self.calls.append((output[1][0], value[0]))

    def on_memory(self, module, args, kwargs):
        self.memories.append(kwargs["memory"][:, 0])


@pytest.mark.parametrize("name", NAMES)
def test_attention_sums_to_one_and_readout_is_attention_times_values(miniature, name):
    model = miniature(name)
    record, stream = Record(model), start(model)
    for t, pixels in enumerate(frames(4)):
        record.calls.clear()
        readings, _ = stream.step(t, pixels, {0: square(20), 1: square(70)} if t == 0 else {})
        assert set(readings) == (set() if t == 0 else {0, 1})
        for number, reading in readings.items():
            (before, _), (weight, value) = record.calls[2 * number : 2 * number + 2]
            assert torch.allclose(reading.attention.sum(-1), torch.ones(GRID * GRID), atol=1e-5)
            assert torch.allclose(reading.attention, (before.mean(0) + weight.mean(0)) / 2, atol=1e-6)
            expected = (weight @ value).transpose(0, 1).flatten(1)
            assert torch.allclose(reading.readout, expected, atol=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_every_key_comes_from_the_frame_and_the_cell_that_it_is_said_to(miniature, name):
    """Each key is compared with what the memory encoder wrote for that frame; object 1 joins on frame 2."""
    model = miniature(name)
    record, stream = Record(model), start(model)
    written = {0: {}, 1: {}}
    for t, pixels in enumerate(frames(12)):
        record.memories.clear()
        record.written.clear()
        new = {0: {0: square(20)}, 2: {1: square(70)}}.get(t, {})
        readings, _ = stream.step(t, pixels, new)
        for (number, reading), memory in zip(readings.items(), record.memories, strict=True):
            first = 0 if number == 0 else 2
            expected = [first, *(s for s in range(t - 6, t) if s > first)]
            each = len(key_cells(model))
            assert reading.source[: each * len(expected)].tolist() == [s for s in expected for _ in range(each)]
            assert (reading.source[each * len(expected) :] == NOWHERE).all()
            for j in range(each * len(expected)):
                source = int(reading.source[j])
                assert torch.equal(memory[j].bfloat16(), written[number][source][j % each].bfloat16())
        for k, features in zip(stream.sessions, record.written, strict=True):
            written[k][t] = features[0].flatten(1).T if name == "sam2" else features[0]
    if name == "sam2":
        assert key_cells(model).tolist() == grid_cells(GRID, GRID).tolist()
    else:
        assert key_cells(model).tolist() == [NOWHERE] * 6 + grid_cells(4, 4).tolist()


def held_by(sessions):
    """Bytes of all tensors that sessions hold."""
    total, seen, open_ = 0, set(), [sessions]
    while open_:
        item = open_.pop()
        if id(item) in seen:
            continue
        seen.add(id(item))
        if isinstance(item, torch.Tensor):
            total += item.numel() * item.element_size()
        elif isinstance(item, dict):
            open_.extend(item.values())
        elif isinstance(item, list | tuple):
            open_.extend(item)
        elif hasattr(item, "__dict__"):
            open_.append(vars(item))
    return total


@pytest.mark.parametrize("name", NAMES)
def test_memory_stays_bounded_over_200_frames(miniature, name):
    stream = start(miniature(name))
    sizes, counts = [], []
    for t, pixels in enumerate(frames(200)):
        stream.step(t, pixels, {0: square(20)} if t == 0 else {})
        sizes.append(held_by(stream.sessions))
        counts.append(len(stream.sessions[0].output_dict_per_obj[0]["non_cond_frame_outputs"]))
    assert len(set(sizes[20:])) == 1 and len(set(counts[20:])) == 1
    assert sizes[5] < sizes[20]


@pytest.mark.parametrize("name", NAMES)
def test_forgetting_changes_nothing_that_is_read(miniature, name, monkeypatch):
    def run(keep):
        stream = start(miniature(name, max_object_pointers_in_encoder=9))
        if keep:
            monkeypatch.setattr(sam2_session, "forget", lambda *_: None)
        out = []
        for t, pixels in enumerate(frames(14)):
            readings, logits = stream.step(t, pixels, {0: square(20)} if t == 0 else {})
            out.append((readings, logits))
        return out

    for (ours, ours_logits), (theirs, their_logits) in zip(run(False), run(True), strict=True):
        assert torch.equal(ours_logits[0], their_logits[0])
        for number in ours:
            assert all(torch.equal(a, b) for a, b in zip(ours[number], theirs[number], strict=True))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("late", [0, 2])
def test_targets_of_a_clip(miniature, name, late):
    teacher = Sam2Teacher(name, miniature(name))
    targets = teacher.targets(clip(batch=2, late=late))
    assert targets.attention.shape == (2, 4, 48, 4, CELLS)
    total = targets.attention.flatten(3).sum(-1)
    assert torch.allclose(total[:, 1:], torch.ones(()), atol=1e-4) and not total[:, 0].any()
    assert targets.known[:, 1:].all() and not targets.known[:, 0].any()
    assert not targets.attention[~targets.held.unsqueeze(2).expand_as(targets.attention)].any()
    cells = CELLS if name == "sam2" else 16
    assert targets.held[0].sum(-1).tolist() == [[cells * (s < t) for s in range(4)] for t in range(4)]
    assert (targets.lost[:, 1:] > 0).all() and (targets.lost < 0.9).all()
    assert targets.readout.shape == (2, 4, 48, WIDTH) and targets.masks.shape == (2, 4, 2, 24, 32)
    # A mask that was shown is the teacher's own answer on that frame.
    assert targets.masks[0, late, 1, 13:22, 16:29].min() > 0.9
    assert targets.masks[0, late, 1, :11].max() < 0.1
    if late:
        assert not targets.masks[0, 1, 1].any()
    assert not torch.equal(targets.attention[0], targets.attention[1])  # clips do not mix


def test_queries_are_those_nearest_to_the_students(miniature):
    """On a clip of 8 x 8 patches each query is the teacher's own; the tap alone gives the same rows."""
    model = miniature("sam2")
    teacher = Sam2Teacher("sam2", model)
    square_clip = clip(length=2)
    square_clip["motion"] = torch.zeros(1, 2, GRID, GRID)
    full = teacher.targets(square_clip)
    square_clip["motion"] = torch.zeros(1, 2, 4, GRID)
    fewer = teacher.targets(square_clip)
    rows = torch.tensor([1, 3, 5, 7]).repeat_interleave(GRID) * GRID + torch.arange(GRID).repeat(4)
    assert torch.allclose(fewer.attention, full.attention[:, :, rows])
    assert torch.allclose(fewer.readout, full.readout[:, :, rows])


@pytest.mark.parametrize("name", NAMES)
def test_a_student_learns_from_a_folder(miniature, name, tmp_path):
    from sam2lite_core.model.student import Student
    from sam2lite_core.variants import get_variant

    miniature(name).save_pretrained(tmp_path / "teacher")
    teacher = open_teacher(name, tmp_path / "teacher", "cpu")
    assert teacher.name == name and teacher.readout_width == WIDTH
    student = Student(get_variant("tiny"))
    projection = readout_projection(student, teacher)
    config = UnrollConfig(weights=LossWeights(output=1.0))
    unroller = Unroller(student, config, torch.Generator().manual_seed(0), teacher, projection)
    loss, parts = unroller(clip(length=3), 0.5)
    loss.backward()
    assert parts["attention"] > 0 and parts["readout"] > 0 and parts["output"] > 0
    assert projection.weight.grad.abs().sum() > 0 and student.key.weight.grad.abs().sum() > 0


def test_another_attention_than_eager_is_refused(miniature):
    stream = start(miniature("sam2", attention="sdpa"))
    pixels = list(frames(2))
    stream.step(0, pixels[0], {0: square(20)})
    with pytest.raises(TeacherError, match="eager"):
        stream.step(1, pixels[1], {})


@pytest.mark.parametrize(
    ("break_it", "message"),
    [
        (lambda folder: (folder / "config.json").unlink(), "no config.json"),
        (lambda folder: (folder / "config.json").write_text("{"), "not a model's configuration"),
        (lambda folder: (folder / "config.json").write_text(json.dumps({"model_type": "sam"})), "'sam'"),
        (lambda folder: (folder / "model.safetensors").unlink(), "cannot be loaded"),
        (lambda folder: (folder / "model.safetensors").write_bytes(b"\x08"), "cannot be loaded"),
    ],
)
def test_folders_that_are_no_teacher(miniature, tmp_path, break_it, message):
    miniature("sam2").save_pretrained(tmp_path)
    break_it(tmp_path)
    with pytest.raises(TeacherError, match=message):
        open_teacher("sam2", tmp_path, "cpu")


def test_a_folder_that_lacks_weights_is_refused(miniature, tmp_path):
    from safetensors.torch import load_file, save_file

    miniature("sam2").save_pretrained(tmp_path)
    state = load_file(tmp_path / "model.safetensors")
    kept = {name: value for name, value in state.items() if not name.startswith("memory_attention.layers.2.")}
    save_file(kept, tmp_path / "model.safetensors", {"format": "pt"})
    with pytest.raises(TeacherError, match="lacks 2"):
        open_teacher("sam2", tmp_path, "cpu")
