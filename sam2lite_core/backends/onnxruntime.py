"""ONNX Runtime backend. The memory bank stays on the session's device between frames through I/O binding."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnxruntime as ort

from sam2lite_core.backends.base import (
    META,
    BackendSettings,
    BankSnapshot,
    StepInputs,
    StepOutputs,
    graph_arrays,
)
from sam2lite_core.backends.files import (
    INFO_KEY,
    PROMPT_FILE,
    STEP_FILE,
    WEIGHTS_FILE,
    check_weights,
    parse_info,
    read_weights_info,
)
from sam2lite_core.errors import BackendError, ModelFileError

KEY_WIDTH = 256
HOST_OUTPUTS = ("logits", "presence", "uncertainty", "tokens_used")
BANK = ("bank_key", "bank_value", "bank_identity", "bank_known", "bank_meta")


def open_session(path: Path, threads: int | None, profile: Path | None = None) -> ort.InferenceSession:
    """Load an ONNX file; with a profile, every node's time is recorded until `end_profiling`.

    Raises:
        ModelFileError: the file cannot be loaded.
    """
    options = ort.SessionOptions()
    options.log_severity_level = 3
    if threads is not None:
        options.intra_op_num_threads = threads
    if profile is not None:
        options.enable_profiling = True
        options.profile_file_prefix = str(profile)
    # Idle workers would spin on a core that the camera driver and DDS need.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    try:
        return ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime raises several unrelated types of its own
        raise ModelFileError(f"{path} cannot be loaded by ONNX Runtime {ort.__version__}: {error}") from error


class OnnxRuntimeBackend:
    """Runs step.onnx and prompt.onnx on the CPU."""

    name = "onnxruntime"

    def __init__(self, settings: BackendSettings) -> None:
        """Load both graphs.

        Raises:
            ModelFileError: a file cannot be loaded or is not ours.
            BackendError: a precision or device that this backend does not have.
        """
        if settings.device not in ("auto", "cpu"):
            raise BackendError(f"backend onnxruntime has no device {settings.device!r}; choose auto or cpu")
        step_path, prompt_path = settings.folder / STEP_FILE, settings.folder / PROMPT_FILE
        weights = read_weights_info(settings.folder / WEIGHTS_FILE)
        self._step = open_session(step_path, settings.threads, settings.profile)
        self.info = parse_info(self._step.get_modelmeta().custom_metadata_map.get(INFO_KEY), step_path)
        check_weights(settings.folder, weights, self.info, STEP_FILE)
        if settings.precision not in ("auto", self.info.precision):
            raise BackendError(
                f"{settings.folder} holds {self.info.precision} graphs, not {settings.precision!r}; choose auto, or "
                f"export the model: sam2lite export --precision {settings.precision}"
            )
        self._prompt = open_session(prompt_path, settings.threads)
        prompt_info = parse_info(self._prompt.get_modelmeta().custom_metadata_map.get(INFO_KEY), prompt_path)
        check_weights(settings.folder, weights, prompt_info, PROMPT_FILE)
        self._slots = settings.slots
        self._profiled = settings.profile is not None
        self._bank: dict[str, ort.OrtValue] = {}
        self.reset()

    def reset(self) -> None:
        """Empty the memory bank."""
        objects = self.info.max_objects
        widths = (KEY_WIDTH, KEY_WIDTH, objects, objects, len(META))
        self._bank = {
            name: ort.OrtValue.ortvalue_from_numpy(np.zeros((1, self._slots, width), np.float32))
            for name, width in zip(BANK, widths, strict=True)
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
        names = (*HOST_OUTPUTS, *(f"new_{name}" for name in BANK))
        for name in names:
            binding.bind_output(name, "cpu")
        try:
            session.run_with_iobinding(binding)
        except Exception as error:  # onnxruntime raises several unrelated types of its own
            raise BackendError(
                f"ONNX Runtime failed on a frame of {inputs.image.shape[:2]}: {error}"
            ) from error
        outputs = dict(zip(names, binding.get_outputs(), strict=True))
        self._bank = {name: outputs[f"new_{name}"] for name in BANK}
        logits, presence, uncertainty, used = (outputs[name].numpy() for name in HOST_OUTPUTS)
        return StepOutputs(logits[0], presence[0], uncertainty[0, 0], int(used[0]))

    def end_profiling(self) -> Path:
        """Stop timing the step graph's nodes.

        Returns:
            The file of events, JSON.

        Raises:
            BackendError: the backend was opened without a profile.
        """
        if not self._profiled:
            raise BackendError("this backend records no profile; open it with BackendSettings(profile=...)")
        return Path(self._step.end_profiling())

    def keep(self) -> Callable[[], None]:
        """Remember the memory bank as it is; calling the result brings it back."""
        bank = self._bank  # every step makes a new one

        def restore() -> None:
            self._bank = bank

        return restore

    def bank(self) -> BankSnapshot:
        """Copy the memory bank to the host."""
        return BankSnapshot(*(self._bank[name].numpy()[0].copy() for name in BANK))
