"""Build TensorRT for RTX engines from the exported graphs (experimental). Building needs the package, but no GPU.

pip install tensorrt_rtx_cu13_bindings tensorrt_rtx_cu13_libs
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sam2lite_core.errors import BackendError, ModelFileError
from sam2lite_core.variants import PATCH

CAPABILITIES = ("SM75", "SM80", "SM86", "SM89", "SM120")
"""GPU generations that engines can be built for: Turing, A100, Ampere, Ada (RTX 40) and Blackwell (RTX 50)."""

# Smallest, usual and largest size of everything that may vary. 30 x 54 patches are a 480x854 frame at scale 1.
RANGES = {
    "rows": (8, 30, 64),
    "columns": (8, 54, 64),
    "token_rows": (4, 15, 32),
    "token_columns": (4, 27, 32),
    "objects": (1, 1, 16),
}

# How each input depends on them, axis by axis: a number, or a name and its factor. Others have fixed shapes.
FINE = PATCH // 4
AXES: dict[str, tuple[int | tuple[str, int], ...]] = {
    "image": (1, ("rows", PATCH), ("columns", PATCH), 3),
    "motion": (1, 1, ("rows", 1), ("columns", 1)),
    "warped": (1, ("objects", 1), ("rows", FINE), ("columns", FINE)),
    "slots": (1, ("objects", 1), -1),
    "token_rows": (1, ("token_rows", 1), ("rows", 1)),
    "token_columns": (1, ("token_columns", 1), ("columns", 1)),
    "prompts": (1, ("objects", 1), 3, ("rows", FINE), ("columns", FINE)),
    "masks": (1, ("objects", 1), ("rows", FINE), ("columns", FINE)),
    "mask_given": (1, ("objects", 1)),
    "prompted": (1, ("objects", 1)),
}

MODULES = ("tensorrt", "tensorrt_rtx_bindings")
"""TensorRT, and TensorRT for RTX with the same API, in the order in which they are taken."""


def build_engine(path: Path, capacity: int, capabilities: Sequence[str]) -> bytes:
    """Build a serialized engine with TensorRT for RTX for GPUs of `capabilities`, which need not be here.

    Raises:
        BackendError: the package is not installed, a capability does not exist, or the build failed.
        ModelFileError: the file cannot be parsed.
    """
    try:
        import tensorrt_rtx_bindings as trt
    except ImportError as error:
        raise BackendError(
            "TensorRT for RTX is not installed: pip install tensorrt_rtx_cu13_bindings tensorrt_rtx_cu13_libs"
        ) from error
    unknown = [name for name in capabilities if name not in CAPABILITIES]
    if unknown or not capabilities:
        raise BackendError(f"no GPU generation {', '.join(unknown) or 'given'}; choose among {', '.join(CAPABILITIES)}")
    return build(trt, path, capacity, capabilities)[0]


def build(
    trt: Any, path: Path, capacity: int, capabilities: Sequence[str] = (), timings: bytes = b""
) -> tuple[bytes, bytes]:
    """Build an engine from step.onnx or prompt.onnx; return the serialized engine and the timing cache to keep.

    Frame size and object count stay dynamic within `RANGES`; the bank's size is fixed, so that top-B has a static k.
    The graph sets every layer's precision: flags would lower memory's arithmetic too, which fp16 cannot hold.

    Args:
        trt: one of `MODULES`, imported.
        path: the ONNX file; its weights file lies beside it.
        capacity: rows S of the memory bank.
        capabilities: GPU generations, for TensorRT for RTX only; none for the GPU that is here.
        timings: an earlier build's timing cache, which makes this one faster.

    Raises:
        BackendError, ModelFileError: the build failed, or the file cannot be parsed.
    """
    builder = trt.Builder(trt.Logger(trt.Logger.ERROR))
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(network, trt.Logger(trt.Logger.ERROR))
    if not parser.parse_from_file(str(path)):
        errors = "; ".join(parser.get_error(i).desc() for i in range(parser.num_errors))
        raise ModelFileError(f"{path} cannot be parsed by {trt.__name__} {trt.__version__}: {errors}")
    config = builder.create_builder_config()
    config.clear_flag(trt.BuilderFlag.TF32)  # fp32 was asked for; who wants speed takes fp16
    config.add_optimization_profile(_profile(builder.create_optimization_profile(), network, capacity))
    cache = config.create_timing_cache(timings)
    config.set_timing_cache(cache, False)
    if capabilities:
        config.num_compute_capabilities = len(capabilities)
    for index, name in enumerate(capabilities):
        config.set_compute_capability(getattr(trt.ComputeCapability, name), index)
    engine = builder.build_serialized_network(network, config)
    if engine is None:
        raise BackendError(f"{trt.__name__} {trt.__version__} could not build an engine from {path}")
    return bytes(engine), bytes(cache.serialize())


def _profile(profile: Any, network: Any, capacity: int) -> Any:
    """Give every dynamic input its range of shapes; the bank's inputs get their one shape in the network itself."""
    for index in range(network.num_inputs):
        tensor = network.get_input(index)
        shape = tuple(tensor.shape)
        if tensor.name.startswith("bank_"):
            tensor.shape = (shape[0], capacity, shape[2])
        elif tensor.name in AXES:
            profile.set_shape(tensor.name, *(_shape(AXES[tensor.name], shape, size) for size in range(3)))
    return profile


def _shape(axes: tuple[int | tuple[str, int], ...], declared: tuple[int, ...], size: int) -> tuple[int, ...]:
    """One of an input's three shapes; -1 among the axes keeps what the file declares."""
    return tuple(
        RANGES[axis[0]][size] * axis[1] if isinstance(axis, tuple) else (given if axis == -1 else axis)
        for axis, given in zip(axes, declared, strict=True)
    )
