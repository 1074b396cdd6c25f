"""Run TensorRT or TensorRT for RTX engines (experimental: no GPU has run this code). State never leaves the GPU.

The bank lives twice: a step reads one and writes the other. The work of a frame is recorded once for each frame size as
a CUDA graph; frames with prompts are queued call by call.
"""

import importlib
import importlib.util
import weakref
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sam2lite_core.backends.base import BackendSettings
from sam2lite_core.backends.model_files import PROMPT_FILE, STEP_FILE, WEIGHTS_FILE, read_weights_info
from sam2lite_core.backends.tensorrt.build import MODULES, RANGES, build
from sam2lite_core.backends.tensorrt.cuda import Cuda, count_gpus
from sam2lite_core.backends.tensorrt.engines import engine_folder, engine_key, load_or_build
from sam2lite_core.errors import BackendError
from sam2lite_core.graph_io import HOST_OUTPUTS, BankSnapshot, StepInputs, StepOutputs, graph_arrays

BANK = "bank_"
NEW = "new_"
MOST_RECORDED = 16
"""CUDA graphs that are kept, two for each frame size and number of objects; each holds an execution context."""


def find_module() -> str | None:
    """Find the first of `MODULES` that is installed; nothing is loaded."""
    return next((name for name in MODULES if importlib.util.find_spec(name) is not None), None)


def available() -> bool:
    """Return True if this machine has TensorRT and a GPU."""
    return find_module() is not None and count_gpus() > 0


@dataclass
class _Tensor:
    """One input or output: its type, and where it lies on the device and in pinned host memory."""

    dtype: Any
    address: int
    host: NDArray[np.uint8] | None = None


@dataclass
class _Program:
    """One loaded engine with its buffers; every buffer has room for the largest frame, so that none ever moves."""

    engine: Any
    inputs: dict[str, _Tensor]
    outputs: dict[str, _Tensor]
    recorded: dict[Any, tuple[Any, Callable[[], None]]] = field(default_factory=dict)
    seen: set[Any] = field(default_factory=set)
    context: Any = None


