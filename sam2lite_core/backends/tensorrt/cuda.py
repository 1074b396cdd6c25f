"""The few CUDA calls that the TensorRT backend makes, with checked results."""

import ctypes
import importlib
import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sam2lite_core.errors import BackendError

PACKAGE = "cuda.bindings"


@dataclass(frozen=True)
class Gpu:
    """One GPU.

    Attributes:
        index: as CUDA counts.
        name: its model.
        capability: its generation, as in SM87.
    """

    index: int
    name: str
    capability: str


def installed() -> bool:
    """Return True if the CUDA bindings are installed; nothing is loaded."""
    return importlib.util.find_spec("cuda") is not None and importlib.util.find_spec(PACKAGE) is not None


def count_gpus() -> int:
    """Count the GPUs that CUDA sees; 0 without the bindings or a driver."""
    if not installed():
        return 0
    error, count = importlib.import_module(f"{PACKAGE}.runtime").cudaGetDeviceCount()
    return int(count) if int(error) == 0 else 0


class Cuda:
    """One GPU with one stream; everything is queued on that stream in the order of the calls."""

    def __init__(self, index: int = 0) -> None:
        """Choose a GPU and make a stream.

        Raises:
            BackendError: no bindings, or no GPU of that index.
        """
        if not installed():
            raise BackendError("backend tensorrt needs the package cuda-bindings: pip install cuda-bindings")
        self._api: Any = importlib.import_module(f"{PACKAGE}.runtime")
        if index >= count_gpus():
            raise BackendError(f"device 'cuda:{index}' is not there: CUDA sees {count_gpus()} GPUs")
        self._index = index
        self.activate()
        properties = self._call("cudaGetDeviceProperties", index)
        name = properties.name.decode() if isinstance(properties.name, bytes) else str(properties.name)
        self.gpu = Gpu(index, name.rstrip("\0"), f"SM{properties.major}{properties.minor}")
        self._stream = self._call("cudaStreamCreateWithFlags", self._api.cudaStreamNonBlocking)

    @property
    def stream(self) -> int:
        """The stream's handle."""
        return int(self._stream)

    def activate(self) -> None:
        """Make this GPU the calling thread's; CUDA remembers it for each thread apart."""
        self._call("cudaSetDevice", self._index)

    def allocate(self, size: int) -> int:
        """Device memory of that many bytes, zeroed; its address. It lives as long as the process uses the backend."""
        address = int(self._call("cudaMalloc", max(size, 1)))
        self._call("cudaMemsetAsync", address, 0, max(size, 1), self._stream)
        return address

    def pinned(self, size: int) -> NDArray[np.uint8]:
        """Page-locked host memory (size,), which the GPU copies from and to without a detour."""
        address = int(self._call("cudaMallocHost", max(size, 1)))
        return np.ctypeslib.as_array((ctypes.c_uint8 * max(size, 1)).from_address(address))

    def free(self, address: int) -> None:
        """Give device memory back."""
        self._call("cudaFree", address)

    def zero(self, address: int, size: int) -> None:
        """Queue clearing device memory."""
        self._call("cudaMemsetAsync", address, 0, size, self._stream)

    def upload(self, address: int, host: NDArray[np.uint8]) -> None:
        """Queue a copy to the device."""
        kind = self._api.cudaMemcpyKind.cudaMemcpyHostToDevice
        self._call("cudaMemcpyAsync", address, host.ctypes.data, host.nbytes, kind, self._stream)

    def download(self, host: NDArray[np.uint8], address: int) -> None:
        """Queue a copy to the host."""
        kind = self._api.cudaMemcpyKind.cudaMemcpyDeviceToHost
        self._call("cudaMemcpyAsync", host.ctypes.data, address, host.nbytes, kind, self._stream)

    def copy(self, target: int, source: int, size: int) -> None:
        """Queue a copy on the device."""
        kind = self._api.cudaMemcpyKind.cudaMemcpyDeviceToDevice
        self._call("cudaMemcpyAsync", target, source, size, kind, self._stream)

    def wait(self) -> None:
        """Wait until everything that was queued is done."""
        self._call("cudaStreamSynchronize", self._stream)

    def capture(self, work: Callable[[], None]) -> Callable[[], None]:
        """Record what `work` queues as a CUDA graph, without running it; the result queues all of it in one call."""
        mode = self._api.cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal
        self._call("cudaStreamBeginCapture", self._stream, mode)
        try:
            work()
        finally:
            # A stream that stays in capture would refuse everything after it.
            graph = self._call("cudaStreamEndCapture", self._stream)
        ready = self._call("cudaGraphInstantiate", graph, 0)
        return lambda: self._call("cudaGraphLaunch", ready, self._stream)

    def _call(self, name: str, *arguments: Any) -> Any:
        error, *values = getattr(self._api, name)(*arguments)
        if int(error) != 0:
            raise BackendError(f"CUDA's {name} failed on GPU: {error!r}")
        return values[0] if values else None
