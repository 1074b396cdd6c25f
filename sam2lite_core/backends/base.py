"""The protocol of a backend: run one frame, keep the memory bank on its device, hand masks back."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from sam2lite_core.backends.model_files import ModelInfo
from sam2lite_core.graph_io import BankSnapshot, StepInputs, StepOutputs


@dataclass(frozen=True)
class BackendSettings:
    """Settings to open a model with.

    Attributes:
        folder: holds the model's files.
        capacity: rows S of the memory bank, the budget B at most.
        precision: auto, fp32 or fp16.
        threads: CPU threads of the runtime; None leaves the choice to it.
        device: auto, or as the backend names its devices: cpu, cuda, cuda:1.
        profile: where ONNX Runtime writes its own timing of the step graph's nodes; the name gets an ending.
    """

    folder: Path
    capacity: int
    precision: str = "auto"
    threads: int | None = None
    device: str = "auto"
    profile: Path | None = None


class Backend(Protocol):
    """A runtime with a model loaded and a memory bank of its own."""

    info: ModelInfo
    name: str

    def reset(self) -> None:
        """Empty the memory bank."""

    def step(self, inputs: StepInputs) -> StepOutputs:
        """Run one frame and update the bank.

        Raises:
            BackendError: the runtime failed; the bank is as before the step.
        """

    def keep(self) -> Callable[[], None]:
        """Remember the memory bank as it is; calling the result brings it back, whatever was stepped in between."""

    def bank(self) -> BankSnapshot:
        """Copy the memory bank to the host."""
