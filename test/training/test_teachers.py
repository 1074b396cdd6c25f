"""Teachers: what they say of a clip, and what the student is told by it."""

from pathlib import Path

import pytest
import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from sam2lite_core.errors import ConfigurationError, ModelFileError
from sam2lite_core.model.student import Student
from sam2lite_core.variants import get_variant
from training.config.objective import LossWeights, UnrollConfig
from training.objective.unroll import Unroller
from training.teachers import open_teacher, readout_projection
from training.teachers.base import TeacherError, TeacherTargets
from training.teachers.oracle import OracleTeacher
from training.teachers.student import StudentTeacher

SHIPPED = Path(__file__).parents[2] / "sam2lite_core" / "weights" / "tiny"
ROWS, COLUMNS, FRAMES = 8, 8, 3


def clip(batch=2, objects=2, places="moving", seed=0):
    """Noise with square objects, and a background that moves by a patch a frame to the right."""
    generator = torch.Generator().manual_seed(seed)
    height, width = ROWS * 16, COLUMNS * 16
    labels = torch.zeros(batch, FRAMES, height, width, dtype=torch.uint8)
    labels[:, :, 16:64, 16:64] = 1
    if objects > 1:
        labels[:, :, 64:112, 48:112] = 2
    x = torch.arange(COLUMNS).float() * 16 + 8
    y = torch.arange(ROWS).float() * 16 + 8
    grid = torch.stack([torch.zeros(ROWS, COLUMNS), x.expand(ROWS, -1), y.unsqueeze(1).expand(-1, COLUMNS)], -1)
    shown = torch.stack([grid - torch.tensor([0.0, 16.0 * t, 0.0]) for t in range(FRAMES)])
    if places == "unknown":
        shown = shown * 0.0 - 1.0
    return {
        "images": torch.randint(0, 256, (batch, FRAMES, height, width, 3), generator=generator).to(torch.uint8),
        "labels": labels,
        "count": torch.full((batch,), objects),
        "flow": torch.zeros(batch, FRAMES, height // 4, width // 4, 2),
        "motion": torch.zeros(batch, FRAMES, ROWS, COLUMNS),
        "places": shown.expand(batch, -1, -1, -1, -1).clone(),
    }


def student(seed=0):
    torch.manual_seed(seed)
    return Student(get_variant("tiny"))


def assert_consistent(targets):
    """What `TeacherTargets` promises of every teacher."""
    total = targets.attention.flatten(3).sum(-1)
    assert torch.allclose(total[targets.known], torch.ones(()), atol=1e-4)
    assert not targets.attention[~targets.known].any()
    assert not targets.attention[~targets.held.unsqueeze(2).expand_as(targets.attention)].any()
    assert not targets.known[:, 0].any() and not targets.held[:, 0].any()
    for t in range(targets.attention.shape[1]):
        assert not targets.held[:, t, t:].any()  # nobody looks into the future
    assert ((targets.lost >= 0) & (targets.lost <= 1 + 1e-5)).all()


def test_the_oracle_looks_at_the_same_place():
    """The picture moves by one patch a frame: one cell to the left a frame earlier, two cells two frames earlier."""
    targets = OracleTeacher().targets(clip())
    assert_consistent(targets)
    assert targets.known[:, 1:].flatten(0, 1).unflatten(1, (ROWS, COLUMNS))[:, :, 2:].all()
    query = 3 * COLUMNS + 5
    # Patches next to the true one are 16 px away, out of reach: all the weight lies on one cell of each frame.
    assert float(targets.attention[0, 1, query, 0, 3 * 8 + 4]) == pytest.approx(1.0)
    assert float(targets.attention[0, 2, query, 0, 3 * 8 + 3]) == pytest.approx(0.5)
    assert float(targets.attention[0, 2, query, 1, 3 * 8 + 4]) == pytest.approx(0.5)
    # What has just come into sight was never seen; a frame later it has been seen once.
    assert not targets.known[:, 1].unflatten(1, (ROWS, COLUMNS))[:, :, 0].any()
    assert float(targets.attention[0, 2, 8 + 1, 1, 8]) == pytest.approx(1.0)


@pytest.mark.parametrize("change", ["another layer", "unknown"])
def test_the_oracle_says_nothing_without_correspondence(change):
    batch = clip(places="unknown" if change == "unknown" else "moving")
    if change == "another layer":
        batch["places"][..., 0] = torch.arange(FRAMES).view(1, -1, 1, 1)
    targets = OracleTeacher().targets(batch)
    assert_consistent(targets)
    assert not targets.known.any()


def test_the_student_teacher_sums_its_own_attention():
    teacher = StudentTeacher(student())
    targets = teacher.targets(clip())
    assert_consistent(targets)
    assert targets.known[:, 1:].all() and not targets.lost.any()
    assert targets.readout.shape == (2, FRAMES, ROWS * COLUMNS, teacher.readout_width)
    assert targets.masks.shape == (2, FRAMES, 2, ROWS * 4, COLUMNS * 4)
    # Tokens of 2x2 patches on an 8x8 grid sit at cell corners: 16 cells a frame hold one each.
    assert targets.held[:, 2].sum(-1).tolist() == [[16, 16, 0]] * 2


def test_a_student_that_is_its_own_teacher_has_nothing_to_learn():
    model, itself = student().eval(), student()
    # A teacher forgets nothing and so has no anchors, whose bonus would tell the two apart.
    for each in (model, itself):
        torch.nn.init.zeros_(each.anchor_bonus)
    weights = LossWeights(output=1.0)
    config = UnrollConfig(
        selection="unbounded", own_masks=0.0, joins_late=0.0, drop_warp=(0.0, 0.0), corrupt_warp=0.0,
        shown_again=0.0, weights=weights,
    )  # fmt: skip
    unroller = Unroller(model, config, torch.Generator().manual_seed(0), StudentTeacher(itself), nn.Identity())
    _, parts = unroller(clip(), 0.5)
    assert parts["attention"] == pytest.approx(0.0, abs=1e-4)
    assert parts["attention_lost"] == pytest.approx(0.0, abs=1e-4)
    assert parts["readout"] == pytest.approx(0.0, abs=1e-4)


@pytest.mark.parametrize("kind", ["oracle", "student"])
def test_distillation_teaches_the_student_to_look_where_its_teacher_looks(kind):
    teacher = OracleTeacher() if kind == "oracle" else StudentTeacher(student(seed=5))
    model = student()
    projection = readout_projection(model, teacher)
    assert (projection is None) == (kind == "oracle")
    only = LossWeights(mask=0, iou=0, edge=0, correspondence=0, share=0, presence=0, budget=0, output=0)
    config = UnrollConfig(selection="unbounded", weights=only)
    parameters = [*model.parameters(), *(projection.parameters() if projection else ())]
    optimizer = torch.optim.Adam(parameters, lr=1e-3)
    seen = []
    for _ in range(6):
        unroller = Unroller(model, config, torch.Generator().manual_seed(0), teacher, projection)
        loss, parts = unroller(clip(batch=1), 0.5)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        seen.append(parts)
    assert seen[-1]["attention"] < 0.8 * seen[0]["attention"]
    if kind == "student":
        assert seen[-1]["readout"] < 0.8 * seen[0]["readout"]
    else:
        assert "readout" not in seen[0]


def test_clips_without_places_are_not_taught_by_the_oracle():
    batch = clip(places="unknown")
    unroller = Unroller(student(), UnrollConfig(), torch.Generator().manual_seed(0), OracleTeacher())
    _, parts = unroller(batch, 0.5)
    assert parts["attention"] == 0.0 and parts["correspondence"] == 0.0


def test_what_a_bounded_memory_does_not_hold_is_reported_lost():
    config = UnrollConfig(budgets=(4,), selection="fifo", joins_late=0.0)
    unroller = Unroller(student(), config, torch.Generator().manual_seed(0), OracleTeacher())
    _, parts = unroller(clip(), 0.5)
    assert 0.3 < parts["attention_lost"] < 1.0


def test_a_readout_without_projection_is_refused():
    teacher = StudentTeacher(student())
    with pytest.raises(TeacherError, match="projection"):
        Unroller(student(), UnrollConfig(), torch.Generator(), teacher)
    Unroller(student(), UnrollConfig(weights=LossWeights(readout=0.0)), torch.Generator(), teacher)
    with pytest.raises(ConfigurationError, match="fifo"):
        Unroller(student(), UnrollConfig(selection="fiffo"), torch.Generator())


def test_targets_survive_being_saved(tmp_path):
    targets = StudentTeacher(student()).targets(clip())
    torch.save(targets.state(), tmp_path / "targets.pt")
    back = TeacherTargets.from_state(torch.load(tmp_path / "targets.pt", weights_only=True))
    assert torch.equal(back.known, targets.known) and torch.equal(back.held, targets.held)
    assert torch.allclose(back.attention, targets.attention, atol=1e-3)
    assert back.attention.dtype == torch.float32
    oracle = OracleTeacher().targets(clip())
    assert set(oracle.state()) == {"attention", "held", "known", "lost"}
    assert TeacherTargets.from_state(oracle.state()).readout is None


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"colour": torch.zeros(1)}, "colour"),
        ({"known": None}, "lack known"),
        ({"attention": torch.zeros(2, 3, 64, 2, 64)}, "attention has shape"),
        ({"lost": torch.zeros(2, 3, 4)}, "lost has shape"),
    ],
)
def test_damaged_targets_are_refused(change, message):
    state = {**OracleTeacher().targets(clip()).state(), **change}
    with pytest.raises(TeacherError, match=message):
        TeacherTargets.from_state({name: value for name, value in state.items() if value is not None})


