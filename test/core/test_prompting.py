"""The part that reads boxes and points: what it compares, and what it leaves alone."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from sam2lite_core.model import bank as memory
from sam2lite_core.model.prompt_decoder import PROMPT_CHANNELS, PromptDecoder
from sam2lite_core.model.student import DecodedMasks, Student
from sam2lite_core.variants import VARIANTS

ROWS, COLUMNS, OBJECTS = 4, 6, 3
BOX, POSITIVE, NEGATIVE = range(PROMPT_CHANNELS)


@pytest.fixture(scope="module")
def student() -> Student:
    torch.manual_seed(0)
    return Student(VARIANTS["tiny"]).eval()


def rasters() -> torch.Tensor:
    """Object 0 has a box, object 1 a point, object 2 nothing."""
    out = torch.zeros(1, OBJECTS, PROMPT_CHANNELS, 4 * ROWS, 4 * COLUMNS)
    out[0, 0, BOX, 4:12, 8:16] = 1.0
    out[0, 1, POSITIVE, 2, 3] = 1.0
    return out


def decoded(student: Student, prompts: torch.Tensor | None) -> DecodedMasks:
    generator = torch.Generator().manual_seed(1)
    image = torch.rand(1, 3, 16 * ROWS, 16 * COLUMNS, generator=generator) * 255
    with torch.no_grad():
        features, key = student.encode(image)
        bank = memory.empty_bank(1, 8, student.variant.key_width, OBJECTS)
        pool = torch.eye(ROWS), torch.eye(COLUMNS)
        logits = student.attention_logits(key, bank, torch.full((1,), 8.0), pool)
        readout = student.read(key, bank, torch.eye(OBJECTS).unsqueeze(0), logits)
        warped = torch.rand(1, OBJECTS, 4 * ROWS, 4 * COLUMNS, generator=generator) * 2 - 1
        return student.decode(features, key, readout, warped, prompts)


def test_only_objects_with_a_box_or_point_are_read_off_it(student: Student) -> None:
    tracked, prompted = decoded(student, None), decoded(student, rasters())
    assert torch.equal(tracked.raw[:, 2], prompted.raw[:, 2])
    assert not any(torch.equal(tracked.raw[:, k], prompted.raw[:, k]) for k in (0, 1))
    nothing = decoded(student, torch.zeros_like(rasters()))
    assert torch.equal(tracked.logits, nothing.logits)


def test_objects_do_not_see_each_other_s_prompts(student: Student) -> None:
    alone = rasters()
    alone[:, 1] = 0.0
    both = decoded(student, rasters())
    assert torch.allclose(decoded(student, alone).raw[:, 0], both.raw[:, 0], atol=1e-5)


@pytest.mark.parametrize("channel", [POSITIVE, NEGATIVE, BOX])
def test_similarity_by_brute_force(channel: int) -> None:
    generator = torch.Generator().manual_seed(2)
    key = F.normalize(torch.randn(1, 8, ROWS, COLUMNS, generator=generator), dim=1)
    prompts = torch.zeros(1, 1, PROMPT_CHANNELS, 4 * ROWS, 4 * COLUMNS)
    patches = [(1, 2), (2, 4)]
    for row, column in patches:
        prompts[0, 0, channel, 4 * row : 4 * row + 4, 4 * column : 4 * column + 4] = 1.0
    found = PromptDecoder._similarity(key, prompts)[0].numpy()
    vectors = key[0].numpy()
    inside = np.sum([vectors[:, row, column] for row, column in patches], axis=0)
    outside = vectors.sum(axis=(1, 2)) - inside
    expected = np.zeros((4, ROWS, COLUMNS))
    for where, centre in {POSITIVE: [(0, inside)], NEGATIVE: [(1, inside)], BOX: [(2, inside), (3, outside)]}[channel]:
        for row in range(ROWS):
            for column in range(COLUMNS):
                patch = vectors[:, row, column]
                expected[where, row, column] = patch @ centre / np.linalg.norm(centre)
    assert np.allclose(found, expected, atol=1e-5)


def test_gradients_reach_every_weight() -> None:
    torch.manual_seed(0)
    student = Student(VARIANTS["tiny"])
    image = torch.rand(1, 3, 16 * ROWS, 16 * COLUMNS) * 255
    features, key = student.encode(image)
    warped = torch.rand(1, OBJECTS, 4 * ROWS, 4 * COLUMNS)
    student.prompt(features, key, rasters(), warped).square().sum().backward()
    without = [name for name, p in student.prompt.named_parameters() if p.grad is None or not p.grad.any()]
    assert without == []
