"""Count a student's parameters by part and the arithmetic of a frame, without running it."""

import copy

import torch
from torch.utils.flop_counter import FlopCounterMode

from sam2lite_core.frame.resolution import BASE_SHORT_SIDE, REFERENCE_SOURCE, RUNGS, network_size, token_grid
from sam2lite_core.graph_io import StepTensors
from sam2lite_core.model import graphs
from sam2lite_core.model.bank import Bank
from sam2lite_core.model.student import Student
from sam2lite_core.variants import PATCH, Variant


def parameters_by_part(student: Student) -> dict[str, int]:
    """Parameter counts of the student's parts and their total."""
    counts = {name: sum(p.numel() for p in part.parameters()) for name, part in student.named_children()}
    direct = sum(p.numel() for p in student.parameters(recurse=False))
    return {**counts, "scalars": direct, "total": sum(counts.values()) + direct}


def flops_per_frame(
    student: Student, size: tuple[int, int], tokens: tuple[int, int], capacity: int, objects: int = 1
) -> int:
    """Floating point operations of a frame without prompts: two for each multiply-add of a convolution or product.

    Element-wise arithmetic, softmax and sorting are left out, as is usual; they are a few per cent.

    Args:
        student: any variant.
        size: (H, W) of the network's input in px, multiples of 16.
        tokens: rows and columns of the tokens that the frame writes.
        capacity: tokens in a full memory bank.
        objects: how many objects are decoded.
    """
    # Tensors of the meta device have shapes but no contents, so that even the base variant counts in no time.
    graph = graphs.StepGraph(copy.deepcopy(student).eval().to("meta"))
    rows, columns = size[0] // PATCH, size[1] // PATCH
    inputs, bank = graphs.example_inputs(student, objects, capacity, rows, columns)[:2]
    inputs = inputs._replace(
        token_rows=torch.zeros(1, tokens[0], rows), token_columns=torch.zeros(1, tokens[1], columns)
    )
    counter = FlopCounterMode(display=False)
    with torch.no_grad(), counter:
        graph(StepTensors(*(t.to("meta") for t in inputs)), Bank(*(t.to("meta") for t in bank)))
    return counter.get_total_flops()


def count_variant(variant: Variant) -> tuple[dict[str, int], dict[str, int]]:
    """Parameters by part and operations by rung of a variant; its weights are neither needed nor made."""
    with torch.device("meta"):
        student = Student(variant)
    return parameters_by_part(student), flops_by_rung(student)


def flops_by_rung(student: Student) -> dict[str, int]:
    """Operations of a frame of the reference size at each resolution scale, with one object and a full bank."""
    counts = {}
    for rung in RUNGS:
        size = network_size(*REFERENCE_SOURCE, rung, BASE_SHORT_SIDE)
        tokens = token_grid(*REFERENCE_SOURCE, size, BASE_SHORT_SIDE)
        counts[f"{rung:g}"] = flops_per_frame(student, size, tokens, student.variant.memory_budget)
    return counts
