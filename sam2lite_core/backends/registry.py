"""Backends by name."""

import importlib
import importlib.util
from dataclasses import dataclass
from typing import Any

from sam2lite_core.backends.base import Backend, BackendSettings
from sam2lite_core.backends.foreign import FrameBackend
from sam2lite_core.errors import BackendError


@dataclass(frozen=True)
class BackendEntry:
    """A backend that can be chosen. Its module is imported only then, so that no unused runtime is loaded.

    Attributes:
        module, class_name: of the backend.
        packages: that it needs; of names joined by " or " one will do.
        foreign: it runs a foreign model (`backends.foreign`); `auto` never takes it.
        experimental: no hardware has run it yet.
    """

    module: str
    class_name: str
    packages: tuple[str, ...]
    foreign: bool = False
    experimental: bool = False

    def missing(self) -> list[str]:
        """List the packages that are not installed."""
        return [package for package in self.packages if not _installed(package)]


REGISTRY = {
    "tensorrt": BackendEntry(
        "sam2lite_core.backends.tensorrt.backend",
        "TensorRtBackend",
        ("tensorrt or tensorrt_rtx_bindings",),
        experimental=True,
    ),
    "onnxruntime": BackendEntry("sam2lite_core.backends.onnxruntime", "OnnxRuntimeBackend", ("onnxruntime",)),
    "torch": BackendEntry("sam2lite_core.backends.torch", "TorchBackend", ("torch",)),
    "transformers": BackendEntry(
        "sam2lite_core.backends.transformers.backend", "TransformersBackend", ("torch", "transformers"), foreign=True
    ),
}
"""Backends by name, in the order in which `auto` prefers them."""

BACKENDS = tuple(name for name, entry in REGISTRY.items() if not entry.foreign)
"""Names of the backends that run the student."""

FRAME_BACKENDS = tuple(name for name, entry in REGISTRY.items() if entry.foreign)
"""Names of the backends that run a foreign model. The extra that installs the packages has the backend's name."""


def installed_backends() -> tuple[str, ...]:
    """List the names of `BACKENDS` that can run here, in the order in which `auto` prefers them."""
    return tuple(name for name in BACKENDS if not REGISTRY[name].missing() and _usable(name))


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
            packages = ", ".join(REGISTRY[known].packages[0] for known in BACKENDS)
            raise BackendError(f"no backend is installed; install one of {packages}")
    if name not in BACKENDS:
        raise BackendError(f"unknown backend {name!r}; choose one of auto, {', '.join(REGISTRY)}")
    if missing := REGISTRY[name].missing():
        raise BackendError(f"backend {name} needs the package {missing[0]}, which is not installed")
    backend: Backend = _load(name)(settings)
    return backend


def open_frame_backend(name: str, settings: BackendSettings) -> FrameBackend:
    """Open a foreign model.

    Args:
        name: one of `FRAME_BACKENDS`.
        settings: what to open and how; `capacity` and `profile` have no meaning here.

    Raises:
        BackendError: a backend whose packages are not installed.
        ModelFileError: the model cannot be loaded.
    """
    check_frame_backend(name)
    backend: FrameBackend = _load(name)(settings)
    return backend


def check_frame_backend(name: str) -> None:
    """Check that a foreign model's packages are installed.

    Raises:
        BackendError: they are not.
    """
    if missing := REGISTRY[name].missing():
        raise BackendError(f"backend {name} needs {' and '.join(missing)}: python -m pip install 'sam2lite[{name}]'")


def _load(name: str) -> Any:
    return getattr(importlib.import_module(REGISTRY[name].module), REGISTRY[name].class_name)


def _usable(name: str) -> bool:
    """Check that an installed backend finds what it cannot do without."""
    if name != "tensorrt":
        return True
    from sam2lite_core.backends.tensorrt.cuda import count_gpus

    return count_gpus() > 0


def _installed(packages: str) -> bool:
    return any(importlib.util.find_spec(package) is not None for package in packages.split(" or "))
