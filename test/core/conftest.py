"""Models, clips and calibration feeds that are made once for every test that wants them: an export takes a minute."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import pytest

from sam2lite_core.backends.model_files import find_model
from sam2lite_core.types import Prompt
from sam2lite_core.variants import get_variant


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


@pytest.fixture(scope="session")
def shipped() -> Path:
    """The folder of the tiny model that ships."""
    return find_model(get_variant("tiny"), None)


@pytest.fixture(scope="session")
def short_clip() -> Any:
    """Five drawn frames of 320x240 with two objects and their truth; not to be changed."""
    pytest.importorskip("onnx", reason="needs onnx: pip install 'sam2lite[export]'")
    from sam2lite_core.export.clips import Clip, drawn_clip

    drawn = drawn_clip(5)
    frames = tuple(cv2.resize(frame, (320, 240), interpolation=cv2.INTER_AREA) for frame in drawn.frames)
    maps = tuple(cv2.resize(m, (320, 240), interpolation=cv2.INTER_NEAREST) for m in drawn.truths)
    prompts = tuple(Prompt(object_id=p.object_id, mask=maps[0] == p.object_id) for p in drawn.prompts)
    return Clip("drawn", frames, prompts, maps)


@pytest.fixture(scope="session")
def shipped_feeds(shipped, short_clip) -> Any:
    """What the shipped graphs are fed while they follow `short_clip` at half the resolution."""
    from sam2lite_core.backends.base import BackendSettings
    from sam2lite_core.backends.onnxruntime import OnnxRuntimeBackend
    from sam2lite_core.export.calibration import record

    return record(OnnxRuntimeBackend(BackendSettings(shipped, 256, threads=1)), [short_clip], (0.5,))