class TensorRtBackend:
    """Runs both graphs as TensorRT engines on one GPU; experimental, since no hardware has run it."""

    name = "tensorrt"

    def __init__(self, settings: BackendSettings, trt: Any = None, cuda: Any = None) -> None:
        """Load the engines, which are built first where none fits this GPU and this TensorRT.

        Args:
            settings: precision is the model's own; device is auto, cuda or cuda:N.
            trt: a module to use in place of the one that is installed.
            cuda: a device to use in place of the one that the settings name.

        Raises:
            ModelFileError: a file is missing, not ours, or cannot be parsed.
            BackendError: no TensorRT, no such GPU, or another precision than the model's.
        """
        module = find_module()
        if trt is None and module is None:
            raise BackendError(f"backend tensorrt needs one of the packages {' or '.join(MODULES)}")
        self.info = read_weights_info(settings.folder / WEIGHTS_FILE)
        if settings.precision not in ("auto", self.info.precision):
            raise BackendError(
                f"{settings.folder} holds {self.info.precision} graphs, not {settings.precision!r}; choose auto, or "
                f"export the model: sam2lite export --format tensorrt --precision {settings.precision}"
            )
        index = device_index(settings.device)
        self._trt = trt or importlib.import_module(str(module))
        self._cuda = cuda or Cuda(index)
        self._capacity = settings.capacity
        self._runtime = self._trt.Runtime(self._trt.Logger(self._trt.Logger.ERROR))
        step, prompt = (self._load(settings.folder / name) for name in (STEP_FILE, PROMPT_FILE))
        names = [name for name in _names(self._trt, step, "INPUT") if name.startswith(BANK)]
        shapes = {name: tuple(step.get_tensor_shape(name)) for name in names}
        self._shapes = {name: (1, self._capacity, shape[2]) for name, shape in shapes.items()}
        self._sizes = {name: int(np.prod(shape)) * 4 for name, shape in self._shapes.items()}
        self._banks = [{name: self._cuda.allocate(size) for name, size in self._sizes.items()} for _ in range(2)]
        self._current = 0
        self._step, self._prompt = self._program(step), self._program(prompt)
        self.reset()

    def _load(self, graph: Path) -> Any:
        """Load or build a graph's engine."""
        weights = self.info.weights_sha256
        key = engine_key(graph, weights, self._capacity, RANGES, self._trt, self._cuda.gpu)

        def fresh(path: Path, timings: bytes) -> tuple[bytes, bytes]:
            return build(self._trt, path, self._capacity, timings=timings)

        data = load_or_build(graph, key, engine_folder(graph.parent, weights), fresh)
        engine = self._runtime.deserialize_cuda_engine(data)
        if engine is None:
            raise BackendError(
                f"{self._trt.__name__} {self._trt.__version__} cannot load its engine of {graph}; "
                f"remove {engine_folder(graph.parent, weights)} to have it built again"
            )
        return engine

    def _program(self, engine: Any) -> _Program:
        """Give an engine its buffers, as large as its profile and its outputs can become."""
        context = engine.create_execution_context()
        context.set_optimization_profile_async(0, self._cuda.stream)
        inputs, outputs = {}, {}
        for name in _names(self._trt, engine, "INPUT"):
            largest = tuple(engine.get_tensor_profile_shape(name, 0)[2])
            context.set_input_shape(name, largest)
            if not name.startswith(BANK):
                inputs[name] = self._tensor(engine, name, largest, True)
        context.infer_shapes()
        for name in _names(self._trt, engine, "OUTPUT"):
            if not name.startswith(NEW):
                outputs[name] = self._tensor(engine, name, tuple(context.get_tensor_shape(name)), name in HOST_OUTPUTS)
        return _Program(engine, inputs, outputs, context=context)

    def _tensor(self, engine: Any, name: str, shape: tuple[int, ...], host: bool) -> _Tensor:
        dtype = np.dtype(self._trt.nptype(engine.get_tensor_dtype(name)))
        size = int(np.prod(shape)) * dtype.itemsize
        return _Tensor(dtype, self._cuda.allocate(size), self._cuda.pinned(size) if host else None)

    def reset(self) -> None:
        """Empty the memory bank."""
        self._cuda.activate()
        for name, size in self._sizes.items():
            self._cuda.zero(self._banks[self._current][name], size)

    def step(self, inputs: StepInputs) -> StepOutputs:
        """Run one frame and update the bank, which stays on the device.

        Raises:
            BackendError: a frame or a number of objects that the engines were not built for, or TensorRT or CUDA
                failed; the bank is as before the step.
        """
        program = self._step if inputs.prompt is None else self._prompt
        arrays = graph_arrays(inputs, self.info.max_objects)
        shapes = {name: array.shape for name, array in arrays.items()}
        for name, shape in shapes.items():
            low, _, high = program.engine.get_tensor_profile_shape(name, 0)
            if any(not a <= n <= b for a, n, b in zip(low, shape, high, strict=True)):
                raise BackendError(
                    f"input {name} of shape {shape} is outside {tuple(low)} to {tuple(high)}, which the engine was "
                    "built for; choose another scale, or fewer objects"
                )
        self._cuda.activate()
        for name, array in arrays.items():
            _view(program.inputs[name], array.shape)[...] = array
        found = self._run(program, shapes, record=inputs.prompt is None)
        self._cuda.wait()
        self._current = 1 - self._current
        logits, presence, used = (_view(program.outputs[name], found[name]).copy() for name in HOST_OUTPUTS)
        return StepOutputs(logits[0], presence[0], int(used[0]))

    def _run(self, program: _Program, shapes: dict[str, tuple[int, ...]], record: bool) -> dict[str, tuple[int, ...]]:
        """Queue a frame; the second one of a kind is recorded, later ones are replayed. Returns the outputs' shapes."""
        kind = (tuple(sorted(shapes.items())), self._current)
        if kind in program.recorded:
            context, replay = program.recorded[kind]
            replay()
            return _output_shapes(context, program)
        # The first run of a size may allocate and choose kernels, which a recording must not hold.
        recording = record and kind in program.seen and len(program.recorded) < MOST_RECORDED
        context = program.engine.create_execution_context() if recording else program.context
        if recording:
            context.set_optimization_profile_async(0, self._cuda.stream)
        self._bind(context, program, shapes)
        found = _output_shapes(context, program)
        program.seen.add(kind)
        if recording:
            self._queue(context, program, shapes, found)  # this frame, and what the new context sets up
            self._cuda.wait()
            if getattr(context, "is_stream_capturable", lambda _: True)(self._cuda.stream):
                replay = self._cuda.capture(lambda: self._queue(context, program, shapes, found))
                program.recorded[kind] = context, replay
        else:
            self._queue(context, program, shapes, found)
        return found

    def _bind(self, context: Any, program: _Program, shapes: dict[str, tuple[int, ...]]) -> None:
        """Tell a context the frame's shapes and where everything lies."""
        for name, shape in (shapes | self._shapes).items():
            if not context.set_input_shape(name, shape):
                raise BackendError(f"TensorRT refuses shape {shape} of input {name}")
        for name, tensor in (program.inputs | program.outputs).items():
            context.set_tensor_address(name, tensor.address)
        for name in self._shapes:
            context.set_tensor_address(name, self._banks[self._current][name])
            context.set_tensor_address(NEW + name, self._banks[1 - self._current][name])

    def _queue(
        self, context: Any, program: _Program, shapes: dict[str, tuple[int, ...]], found: dict[str, tuple[int, ...]]
    ) -> None:
        """Queue one frame's work on the stream."""
        for name, shape in shapes.items():
            tensor = program.inputs[name]
            self._cuda.upload(tensor.address, _bytes(tensor, shape))
        if not context.execute_async_v3(self._cuda.stream):
            raise BackendError("TensorRT could not run the graph; its log says why")
        for name in HOST_OUTPUTS:
            tensor = program.outputs[name]
            self._cuda.download(_bytes(tensor, found[name]), tensor.address)

    def keep(self) -> Callable[[], None]:
        """Remember the memory bank as it is; calling the result brings it back."""
        self._cuda.activate()
        copies = {name: self._cuda.allocate(size) for name, size in self._sizes.items()}
        for name, size in self._sizes.items():
            self._cuda.copy(copies[name], self._banks[self._current][name], size)

        def restore() -> None:
            for name, size in self._sizes.items():
                self._cuda.copy(self._banks[self._current][name], copies[name], size)

        def release(cuda: Any) -> None:
            cuda.wait()
            for address in copies.values():
                cuda.free(address)

        weakref.finalize(restore, release, self._cuda)
        return restore

    def bank(self) -> BankSnapshot:
        """Copy the memory bank to the host."""
        self._cuda.activate()
        hosts = {name: np.zeros(size, np.uint8) for name, size in self._sizes.items()}
        for name, host in hosts.items():
            self._cuda.download(host, self._banks[self._current][name])
        self._cuda.wait()
        arrays = {
            name.removeprefix(BANK): host.view(np.float32).reshape(self._shapes[name])[0]
            for name, host in hosts.items()
        }
        return BankSnapshot(**arrays)


