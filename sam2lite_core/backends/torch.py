"""Run the shipped weights in eager PyTorch, on the CPU or a CUDA device; for comparison and inspection."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from torch import Tensor

from sam2lite_core.backends.base import BackendSettings
from sam2lite_core.backends.model_files import TRANSPOSED, WEIGHTS_FILE, ModelInfo, read_weights_info
from sam2lite_core.errors import BackendError, ModelFileError
from sam2lite_core.graph_io import (
    BankSnapshot,
    FloatArray,
    PromptTensors,
    StepInputs,
    StepOutputs,
    StepTensors,
    graph_arrays,
)
from sam2lite_core.model import bank as memory
from sam2lite_core.model import graphs
from sam2lite_core.model.bank import Bank
from sam2lite_core.model.deploy import folded_student
from sam2lite_core.model.student import Student
from sam2lite_core.variants import get_variant


def load_shipped(path: Path) -> tuple[Student, ModelInfo]:
    """Load a weights file: the fp32 student in evaluation mode with batch norms folded, and the file's metadata.

    Raises:
        ModelFileError: the file is missing, damaged or not ours.
    """
    info = read_weights_info(path)
    try:
        with safe_open(path, framework="pt") as file:
            state = {name: file.get_tensor(name).float() for name in file.keys()}  # noqa: SIM118  # not a dict
    except (OSError, SafetensorError) as error:
        raise ModelFileError(f"{path} cannot be read as safetensors: {error}") from error
    student = folded_student(replace(get_variant(info.variant), max_objects=info.max_objects))
    turned = {
        name.removesuffix(TRANSPOSED): tensor.T if name.endswith(TRANSPOSED) else tensor
        for name, tensor in state.items()
    }
    try:
        student.load_state_dict(turned)
    except RuntimeError as error:
        raise ModelFileError(f"{path} does not fit variant {info.variant}: {error}") from error
    return student.eval(), info


def choose_device(name: str, backend: str = "torch") -> torch.device:
    """Choose the torch device of a name: auto (CUDA where there is one), cpu, cuda or cuda:N.

    Raises:
        BackendError: no such device; `backend` is named.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise BackendError(f"backend {backend} has no device {name!r}; choose auto, cpu, cuda or cuda:N") from error
    if device.type not in ("cpu", "cuda"):
        raise BackendError(f"backend {backend} has no device {name!r}; choose auto, cpu, cuda or cuda:N")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise BackendError(
            f"device {name!r} is not there: torch {torch.__version__} sees {torch.cuda.device_count()} CUDA devices"
        )
    return device


class TorchBackend:
    """Run the student's graphs in eager PyTorch, fp32."""

    name = "torch"

    def __init__(self, settings: BackendSettings) -> None:
        """Load the weights onto a device.

        Raises:
            ModelFileError: the weights file is missing, damaged or not ours.
            BackendError: a precision or device that this backend does not have.
        """
        if settings.precision not in ("auto", "fp32"):
            raise BackendError(f"backend torch has no precision {settings.precision!r}; choose auto or fp32")
        self._device = choose_device(settings.device)
        student, self.info = load_shipped(settings.folder / WEIGHTS_FILE)
        self.student = student.to(self._device)
        if settings.threads is not None:
            torch.set_num_threads(settings.threads)  # of the whole process: torch has no other
        self._step = graphs.StepGraph(self.student).eval()
        self._prompt = graphs.PromptGraph(self.student).eval()
        self._capacity = settings.capacity
        self.reset()

    def reset(self) -> None:
        """Empty the memory bank."""
        self._pool: tuple[Tensor, Tensor] | None = None
        self._bank = memory.empty_bank(
            1, self._capacity, self.student.variant.key_width, self.info.max_objects, self._device
        )

    def step(self, inputs: StepInputs) -> StepOutputs:
        """Run one frame and update the bank, which stays on the device.

        Raises:
            BackendError: torch failed; the bank is as before the step.
        """
        tensors = self._tensors(inputs)
        step = StepTensors(*(tensors[name] for name in StepTensors._fields))
        # cuDNN would round to TF32 by itself, and fp32 was asked for. Never run on CUDA so far.
        exact = torch.backends.cudnn.flags(allow_tf32=False)
        try:
            with torch.inference_mode(), exact:
                if inputs.prompt is None:
                    outputs = self._step(step, self._bank)
                else:
                    prompt = PromptTensors(*(tensors[name] for name in PromptTensors._fields))
                    outputs = self._prompt(step, self._bank, prompt)
                logits, presence, _, used = outputs[:4]
                answer = StepOutputs(logits[0].cpu().numpy(), presence[0].cpu().numpy(), int(used))
        except RuntimeError as error:
            raise BackendError(f"torch failed on a frame of {inputs.image.shape[:2]}: {error}") from error
        self._bank = Bank(*outputs[4:])
        self._pool = step.token_rows, step.token_columns
        return answer

    def keep(self) -> Callable[[], None]:
        """Return a function that restores the memory bank as it is now."""
        bank = self._bank  # every step makes a new one

        def restore() -> None:
            self._bank = bank

        return restore

    def bank(self) -> BankSnapshot:
        """Copy the memory bank to the host."""
        return BankSnapshot(*(tensor[0].cpu().numpy().copy() for tensor in self._bank))

    def attention(self, image: NDArray[np.uint8], window: int) -> FloatArray:
        """Compute what a frame would read from the bank if it came next; nothing changes.

        Returns (H/16, W/16, S) float32 attention over the rows of `bank()` for an (H, W, 3) uint8 image and window W.

        Raises:
            BackendError: no frame was stepped yet.
        """
        if self._pool is None:
            raise BackendError("memory is empty: step a frame before asking what the next one would read")
        pixels = self._to_device(image)
        followed = torch.ones(1, self.info.max_objects, device=self._device)
        with torch.inference_mode():
            _, key = self.student.encode(pixels.float().permute(2, 0, 1).unsqueeze(0))
            bank = memory.begin_frame(self._bank, followed)
            logits = self.student.attention_logits(
                key, bank, torch.full((1,), float(window), device=self._device), self._pool
            )
            weights = torch.softmax(logits, dim=-1).reshape(*key.shape[-2:], -1)
        return np.asarray(weights.cpu().numpy(), dtype=np.float32)

    def _tensors(self, inputs: StepInputs) -> dict[str, Tensor]:
        arrays = graph_arrays(inputs, self.info.max_objects)
        return {name: self._to_device(array) for name, array in arrays.items()}

    def _to_device(self, array: NDArray[np.generic]) -> Tensor:
        # A view of the caller's array where torch may have one: it wants no read-only memory.
        return torch.from_numpy(np.require(array, requirements=["C", "W"])).to(self._device)
