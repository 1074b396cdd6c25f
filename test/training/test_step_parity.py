"""One step: the exported graphs, training's unroll, the gate's search and the student teacher keep the same memory."""

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from sam2lite_core import graph_io
from sam2lite_core.graph_io import POLICIES, PromptTensors
from sam2lite_core.model import bank as memory_bank
from sam2lite_core.model import graphs
from sam2lite_core.model.bank import Bank
from sam2lite_core.model.prompt_decoder import PROMPT_CHANNELS
from sam2lite_core.model.student import Student
from sam2lite_core.variants import get_variant
from training.config.objective import LossWeights, UnrollConfig
from training.data.play import encode_clips, play, step_inputs
from training.data.tensors import token_pool, warp
from training.gate_search.rule import Rule
from training.gate_search.search import EncodedBatch, EncodedBatches
from training.objective import unroll as training_unroll
from training.teachers.student import StudentTeacher

ROWS, COLUMNS, FRAMES, BUDGET = 6, 8, 8, 24
CLOSE = 1e-5


@pytest.fixture(scope="module")
def student():
    torch.manual_seed(0)
    student = Student(replace(get_variant("tiny"), max_objects=2)).eval()
    # Noise is alike everywhere to random weights: keys apart, as training makes them, and objects in sight.
    with torch.no_grad():
        student.presence[-1].bias += 2.0
        student.gate.layers[-1].bias += 1.0
    return student


