"""The two graphs that run on a robot: `StepGraph` for every frame, `PromptGraph` for frames that carry prompts.

Both take the bank in and give it back, so that it can stay on the device. The host sends an image, its motion and the
warped previous masks, and gets masks. Names and shapes are those of `graph_io`.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sam2lite_core.frame.resolution import averaging_matrix
from sam2lite_core.graph_io import PromptTensors, StepTensors
from sam2lite_core.model import bank as memory_bank
from sam2lite_core.model.aggregation import entropy
from sam2lite_core.model.bank import Bank
from sam2lite_core.model.prompt_decoder import PROMPT_CHANNELS
from sam2lite_core.model.step import StepResult, step
from sam2lite_core.model.student import Student
from sam2lite_core.variants import PATCH

GraphInputs = tuple[StepTensors, Bank] | tuple[StepTensors, Bank, PromptTensors]
"""Arguments of a graph, flattened in the order of its ONNX inputs."""


class StepGraph(nn.Module):
    """One frame without prompts."""

    def __init__(self, student: Student) -> None:
        super().__init__()
        self.student = student

    def forward(self, inputs: StepTensors, bank: Bank) -> tuple[Tensor, ...]:
        """Track every object through one frame.

        Returns:
            logits (1, K, H/4, W/4) against the background after soft aggregation; presence (1, K) 0..1; uncertainty
            (1, 1, H/16, W/16) mask entropy 0..1; tokens_used (1,) float32; the new bank's five tensors.
        """
        return _outputs(step(self.student, inputs, bank))


class PromptGraph(nn.Module):
    """One frame with prompts for any mixture of new, known and lost objects."""

    def __init__(self, student: Student) -> None:
        super().__init__()
        self.student = student

    def forward(self, inputs: StepTensors, bank: Bank, prompt: PromptTensors) -> tuple[Tensor, ...]:
        """Track every object through one frame with prompts; returns what `StepGraph.forward` does."""
        return _outputs(step(self.student, inputs, bank, prompt))


def _outputs(result: StepResult) -> tuple[Tensor, ...]:
    """Order a step's results as `graph_io.OUTPUTS`."""
    uncertainty = F.avg_pool2d(entropy(result.probability), 4)
    used = result.bank.column("valid").sum(dim=1)
    return (result.logits, result.presence, uncertainty, used, *result.bank)


def build_graph(student: Student, prompt: bool) -> StepGraph | PromptGraph:
    """Build the graph of frames with or without prompts."""
    return (PromptGraph if prompt else StepGraph)(student)


def example_inputs(
    student: Student, objects: int, capacity: int, rows: int = 9, columns: int = 16, prompt: bool = False
) -> GraphInputs:
    """Make a graph's arguments of the right shapes and types.

    Args:
        student: whose graph.
        objects: K.
        capacity: rows S of the bank.
        rows, columns: of the frame's patches.
        prompt: if the graph is that of frames with prompts.
    """
    most = student.variant.max_objects
    fine = (1, objects, rows * 4, columns * 4)
    inputs = StepTensors(
        image=torch.zeros(1, rows * PATCH, columns * PATCH, 3, dtype=torch.uint8),
        motion=torch.zeros(1, 1, rows, columns),
        warped=torch.zeros(fine),
        # Fewer slots than objects are no tracker's case, but an example of one object could not be traced.
        slots=torch.eye(most)[torch.arange(objects) % most].unsqueeze(0),
        active=torch.ones(1, most),
        window=torch.full((1,), 8.0),
        budget=torch.full((1,), float(capacity)),
        frame=torch.zeros(1),
        policy=torch.tensor([[1.0, 0.0, 0.0, 0.0]]),
        presence_threshold=torch.full((1,), 0.5),
        token_rows=torch.from_numpy(averaging_matrix(rows, (rows + 1) // 2)).unsqueeze(0),
        token_columns=torch.from_numpy(averaging_matrix(columns, (columns + 1) // 2)).unsqueeze(0),
    )
    bank = memory_bank.empty_bank(1, capacity, student.variant.key_width, most)
    if not prompt:
        return inputs, bank
    given, prompted = torch.zeros(1, objects), torch.zeros(1, objects)
    rasters = torch.zeros(1, objects, PROMPT_CHANNELS, rows * 4, columns * 4)
    return inputs, bank, PromptTensors(rasters, torch.zeros(fine), given, prompted)
