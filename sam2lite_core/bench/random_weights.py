"""Export a variant that nobody trained, for measuring time."""

from pathlib import Path

import torch

from sam2lite_core.export.onnx import export_student
from sam2lite_core.model.student import Student
from sam2lite_core.variants import get_variant


def export_random(name: str, folder: Path) -> None:
    """Export a variant with random weights, the same in every run; takes a minute."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        export_student(Student(get_variant(name)).eval(), folder, note="random weights")
