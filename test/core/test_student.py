"""The student's building blocks against hand-computed values and brute force."""

import itertools

import numpy as np
import pytest
import torch

from sam2lite_core import graph_io
from sam2lite_core.frame.resolution import averaging_matrix
from sam2lite_core.model import graphs
from sam2lite_core.model.aggregation import aggregate_probability, entropy, soft_aggregate
from sam2lite_core.model.bank import Bank
from sam2lite_core.model.cost import parameters_by_part
from sam2lite_core.model.deploy import ToOneMap, fold_batch_norms, split_last_convolution
from sam2lite_core.model.layers import attend, pool2
from sam2lite_core.model.student import Student, to_token_grid, token_density
from sam2lite_core.variants import VARIANTS


@pytest.fixture(scope="module")
def student() -> Student:
    torch.manual_seed(0)
    return Student(VARIANTS["tiny"]).eval()


@pytest.mark.parametrize("size", [(4, 4), (3, 5), (1, 1), (7, 2)])
def test_pool2_averages_what_is_there(size: tuple[int, int]) -> None:
    grid = torch.randn(2, 3, *size, generator=torch.Generator().manual_seed(0))
    pooled = pool2(grid)
    for row in range(-(-size[0] // 2)):
        for column in range(-(-size[1] // 2)):
            cell = grid[:, :, 2 * row : 2 * row + 2, 2 * column : 2 * column + 2]
            assert torch.allclose(pooled[:, :, row, column], cell.mean(dim=(2, 3)), atol=1e-6)
    assert pooled.shape[-2:] == (-(-size[0] // 2), -(-size[1] // 2))


@pytest.mark.parametrize(("fine", "coarse"), [(6, 3), (7, 7), (21, 15), (5, 2)])
def test_averaging_keeps_the_mean_and_splits_cells_by_overlap(fine: int, coarse: int) -> None:
    weights = averaging_matrix(fine, coarse)
    assert np.allclose(weights.sum(axis=1), 1.0) and np.allclose(weights.sum(axis=0), coarse / fine)
    # The brute-force twin: cut every cell into `coarse` slivers and every group into `fine` of them.
    slivers = np.repeat(np.eye(fine), coarse, axis=0).reshape(coarse, fine, fine).mean(axis=1)
    assert np.allclose(weights, slivers, atol=1e-6)


def test_token_grid_of_even_sides_is_two_by_two_pooling() -> None:
    grid = torch.randn(2, 3, 6, 8, generator=torch.Generator().manual_seed(0))
    pool = tuple(torch.from_numpy(averaging_matrix(n, n // 2)) for n in (6, 8))
    assert torch.allclose(to_token_grid(grid, pool), pool2(grid), atol=1e-6)


@pytest.mark.parametrize(("fine", "coarse"), [((15, 27), (15, 27)), ((30, 54), (15, 27)), ((21, 38), (15, 27))])
def test_token_density_by_counting(fine: tuple[int, int], coarse: tuple[int, int]) -> None:
    pool = tuple(torch.from_numpy(averaging_matrix(a, b)).unsqueeze(0) for a, b in zip(fine, coarse, strict=True))
    expected = coarse[0] * coarse[1] / (fine[0] * fine[1])
    assert float(token_density(pool)) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("fine", [(6, 8), (15, 27)])
@pytest.mark.parametrize("pooled", [True, False])
def test_what_holds_of_a_cell_holds_of_its_patches(fine, pooled) -> None:
    coarse = tuple((side + 1) // 2 for side in fine) if pooled else fine
    pool = tuple(torch.from_numpy(averaging_matrix(a, b)).unsqueeze(0) for a, b in zip(fine, coarse, strict=True))
    student, generator = Student(VARIANTS["tiny"]), torch.Generator().manual_seed(5)
    key = torch.nn.functional.normalize(torch.randn(1, 256, *fine, generator=generator), dim=1)
    keys, x, y = student.cells(key, pool)
    assert torch.allclose(keys.norm(dim=-1), torch.ones(1, coarse[0] * coarse[1]))
    assert torch.allclose(x, (torch.arange(coarse[1]) + 0.5).repeat(coarse[0]) / coarse[1])
    assert torch.allclose(y, (torch.arange(coarse[0]) + 0.5).repeat_interleave(coarse[1]) / coarse[0])
    if not pooled:
        assert torch.allclose(keys[0].T.reshape(256, *fine), key[0], atol=1e-6)
    elif fine == (6, 8):
        block = key[0, :, 2:4, 6:8].mean(dim=(1, 2))
        assert torch.allclose(keys[0, 1 * 4 + 3], block / block.norm(), atol=1e-6)
    heard = (torch.rand(1, coarse[0] * coarse[1], generator=generator) > 0.5).float()
    spread = student.to_patches(heard, key, pool)
    assert spread.shape == (1, 1, *fine)
    assert torch.allclose(student.to_patches(torch.ones_like(heard), key, pool), torch.ones(1, 1, *fine))
    if fine == (6, 8):
        # Whole cells: every patch is its cell's.
        by_hand = heard.reshape(coarse).repeat_interleave(fine[0] // coarse[0], 0)
        assert torch.allclose(spread[0, 0], by_hand.repeat_interleave(fine[1] // coarse[1], 1), atol=1e-6)


def test_attend_is_softmax_attention() -> None:
    query, key, value = torch.randn(3, 1, 2, 4, 8, generator=torch.Generator().manual_seed(1))
    expected = torch.nn.functional.scaled_dot_product_attention(query, key, value)
    assert torch.allclose(attend(query, key, value), expected, atol=1e-6)


def test_what_is_traced_says_the_same(student: Student) -> None:
    split = split_last_convolution(student)
    assert isinstance(split.head.out, ToOneMap) and isinstance(student.head.out, torch.nn.Conv2d)
    grid = torch.randn(2, student.head.out.in_channels, 5, 7)
    torch.testing.assert_close(split.head.out(grid), student.head.out(grid), atol=1e-5, rtol=1e-5)


def test_soft_aggregation_is_stm_s() -> None:
    logits = torch.tensor([[[0.3], [-1.2], [2.0]]])
    probability = torch.sigmoid(logits)[0, :, 0].double().numpy()
    background = np.prod(1 - probability)
    odds = np.array([background / (1 - background), *(probability / (1 - probability))])
    expected = odds[1:] / odds.sum()
    assert np.allclose(aggregate_probability(soft_aggregate(logits))[0, :, 0].numpy(), expected, atol=1e-5)


@pytest.mark.parametrize("value", [-50.0, -12.0, 0.0, 12.0, 50.0])
def test_soft_aggregation_is_finite_and_ordered(value: float) -> None:
    relative = soft_aggregate(torch.full((1, 3, 1), value))
    assert torch.isfinite(relative).all()
    assert (relative > 0).all() == (value > -0.7)  # three objects at logit -0.7 leave the background level with each


@pytest.mark.parametrize(("probability", "bits"), [(0.5, 1.0), (0.0, 0.0), (1.0, 0.0), (0.25, 0.8112781)])
def test_entropy(probability: float, bits: float) -> None:
    assert float(entropy(torch.full((1, 1, 1, 1), probability))) == pytest.approx(bits, abs=2e-3)


@pytest.mark.parametrize("name", VARIANTS)
def test_parameters_are_within_three_percent_of_the_paper_s(name: str) -> None:
    variant = VARIANTS[name]
    counts = parameters_by_part(Student(variant))
    assert counts["total"] == sum(value for part, value in counts.items() if part != "total")
    assert counts["total"] / 1e6 == pytest.approx(variant.parameters_m, rel=0.03)


def run(student: Student, inputs: dict[str, torch.Tensor], prompt: bool) -> dict[str, torch.Tensor]:
    parts = [
        graph_io.StepTensors(*(inputs[name] for name in graph_io.StepTensors._fields)),
        Bank(*(inputs[name] for name in graph_io.BANK_NAMES)),
    ]
    if prompt:
        parts.append(graph_io.PromptTensors(*(inputs[name] for name in graph_io.PromptTensors._fields)))
    with torch.no_grad():
        return dict(zip(graph_io.OUTPUTS, graphs.build_graph(student, prompt)(*parts), strict=True))


def example_inputs(student: Student, prompt: bool = False, **sizes: int) -> dict[str, torch.Tensor]:
    """A graph's example inputs by name."""
    parts = graphs.example_inputs(student, prompt=prompt, **sizes)
    return dict(zip(graph_io.graph_inputs(prompt), itertools.chain(*parts), strict=True))


def prompted_inputs(student: Student, seed: int = 0) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    inputs = example_inputs(student, objects=3, capacity=64, rows=6, columns=9, prompt=True)
    inputs["image"] = torch.randint(0, 256, inputs["image"].shape, generator=generator, dtype=torch.uint8)
    for k in range(3):
        inputs["masks"][0, k, 4 * k : 4 * k + 8, 5 * k : 5 * k + 9] = 1.0 / (1 + k)
    inputs["mask_given"][:] = 1.0
    inputs["prompted"][:] = 1.0
    return inputs


def test_empty_bank_gives_finite_output(student: Student) -> None:
    outputs = run(student, example_inputs(student, objects=2, capacity=64, rows=3, columns=5), prompt=False)
    assert all(torch.isfinite(value).all() for value in outputs.values())


def test_permuting_objects_permutes_the_result(student: Student) -> None:
    first = run(student, prompted_inputs(student), prompt=True)
    bank = {name: first[f"new_{name}"] for name in graph_io.BANK_NAMES}
    step = example_inputs(student, objects=3, capacity=64, rows=6, columns=9) | bank
    step["image"] = torch.randint(
        0, 256, step["image"].shape, generator=torch.Generator().manual_seed(9), dtype=torch.uint8
    )
    step["warped"] = torch.rand(step["warped"].shape, generator=torch.Generator().manual_seed(8)) * 2 - 1
    plain = run(student, step, prompt=False)
    order = [2, 0, 1]
    shuffled = step | {"slots": step["slots"][:, order], "warped": step["warped"][:, order]}
    permuted = run(student, shuffled, prompt=False)
    assert torch.allclose(permuted["logits"], plain["logits"][:, order], atol=1e-4)
    assert torch.allclose(permuted["presence"], plain["presence"][:, order], atol=1e-5)
    assert torch.allclose(permuted["new_bank_identity"], plain["new_bank_identity"], atol=1e-5)


def test_prompt_graph_returns_given_masks_and_writes_anchors(student: Student) -> None:
    inputs = prompted_inputs(student)
    outputs = run(student, inputs, prompt=True)
    assert torch.equal(outputs["presence"], torch.ones(1, 3))
    inside = inputs["masks"][:, 0] > 0.9
    assert (outputs["logits"][:, 0][inside] > 5).all()
    owners = outputs["new_bank_meta"][0, :, graph_io.META.index("owner")]
    assert int((owners > 0).sum()) <= 32
    assert {1.0, 2.0, 3.0} <= set(owners.tolist())


def test_objects_shown_one_after_another_keep_anchors_on_themselves(student: Student) -> None:
    inputs = example_inputs(student, objects=4, capacity=64, rows=12, columns=12, prompt=True)
    inputs["image"] = torch.randint(
        0, 256, inputs["image"].shape, generator=torch.Generator().manual_seed(2), dtype=torch.uint8
    )
    for k in range(4):
        top, left = 24 * (k // 2), 24 * (k % 2)
        inputs["masks"][0, k, top + 6 : top + 18, left + 6 : left + 18] = 1.0
    for k in range(4):
        only = torch.eye(4)[[k]]
        outputs = run(student, inputs | {"mask_given": only, "prompted": only}, prompt=True)
        inputs |= {name: outputs[f"new_{name}"] for name in graph_io.BANK_NAMES}
    owner = inputs["bank_meta"][0, :, graph_io.META.index("owner")]
    for k in range(4):
        held = inputs["bank_identity"][0, owner == k + 1, k]
        # A quota of 64 / 2 / 4 tokens, and nearly all of the 2.25 tokens' area that the object covers.
        assert len(held) == 8 and float(held.sum()) > 2.0


def test_click_that_finds_nothing_is_lost_and_unknown(student: Student) -> None:
    inputs = example_inputs(student, objects=1, capacity=64, rows=6, columns=6, prompt=True)
    inputs["policy"] = torch.tensor([[0.0, 1.0, 0.0, 0.0]])
    inputs["prompted"][:] = 1.0
    with torch.no_grad():
        bias = student.head.out.bias.clone()
        student.head.out.bias.fill_(-30.0)
        outputs = run(student, inputs, prompt=True)
        student.head.out.bias.copy_(bias)
    assert float(outputs["presence"]) == 0.0
    assert not outputs["new_bank_known"].any()


def test_lost_object_is_unknown_in_new_tokens_not_absent(student: Student) -> None:
    first = run(student, prompted_inputs(student), prompt=True)
    bank = {name: first[f"new_{name}"] for name in graph_io.BANK_NAMES}
    inputs = example_inputs(student, objects=3, capacity=64, rows=6, columns=9) | bank
    inputs["presence_threshold"] = torch.ones(1) * 1.1  # nobody can be present
    inputs["policy"] = torch.tensor([[0.0, 1.0, 0.0, 0.0]])
    outputs = run(student, inputs, prompt=False)
    fresh = (outputs["new_bank_meta"][0, :, 2] == 0) & (outputs["new_bank_meta"][0, :, 5] > 0)
    assert fresh.any()
    assert not outputs["new_bank_known"][0, fresh].any()
    assert (outputs["logits"] < -10).all()
    anchors = outputs["new_bank_meta"][0, :, 6] > 0
    assert outputs["new_bank_known"][0, anchors].any()


def test_folding_batch_norms_changes_nothing(student: Student) -> None:
    trained = Student(VARIANTS["tiny"]).train()
    with torch.no_grad():
        trained.encode(torch.rand(2, 3, 64, 64) * 255)  # gives the norms statistics worth folding
    trained.eval()
    image = torch.rand(1, 3, 48, 80) * 255
    with torch.no_grad():
        expected, folded = trained.encode(image)[1], fold_batch_norms(trained).encode(image)[1]
    assert torch.allclose(expected, folded, atol=1e-4)