def make_clip(name):
    """Two objects on noise; in the static clip all frames but the last two are alike."""
    generator = torch.Generator().manual_seed(1)
    height, width = ROWS * 16, COLUMNS * 16
    images = torch.randint(0, 256, (1, FRAMES, height, width, 3), generator=generator).to(torch.uint8)
    if name == "static":
        images[:, 1 : FRAMES - 2] = images[:, :1]
    labels = torch.zeros(1, FRAMES, height, width, dtype=torch.uint8)
    labels[..., 16:64, 16:64], labels[..., 32:80, 80:112] = 1, 2
    flow = torch.rand(1, FRAMES, height // 4, width // 4, 2, generator=generator) * 0.02
    motion = torch.rand(1, FRAMES, ROWS, COLUMNS, generator=generator)
    return {
        "images": images, "labels": labels, "count": torch.tensor([2]), "flow": flow, "motion": motion,
        "name": name,
    }  # fmt: skip


@pytest.fixture(scope="module", params=["moving", "static"])
def clip(request):
    return make_clip(request.param)


def tokens_of(bank: Bank) -> torch.Tensor:
    """Everything about the valid tokens of a bank of one clip, in an order of birth and place."""
    rows = torch.cat([part[0].detach() for part in bank], dim=-1)[bank.column("valid")[0] > 0.5]
    meta = rows[:, -len(graph_io.META) :]
    columns = [meta[:, graph_io.META.index(name)].numpy() for name in ("x", "y", "birth")]
    return rows[np.lexsort(columns)]


class Robot:
    """Plays a clip through the exported graphs' modules, with a bank and warped masks of its own."""

    def __init__(self, student, clip, policy, pooled, budget=BUDGET, run=None):
        self.student, self.clip, self.policy, self.budget = student, clip, policy, budget
        self.pool = token_pool(ROWS, COLUMNS, pooled)
        self.bank = memory_bank.empty_bank(1, budget, student.variant.key_width, 2)
        self.masks, self.present = torch.zeros(1, 2, ROWS * 4, COLUMNS * 4), torch.zeros(1, 2)
        self.run = run or self._eager
        self.used = []

    def _eager(self, parts):
        with torch.no_grad():
            return graphs.build_graph(self.student, len(parts) == 3)(*parts)

    def frame(self, t, prompt=None):
        warped = torch.zeros_like(self.masks)
        if t > 0:
            carried = warp(self.masks, self.clip["flow"][:, t]) * 2.0 - 1.0
            warped = carried * self.present[..., None, None]
        motion = self.clip["motion"][:, t]
        inputs = step_inputs(warped, torch.ones(1, 2), motion, t, self.budget, self.policy, self.pool)
        inputs = inputs._replace(image=self.clip["images"][:, t])
        outputs = self.run((inputs, self.bank) if prompt is None else (inputs, self.bank, prompt))
        logits, presence, _, used = outputs[:4]
        self.bank = Bank(*outputs[4:])
        self.present = (presence >= 0.5).float()
        self.masks = torch.softmax(torch.cat([torch.zeros_like(logits[:, :1]), logits], dim=1), dim=1)[:, 1:]
        self.used.append(float(used))
        return logits, presence

    def check(self, t, result, prompt=None):
        """Run a frame, and compare masks, presence and the bank with somebody else's."""
        logits, presence = self.frame(t, prompt)
        assert torch.allclose(result.logits.detach(), logits, atol=CLOSE)
        assert torch.allclose(result.presence.detach(), presence, atol=CLOSE)
        return tokens_of(self.bank)


def mask_prompt(clip):
    truth = F.avg_pool2d(torch.stack([clip["labels"][:, 0] == k for k in (1, 2)], dim=1).float(), 4)
    rasters = torch.zeros(1, 2, PROMPT_CHANNELS, ROWS * 4, COLUMNS * 4)
    return PromptTensors(rasters, truth, torch.ones(1, 2), torch.ones(1, 2))


@pytest.mark.parametrize("pooled", [True, False])
@pytest.mark.parametrize("policy", POLICIES)
@torch.no_grad()
def test_playing_clips_keeps_the_robots_memory(student, clip, policy, pooled):
    robot = Robot(student, clip, policy, pooled)
    clips = encode_clips(student, clip)
    played = play(student, clips, clip["flow"], clip["motion"], BUDGET, pooled=pooled, policy=policy)
    for t, result in played:
        ours = robot.check(t, result, mask_prompt(clip) if t == 0 else None)
        assert torch.allclose(tokens_of(result.bank), ours, atol=CLOSE)
    if policy == "learned" and clip["name"] == "static":
        # A static scene keeps its anchors, half of the budget, where they are more than its share.
        assert max(robot.used[2 : FRAMES - 2]) <= BUDGET / 2


@pytest.mark.parametrize("pooled", [True, False])
@torch.no_grad()
def test_the_bounded_student_teacher_keeps_the_robots_memory(student, clip, pooled):
    robot = Robot(student, clip, "learned", pooled)
    for t, result in StudentTeacher(copy.deepcopy(student), pooled, BUDGET).play(clip):
        ours = robot.check(t, result, mask_prompt(clip) if t == 0 else None)
        assert torch.allclose(tokens_of(result.bank), ours, atol=CLOSE)


@torch.no_grad()
def test_the_search_keeps_the_robots_memory(student, clip, monkeypatch):
    """A gate that gives a rule's scores: the search with the rule, and the robot with the gate."""
    rule = Rule(start=1.0, written=0.5, objects=1.0)
    monkeypatch.setattr(student, "gate_scores", rule.scores)
    robot = Robot(student, clip, "learned", pooled=False)
    batch = EncodedBatch(encode_clips(student, clip), list(range(FRAMES)), clip["flow"], clip["motion"])
    for t, result in EncodedBatches(student, iter(()), 0).play(batch, rule, BUDGET):
        ours = robot.check(t, result, mask_prompt(clip) if t == 0 else None)
        assert torch.allclose(tokens_of(result.bank), ours, atol=CLOSE)


def unrolled(student, clip, selection, pooled, monkeypatch):
    """Results of training's unroll as on a robot, with the prompts that it drew."""
    config = UnrollConfig(
        budgets=(BUDGET,), pooled=pooled, selection=selection, gated=1.0, teacher_forcing=False, exact_memory=True,
        drop_warp=(0.0, 0.0), corrupt_warp=0.0, joins_late=0.0, shown_again=0.3,
        weights=LossWeights(correspondence=0.0),
    )  # fmt: skip
    seen = []

    def recorded(student, inputs, bank, prompt, memory, **options):
        result = step(student, inputs, bank, prompt, memory=memory, **options)
        seen.append((prompt, result, memory.held(result.bank)))
        return result

    step = training_unroll.step
    monkeypatch.setattr(training_unroll, "step", recorded)
    unroller = training_unroll.Unroller(student, config, torch.Generator().manual_seed(4))
    loss, _ = unroller(clip, 1.0)
    return seen, loss


@pytest.mark.parametrize("pooled", [True, False])
@pytest.mark.parametrize("selection", ["straight_through", "fifo", "random"])
def test_the_unroll_keeps_the_robots_memory(student, clip, selection, pooled, monkeypatch):
    seen, loss = unrolled(student, clip, selection, pooled, monkeypatch)
    policy = "learned" if selection == "straight_through" else selection
    robot = Robot(student, clip, policy, pooled)
    assert sum(prompt is not None for prompt, _, _ in seen) >= 3
    for t, (prompt, result, held) in enumerate(seen):
        ours = robot.check(t, result, prompt)
        assert torch.allclose(tokens_of(held), ours, atol=CLOSE)
    student.zero_grad()
    loss.backward()
    assert all(part.weight.grad.abs().sum() > 0 for part in (student.key, student.value, student.readout))
    student.zero_grad()
