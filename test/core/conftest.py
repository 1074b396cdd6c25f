"""One exported model for every test that runs one: an export takes a minute."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest


@dataclass(frozen=True)
class ExportedStudent:
    """A student with random weights, and the folder that it was exported to; not to be changed."""

    student: Any
    folder: Path


def random_student(seed: int = 3) -> Any:
    """A tiny student that nobody trained, shaken so that every path counts.

    Batch norms have statistics worth folding, the gate keeps about half of what it sees, and presence differs from
    object to object.
    """
    import torch

    from sam2lite_core.model.student import Student
    from sam2lite_core.variants import VARIANTS

    with torch.random.fork_rng():
        torch.manual_seed(seed)
        student = Student(VARIANTS["tiny"]).eval()
        with torch.no_grad():
            for module in student.modules():
                if isinstance(module, torch.nn.BatchNorm2d):
                    module.running_mean.normal_(0.0, 0.2)
                    module.running_var.uniform_(0.5, 2.0)
                    module.weight.uniform_(0.7, 1.3)
                    module.bias.normal_(0.0, 0.2)
                elif isinstance(module, torch.nn.LayerNorm):
                    module.weight.uniform_(0.7, 1.3)
                    module.bias.normal_(0.0, 0.1)
            last = student.gate.layers[4]
            last.weight.mul_(40.0)
            last.bias.normal_(0.0, 1.0)
            student.presence[2].weight.mul_(4.0)
    return student


@pytest.fixture(scope="session")
def exported(tmp_path_factory) -> ExportedStudent:
    """The shaken tiny student and its export."""
    pytest.importorskip("torch", reason="needs torch: pip install 'sam2lite[export]'")
    pytest.importorskip("onnx", reason="needs onnx: pip install 'sam2lite[export]'")
    from sam2lite_core.export.onnx import export_student

    student = random_student()
    folder = tmp_path_factory.mktemp("exported") / "tiny"
    export_student(student, folder, note="random weights")
    return ExportedStudent(student, folder)
