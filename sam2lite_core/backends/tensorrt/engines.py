"""TensorRT engines on disk: built when they are missing or do not fit this machine any more, else loaded."""

import hashlib
import json
import logging
import os
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from sam2lite_core.backends.model_files import ENGINES, sha256
from sam2lite_core.backends.tensorrt.cuda import Gpu
from sam2lite_core.errors import SourceError
from sam2lite_core.files import write_atomically

MAGIC = b"SAM2LITE-ENGINE\n"
LAYOUT = 1
"""Raise when `export.tensorrt_rtx.build` builds otherwise from the same graph."""

log = logging.getLogger(__name__)

Build = Callable[[Path, bytes], tuple[bytes, bytes]]
"""Makes an engine and a new timing cache from a graph's file and the last timing cache."""


@dataclass(frozen=True)
class EngineKey:
    """Everything that an engine depends on; another value makes it stale.

    Attributes:
        graph, weights: SHA-256 of the files that it was built from.
        slots: rows S of the memory bank.
        ranges: of frame sizes and objects.
        module, version: the TensorRT that built it, and must load it.
        gpu, capability: the GPU's model and generation.
        layout: `LAYOUT` of this package.
    """

    graph: str
    weights: str
    slots: int
    ranges: dict[str, list[int]]
    module: str
    version: str
    gpu: str
    capability: str
    layout: int = LAYOUT


def engine_key(
    graph: Path, weights_sha256: str, slots: int, ranges: dict[str, tuple[int, int, int]], trt: Any, gpu: Gpu
) -> EngineKey:
    """The key of an engine for a graph on a GPU."""
    listed = {name: list(values) for name, values in ranges.items()}
    return EngineKey(
        sha256(graph), weights_sha256, slots, listed, trt.__name__, trt.__version__, gpu.name, gpu.capability
    )


def pack(key: EngineKey, engine: bytes) -> bytes:
    """An engine's file: what it is for, then the engine, with the engine's hash."""
    header = json.dumps({**asdict(key), "sha256": hashlib.sha256(engine).hexdigest()}).encode()
    return MAGIC + len(header).to_bytes(4, "little") + header + engine


def unpack(content: bytes, key: EngineKey) -> tuple[bytes | None, str]:
    """An engine from its file, if it may be used.

    Returns:
        The engine and "", or None and why it is stale: foreign engines crash the runtime instead of failing.
    """
    start = len(MAGIC) + 4
    length = int.from_bytes(content[len(MAGIC) : start], "little")
    try:
        if content[: len(MAGIC)] != MAGIC:
            raise ValueError("not an engine's file")
        header: dict[str, Any] = json.loads(content[start : start + length])
        digest = header.pop("sha256")
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        return None, f"it is damaged ({error})"
    wanted = asdict(key)
    changed = sorted(name for name in wanted if header.get(name) != wanted[name])
    if changed:
        return None, "; ".join(f"{name} was {header.get(name)}, is {wanted[name]}" for name in changed)
    engine = content[start + length :]
    if hashlib.sha256(engine).hexdigest() != digest:
        return None, "it is cut short or damaged"
    return engine, ""


def engine_folder(model: Path, weights_sha256: str) -> Path:
    """Return the folder of engines: beside the model, or in the user's cache where that cannot be written."""
    beside = model / ENGINES
    if os.access(beside if beside.is_dir() else model, os.W_OK):
        return beside
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return cache / "sam2lite" / ENGINES / weights_sha256[:16]


def load_or_build(graph: Path, key: EngineKey, folder: Path, build: Build) -> bytes:
    """Load the stored engine of a graph if it fits the key, else build one and store it in the folder.

    Raises:
        BackendError, ModelFileError: the build failed.
        SourceError: the folder cannot be made.
    """
    path = folder / f"{graph.stem}-{key.slots}-{key.capability}-{key.module}.engine"
    timing = folder / f"timing-{key.module}-{key.version}-{key.capability}.cache"
    if path.is_file():
        engine, reason = unpack(path.read_bytes(), key)
        if engine is not None:
            return engine
        log.warning("%s is built again: %s", path, reason)
    else:
        log.warning("building %s, which takes seconds to minutes, once", path)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise SourceError(f"{folder}: cannot be made: {error.strerror}") from None
    engine, timings = build(graph, timing.read_bytes() if timing.is_file() else b"")
    write_atomically(path, pack(key, engine))
    write_atomically(timing, timings)
    return engine