def test_opening_teachers_by_name(tmp_path):
    assert open_teacher("oracle", None, "cpu").readout_width == 0
    assert open_teacher("student", SHIPPED, "cpu").readout_width == 256
    model = student()
    path = tmp_path / "last.pt"
    torch.save({"variant": "tiny", "average": model.state_dict()}, path)
    teacher = open_teacher("student", path, "cpu")
    assert_consistent(teacher.targets(clip(batch=1)))


@pytest.mark.parametrize(
    ("name", "path", "error", "message"),
    [
        ("sam3", "here", TeacherError, "oracle, student, sam2, edgetam"),
        ("oracle", "here", TeacherError, "leave its path"),
        ("student", None, TeacherError, "needs the path"),
        ("student", "nowhere.pt", ModelFileError, "nowhere.pt"),
        ("student", "damaged.pt", ModelFileError, "damaged.pt"),
        ("student", ".", ModelFileError, "weights.safetensors"),
    ],
)
def test_teachers_that_cannot_be_opened(tmp_path, name, path, error, message):
    (tmp_path / "damaged.pt").write_bytes(b"PK no")
    with pytest.raises(error, match=message):
        open_teacher(name, None if path is None else tmp_path / path, "cpu")


class Elsewhere(TorchFunctionMode):
    """Stands in for an accelerator: meta tensors refuse to meet CPU ones, and a look at a value gives a constant."""

    LOOKS = {torch.Tensor.__bool__: True, torch.Tensor.__int__: 2, torch.Tensor.__float__: 0.5}  # noqa: RUF012  # a table that nobody changes

    def __torch_function__(self, function, types, args=(), kwargs=None):
        away = bool(args) and isinstance(args[0], torch.Tensor) and args[0].device.type == "meta"
        if away and function in self.LOOKS:
            return self.LOOKS[function]
        if away and function is torch.Tensor.cpu:
            return torch.zeros(args[0].shape, dtype=args[0].dtype)
        return function(*args, **(kwargs or {}))


