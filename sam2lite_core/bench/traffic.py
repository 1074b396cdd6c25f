"""Count the bytes that a frame moves, on tensors that have shapes but no contents."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

from sam2lite_core.frame.resolution import BASE_SHORT_SIDE, REFERENCE_SOURCE, RUNGS, network_size, token_grid
from sam2lite_core.model.cost import flops_per_frame
from sam2lite_core.model.student import Student
from sam2lite_core.variants import get_variant


@dataclass(frozen=True)
class FrameCost:
    """Cost of one frame without prompts.

    Attributes:
        flops: floating point operations of products and convolutions, two for each multiply-add.
        product_bytes: fp32 operands and results of those, weights among them, each moved once: all else is fused.
        all_bytes: operands and results of every operation that computes or copies, without fusion or cache.
        operations: how many those are.
    """

    flops: int
    product_bytes: int
    all_bytes: int
    operations: int


class Traffic(TorchDispatchMode):
    """Counter of the bytes of operations on the meta device; views move none."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # torch leaves it without types
        self.product_bytes = self.all_bytes = self.operations = 0

    def __torch_dispatch__(
        self, func: Any, types: Sequence[type], args: Iterable[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Run an operation and count what it reads and writes."""
        result = func(*args, **(kwargs or {}))
        given, made = _tensors((args, kwargs)), _tensors(result)
        # Example inputs and the student's weights are made before they are moved to the meta device.
        if func.is_view or not given or any(tensor.device.type != "meta" for tensor in (*given, *made)):
            return result
        count = sum(tensor.numel() * tensor.element_size() for tensor in (*given, *made))
        self.operations += 1
        self.all_bytes += count
        if func._overloadpacket in flop_registry:
            self.product_bytes += count
        return result


def _tensors(values: object) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(values) if isinstance(leaf, Tensor)]


def frame_cost(student: Student, rung: float) -> FrameCost:
    """Count the cost of a frame of the reference size at a rung, with one object and a full bank.

    The weights of the student may be on the meta device.
    """
    size = network_size(*REFERENCE_SOURCE, rung, BASE_SHORT_SIDE)
    tokens = token_grid(*REFERENCE_SOURCE, size, BASE_SHORT_SIDE)
    with Traffic() as traffic:
        flops = flops_per_frame(student, size, tokens, student.variant.memory_budget)
    return FrameCost(flops, traffic.product_bytes, traffic.all_bytes, traffic.operations)


def rows(variants: Sequence[str]) -> list[dict[str, Any]]:
    """Count the cost of a frame of each variant at each rung; weights are neither needed nor made."""
    found = []
    for name in variants:
        with torch.device("meta"):
            student = Student(get_variant(name))
        found += [{"variant": name, "scale": rung, **vars(frame_cost(student, rung))} for rung in RUNGS]
    return found
