"""Backends by name."""

import importlib
import importlib.util

from sam2lite_core.backends.base import Backend, BackendSettings
from sam2lite_core.backends.foreign import FrameBackend
from sam2lite_core.errors import BackendError

BACKENDS = {
    "tensorrt": ("sam2lite_core.backends.tensorrt.backend", "TensorRtBackend", "tensorrt or tensorrt_rtx_bindings"),
    "onnxruntime": ("sam2lite_core.backends.onnxruntime", "OnnxRuntimeBackend", "onnxruntime"),
    "torch": ("sam2lite_core.backends.torch", "TorchBackend", "torch"),
}
"""Name -> (module, class, package that it needs, or packages of which one will do), in the order in which `auto`
prefers them. Modules are imported only when chosen, so that no runtime is loaded that nobody uses."""

FRAME_BACKENDS = {
    "transformers": ("sam2lite_core.backends.transformers.backend", "TransformersBackend", ("torch", "transformers"))
}
"""Name -> (module, class, packages) of those that run a foreign model (`backends.frames`); `auto` never takes them. The
extra that installs the packages has the backend's name."""


def installed_backends() -> tuple[str, ...]:
    """Names of `BACKENDS` that can run here, in the order in which `auto` prefers them."""
    return tuple(name for name, (_, _, package) in BACKENDS.items() if _installed(package) and _usable(name))


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
        name = next(iter(installed_backends()), "")
        if not name:
            raise BackendError(
                f"no backend is installed; install one of {', '.join(p for _, _, p in BACKENDS.values())}"
            )
    if name not in BACKENDS:
        raise BackendError(f"unknown backend {name!r}; choose one of auto, {', '.join((*BACKENDS, *FRAME_BACKENDS))}")
    module, class_name, package = BACKENDS[name]
    if not _installed(package):
        raise BackendError(f"backend {name} needs the package {package}, which is not installed")
    backend: Backend = getattr(importlib.import_module(module), class_name)(settings)
    return backend


def open_frame_backend(name: str, settings: BackendSettings) -> FrameBackend:
    """Open a foreign model.

    Args:
        name: one of `FRAME_BACKENDS`.
        settings: what to open and how; `slots` and `profile` have no meaning here.

    Raises:
        BackendError: a backend whose packages are not installed.
        ModelFileError: the model cannot be loaded.
    """
    check_frame_backend(name)
    module, class_name, _ = FRAME_BACKENDS[name]
    backend: FrameBackend = getattr(importlib.import_module(module), class_name)(settings)
    return backend


def check_frame_backend(name: str) -> None:
    """Make sure that a foreign model's packages are installed.

    Raises:
        BackendError: they are not.
    """
    missing = [package for package in FRAME_BACKENDS[name][2] if not _installed(package)]
    if missing:
        raise BackendError(f"backend {name} needs {' and '.join(missing)}: python -m pip install 'sam2lite[{name}]'")


def _usable(name: str) -> bool:
    """Whether an installed backend finds what it cannot do without."""
    if name != "tensorrt":
        return True
    from sam2lite_core.backends.tensorrt.cuda import count_gpus

    return count_gpus() > 0


def _installed(packages: str) -> bool:
    return any(importlib.util.find_spec(package) is not None for package in packages.split(" or "))
