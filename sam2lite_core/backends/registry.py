"""Backends by name."""

import importlib
import importlib.util

from sam2lite_core.backends.base import Backend, BackendSettings
from sam2lite_core.errors import BackendError

BACKENDS = {
    "tensorrt": ("sam2lite_core.backends.tensorrt", "TensorRtBackend", "tensorrt or tensorrt_rtx_bindings"),
    "onnxruntime": ("sam2lite_core.backends.onnxruntime", "OnnxRuntimeBackend", "onnxruntime"),
    "torch": ("sam2lite_core.backends.torch", "TorchBackend", "torch"),
}
"""Name -> (module, class, package that it needs, or packages of which one will do), in the order in which `auto`
prefers them. Modules are imported only when chosen, so that no runtime is loaded that nobody uses."""


def open_backend(name: str, settings: BackendSettings) -> Backend:
    """Open a model with a backend.

    Args:
        name: one of `BACKENDS`, or "auto" for the first whose package is installed; tensorrt only where there is a GPU.
        settings: what to open and how.

    Raises:
        BackendError: an unknown name, or a backend whose package is not installed.
        ModelFileError: the model cannot be loaded.
    """
    if name == "auto":
        name = next((key for key in BACKENDS if _usable(key)), "")
        if not name:
            raise BackendError(
                f"no backend is installed; install one of {', '.join(p for _, _, p in BACKENDS.values())}"
            )
    if name not in BACKENDS:
        raise BackendError(f"unknown backend {name!r}; choose one of auto, {', '.join(BACKENDS)}")
    module, class_name, package = BACKENDS[name]
    if not _installed(package):
        raise BackendError(f"backend {name} needs the package {package}, which is not installed")
    backend: Backend = getattr(importlib.import_module(module), class_name)(settings)
    return backend


def _usable(name: str) -> bool:
    """Whether `auto` may take a backend: its package is installed, and what that cannot do without is there."""
    if not _installed(BACKENDS[name][2]):
        return False
    if name != "tensorrt":
        return True
    from sam2lite_core.backends.cuda import count_gpus

    return count_gpus() > 0


def _installed(packages: str) -> bool:
    return any(importlib.util.find_spec(package) is not None for package in packages.split(" or "))