def device_index(device: str) -> int:
    """The GPU's index of a device's name.

    Raises:
        BackendError: not auto, cuda or cuda:N.
    """
    if device in ("auto", "cuda"):
        return 0
    kind, _, index = device.partition(":")
    if kind != "cuda" or not index.isdecimal():
        raise BackendError(f"backend tensorrt has no device {device!r}; choose auto, cuda or cuda:N")
    return int(index)


def _names(trt: Any, engine: Any, mode: str) -> list[str]:
    """An engine's inputs or outputs."""
    every = [engine.get_tensor_name(index) for index in range(engine.num_io_tensors)]
    return [name for name in every if engine.get_tensor_mode(name) == getattr(trt.TensorIOMode, mode)]


def _output_shapes(context: Any, program: _Program) -> dict[str, tuple[int, ...]]:
    return {name: tuple(context.get_tensor_shape(name)) for name in program.outputs}


def _bytes(tensor: _Tensor, shape: tuple[int, ...]) -> NDArray[np.uint8]:
    """The part of a tensor's pinned memory that a shape takes."""
    assert tensor.host is not None
    return tensor.host[: int(np.prod(shape)) * tensor.dtype.itemsize]


def _view(tensor: _Tensor, shape: tuple[int, ...]) -> NDArray[Any]:
    """A tensor's pinned memory as an array of that shape."""
    array: NDArray[Any] = _bytes(tensor, shape).view(tensor.dtype).reshape(shape)
    return array