@pytest.mark.parametrize("selection", ["straight_through", "fifo"])
@pytest.mark.parametrize("kind", ["none", "oracle", "student"])
def test_everything_stays_on_the_device_of_the_clip(selection, kind):
    model = student().to("meta")
    teachers = {"none": None, "oracle": OracleTeacher(), "student": StudentTeacher(student().to("meta"))}
    batch = {name: value.to("meta") for name, value in clip(batch=3).items()}
    config = UnrollConfig(selection=selection, weights=LossWeights(gate=1.0), gated=1.0, corrupt_warp=1.0)
    projection = nn.Linear(256, 256, device="meta")
    generator = torch.Generator().manual_seed(0)
    with Elsewhere():
        loss, _ = Unroller(model, config, generator, teachers[kind], projection)(batch, 0.5)
    assert loss.device.type == "meta"


def test_binned_attention_of_the_student_teacher_matches_a_direct_computation():
    """One query by hand: softmax over the tokens of frame 0, summed by the cell that each lies in."""
    model = student().eval()
    batch = clip(batch=1)
    targets = StudentTeacher(model, pooled=False).targets(batch)
    with torch.no_grad():
        _, key = model.encode(batch["images"][0, :2].permute(0, 3, 1, 2).float())
    flat = key.flatten(2).transpose(1, 2)
    centre = (torch.arange(8) + 0.5) / 8
    x, y = centre.repeat(8), centre.repeat_interleave(8)
    always, young = torch.nn.functional.softplus(model.locality.detach())
    strength = always + 4.0 * young * torch.exp(torch.tensor(-1 / 4.0))
    query = 27
    distance = (x - x[query]) ** 2 + (y - y[query]) ** 2
    logits = flat[1, query] @ flat[0].T * model.log_scale.detach().exp() - strength * distance
    expected = torch.softmax(logits, -1)
    assert torch.allclose(targets.attention[0, 1, query, 0], expected, atol=1e-5)
