"""Run the graphs by ONNX Runtime; I/O binding keeps the memory bank on the session's device between frames."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort

from sam2lite_core.backends.base import BackendSettings
from sam2lite_core.backends.model_files import (
    INFO_KEY,
    PROMPT_FILE,
    STEP_FILE,
    WEIGHTS_FILE,
    check_weights,
    parse_info,
    read_weights_info,
)
from sam2lite_core.errors import BackendError, ModelFileError
from sam2lite_core.graph_io import (
    BANK_NAMES,
    HOST_OUTPUTS,
    NEW_BANK_NAMES,
    BankSnapshot,
    StepInputs,
    StepOutputs,
    bank_shapes,
    graph_arrays,
)

KEY_WIDTH = 256

CPU = "CPUExecutionProvider"
PROVIDERS = {
    "tensorrt": "TensorrtExecutionProvider",
    "cuda": "CUDAExecutionProvider",
    "coreml": "CoreMLExecutionProvider",
    "cpu": CPU,
}
"""ONNX Runtime's providers by the names of devices. Only on the CPU has this backend ever run."""

SLOWER_FUSED = ["SkipLayerNormFusion"]
"""On the CPU, an addition fused with the layer norm after it takes five times as long as both apart."""

ON_DEVICE = ("tensorrt", "cuda")
"""Devices whose memory holds the bank between frames; Core ML gives its results back to the host."""


@dataclass(frozen=True)
class Device:
    """Device of a session: a key of `PROVIDERS`, and its index."""

    name: str
    index: int = 0

    @property
    def memory(self) -> str:
        """ONNX Runtime's name of the memory that holds the bank."""
        return "cuda" if self.name in ON_DEVICE else "cpu"

    @property
    def providers(self) -> list[Any]:
        """List the device's own provider, then the CPU's for operators that it lacks."""
        own = PROVIDERS[self.name]
        chosen: list[Any] = [(own, {"device_id": self.index}) if self.name in ON_DEVICE else own]
        return chosen if self.name == "cpu" else [*chosen, CPU]


SPIN_US = "20"
"""How long a worker spins for its next node, microseconds."""

SPIN_SINCE = (1, 27)
"""The first release that surely can be told so (pull request 27916, 2026); earlier ones spin for long or not at all."""


def spinning(version: str) -> dict[str, str]:
    """Choose how workers wait for the next node of a graph, as session options.

    Sleeping costs 3 of 28 ms a step at scale .5. Spinning uses up the worker's CPU share: under CPU load the 90th
    percentile is 63 to 82 ms, against 40 to 49 with 20 microseconds or none (docs/benchmarks/speed.md).
    """
    release = tuple(int(part) for part in version.split(".")[:2])
    if release < SPIN_SINCE:
        return {"session.intra_op.allow_spinning": "0"}
    return {"session.intra_op.spin_duration_us": SPIN_US}


def choose_device(name: str, available: Sequence[str]) -> Device:
    """Choose the device of a name: auto, cpu, cuda, cuda:N, tensorrt, tensorrt:N or coreml.

    Auto takes CUDA where it is `available`, else the CPU: TensorRT's provider would build engines at every new frame
    size, and Core ML's returns most of a dynamic graph to the CPU.

    Raises:
        BackendError: no such device, or an ONNX Runtime that was built without its provider.
    """
    if name == "auto":
        return Device("cuda" if PROVIDERS["cuda"] in available else "cpu")
    kind, _, index = name.partition(":")
    if kind not in PROVIDERS or (index and (kind not in ON_DEVICE or not index.isdecimal())):
        raise BackendError(
            f"backend onnxruntime has no device {name!r}; choose auto, cpu, cuda, cuda:N, tensorrt or coreml"
        )
    if PROVIDERS[kind] not in available:
        raise BackendError(
            f"device {name!r} needs {PROVIDERS[kind]}, and this ONNX Runtime {ort.__version__} has "
            f"{', '.join(available)}; install the package that brings it, or choose auto"
        )
    return Device(kind, int(index or 0))


def open_session(
    path: Path, threads: int | None, profile: Path | None = None, device: Device | None = None
) -> ort.InferenceSession:
    """Load an ONNX file for a device (the CPU when None); threads None leaves the number to the runtime.

    With a profile path, every node's time is recorded until `end_profiling`.

    Raises:
        ModelFileError: the file cannot be loaded.
        BackendError: the device's provider could not start; ONNX Runtime would go on with the CPU.
    """
    device = device or Device("cpu")
    options = ort.SessionOptions()
    options.log_severity_level = 3
    if threads is not None:
        options.intra_op_num_threads = threads
    if profile is not None:
        options.enable_profiling = True
        options.profile_file_prefix = str(profile)
    for name, value in spinning(ort.__version__).items():
        options.add_session_config_entry(name, value)
    # Nor do workers spin between frames: the camera's driver and DDS need the cores.
    options.add_session_config_entry("session.force_spinning_stop", "1")
    try:
        session = ort.InferenceSession(
            str(path),
            options,
            providers=device.providers,
            disabled_optimizers=SLOWER_FUSED if device.name == "cpu" else None,
        )
    except Exception as error:  # onnxruntime raises several unrelated types of its own
        raise ModelFileError(f"{path} cannot be loaded by ONNX Runtime {ort.__version__}: {error}") from error
    if PROVIDERS[device.name] not in session.get_providers():
        raise BackendError(
            f"{PROVIDERS[device.name]} could not start, driver or libraries are missing; choose device cpu"
        )
    return session


class OnnxRuntimeBackend:
    """Run step.onnx and prompt.onnx on the CPU, or on another device of this ONNX Runtime."""

    name = "onnxruntime"

    def __init__(self, settings: BackendSettings) -> None:
        """Load both graphs.

        Raises:
            ModelFileError: a file cannot be loaded or is not ours.
            BackendError: a precision or device that this backend does not have.
        """
        self._device = choose_device(settings.device, ort.get_available_providers())
        step_path, prompt_path = settings.folder / STEP_FILE, settings.folder / PROMPT_FILE
        weights = read_weights_info(settings.folder / WEIGHTS_FILE)
        self._step = open_session(step_path, settings.threads, settings.profile, self._device)
        self.info = parse_info(self._step.get_modelmeta().custom_metadata_map.get(INFO_KEY), step_path)
        check_weights(settings.folder, weights, self.info, STEP_FILE)
        if settings.precision not in ("auto", self.info.precision):
            raise BackendError(
                f"{settings.folder} holds {self.info.precision} graphs, not {settings.precision!r}; choose auto, or "
                f"export the model: sam2lite export --precision {settings.precision}"
            )
        self._prompt = open_session(prompt_path, settings.threads, None, self._device)
        prompt_info = parse_info(self._prompt.get_modelmeta().custom_metadata_map.get(INFO_KEY), prompt_path)
        check_weights(settings.folder, weights, prompt_info, PROMPT_FILE)
        self._capacity = settings.capacity
        self._profiled = settings.profile is not None
        self._bank: dict[str, ort.OrtValue] = {}
        self.reset()

    def reset(self) -> None:
        """Empty the memory bank."""
        shapes = bank_shapes(self._capacity, KEY_WIDTH, self.info.max_objects)
        self._bank = {
            name: ort.OrtValue.ortvalue_from_numpy(np.zeros(shape, np.float32), self._device.memory, self._device.index)
            for name, shape in shapes.items()
        }

    def step(self, inputs: StepInputs) -> StepOutputs:
        """Run one frame and update the bank.

        Raises:
            BackendError: ONNX Runtime failed; the bank is as before the step.
        """
        session = self._step if inputs.prompt is None else self._prompt
        binding = session.io_binding()
        for name, array in graph_arrays(inputs, self.info.max_objects).items():
            binding.bind_cpu_input(name, np.ascontiguousarray(array))
        for name, value in self._bank.items():
            binding.bind_ortvalue_input(name, value)
        for name in HOST_OUTPUTS:
            binding.bind_output(name, "cpu")
        for name in NEW_BANK_NAMES:
            binding.bind_output(name, self._device.memory, self._device.index)
        try:
            session.run_with_iobinding(binding)
        except Exception as error:  # onnxruntime raises several unrelated types of its own
            raise BackendError(f"ONNX Runtime failed on a frame of {inputs.image.shape[:2]}: {error}") from error
        outputs = binding.get_outputs()
        self._bank = dict(zip(BANK_NAMES, outputs[len(HOST_OUTPUTS) :], strict=True))
        logits, presence, used = (value.numpy() for value in outputs[: len(HOST_OUTPUTS)])
        return StepOutputs(logits[0], presence[0], int(used[0]))

    def end_profiling(self) -> Path:
        """Stop timing nodes; return the JSON file of events, or raise BackendError if opened without a profile."""
        if not self._profiled:
            raise BackendError("this backend records no profile; open it with BackendSettings(profile=...)")
        return Path(self._step.end_profiling())

    def keep(self) -> Callable[[], None]:
        """Return a function that restores the memory bank as it is now."""
        bank = self._bank  # every step makes a new one

        def restore() -> None:
            self._bank = bank

        return restore

    def bank(self) -> BankSnapshot:
        """Copy the memory bank to the host."""
        return BankSnapshot(*(self._bank[name].numpy()[0].copy() for name in BANK_NAMES))
