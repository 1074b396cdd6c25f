"""Time the parts of a step: `sam2lite bench parts`.

ONNX Runtime times every node itself; the exporter put the student's part before each node's name.
"""

import json
import tempfile
import time
from collections import defaultdict
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sam2lite_core.backends.base import BackendSettings
from sam2lite_core.backends.model_files import find_model
from sam2lite_core.backends.onnxruntime import OnnxRuntimeBackend
from sam2lite_core.bench.tables import table
from sam2lite_core.frame.resolution import BASE_SHORT_SIDE, REFERENCE_SOURCE, network_size, token_pool
from sam2lite_core.graph_io import PromptInputs, StepInputs
from sam2lite_core.variants import PATCH, get_variant

KERNEL = "_kernel_time"
"""Ending of the profiler's events of a node at work."""

PRODUCT_SIDE = 1024
"""Side of the square matrices whose product says what the processor can do."""


def step_inputs(scale: float, budget: int, max_objects: int, rng: np.random.Generator) -> StepInputs:
    """Make the inputs of a frame of the reference size with one object."""
    height, width = network_size(*REFERENCE_SOURCE, scale, BASE_SHORT_SIDE)
    rows, columns = height // PATCH, width // PATCH
    active = np.zeros(max_objects, np.float32)
    active[0] = 1.0
    return StepInputs(
        image=rng.integers(0, 256, (height, width, 3), np.uint8),
        motion=np.zeros((rows, columns), np.float32),
        warped=np.zeros((1, 4 * rows, 4 * columns), np.float32),
        slots=(0,),
        active=active,
        window=8,
        budget=budget,
        frame=0,
        policy="fifo",
        presence_threshold=0.0,
        token_pool=token_pool(*REFERENCE_SOURCE, (height, width), BASE_SHORT_SIDE),
    )


def shown(inputs: StepInputs) -> PromptInputs:
    """Make the prompt of the first frame: a mask in the middle."""
    shape = inputs.warped.shape
    masks = np.zeros(shape, np.float32)
    masks[:, shape[1] // 4 : -shape[1] // 4, shape[2] // 4 : -shape[2] // 4] = 1.0
    one = np.ones(1, np.float32)
    return PromptInputs(np.zeros((1, 3, *shape[1:]), np.float32), masks, one, one)


def parts_of(events: list[dict[str, Any]], steps: int) -> dict[str, float]:
    """Sum up the milliseconds of each part: the medians of its nodes' times over the steps of a profile.

    Args:
        events: as ONNX Runtime writes them, of so many steps.

    Returns:
        By part, the slowest first. Nodes without a name reorder tensors, and count as "layout".
    """
    nodes: dict[str, list[float]] = defaultdict(list)
    for event in events:
        name = str(event.get("name", ""))
        if event.get("cat") == "Node" and name.endswith(KERNEL):
            nodes[name.removesuffix(KERNEL)].append(float(event["dur"]) / 1e3)
    parts: dict[str, float] = defaultdict(float)
    for name, times in nodes.items():
        part = name.split("/")[0] if "/" in name else "layout"
        # A name that several nodes share has several times a step.
        parts[part] += float(np.median(times)) * len(times) / steps
    return dict(sorted(parts.items(), key=lambda item: -item[1]))


def profile_parts(
    variant: str = "tiny", scale: float = 0.5, threads: int | None = None, model: str | None = None, steps: int = 40
) -> dict[str, Any]:
    """Time the parts of the step graph, the whole graph without the profiler, and a large matrix product in NumPy.

    Returns:
        `graph_ms` (median over the steps), `parts_ms`, `gflop` of a frame of 480x854 px, the `gflop_per_s` that the
        graph reaches, and the `product_gflop_per_s` of the float32 product.

    Raises:
        ModelFileError: no such model.
    """
    folder = find_model(get_variant(variant), model)
    rng = np.random.default_rng(0)
    times = []
    with tempfile.TemporaryDirectory() as work:
        settings = BackendSettings(folder, get_variant(variant).memory_budget, threads=threads)
        plain = OnnxRuntimeBackend(settings)
        traced = OnnxRuntimeBackend(replace(settings, profile=Path(work) / "step"))
        inputs = step_inputs(scale, settings.capacity, plain.info.max_objects, rng)
        first = replace(inputs, prompt=shown(inputs))
        for backend in (plain, traced):
            backend.step(first)
        for _ in range(steps):
            traced.step(inputs)
        for _ in range(steps):
            start = time.perf_counter()
            plain.step(inputs)
            times.append((time.perf_counter() - start) * 1e3)
        events = json.loads(Path(traced.end_profiling()).read_text())
    graph_ms = float(np.median(times))
    flops = plain.info.flops_per_frame.get(f"{scale:g}")
    return {
        "variant": variant,
        "scale": scale,
        "threads": threads,
        "graph_ms": round(graph_ms, 2),
        "parts_ms": {part: round(value, 3) for part, value in parts_of(events, steps).items()},
        "gflop": None if flops is None else round(flops / 1e9, 3),
        "gflop_per_s": None if flops is None else round(flops / 1e6 / graph_ms, 1),
        "product_gflop_per_s": round(product_rate(), 1),
    }


def product_rate(side: int = PRODUCT_SIDE) -> float:
    """Measure the GFLOP/s of a float32 matrix product, the best of ten."""
    matrix: NDArray[np.float32] = np.random.default_rng(0).standard_normal((side, side), np.float32)
    times = []
    for _ in range(10):
        start = time.perf_counter()
        matrix @ matrix
        times.append(time.perf_counter() - start)
    return 2.0 * float(side) ** 3 / min(times) / 1e9


def markdown(profiles: list[dict[str, Any]]) -> str:
    """Write the profiles as a Markdown table, a column per profile; the slowest part first, equals by name."""
    names = {part for p in profiles for part in p["parts_ms"]}
    most = {part: max(p["parts_ms"].get(part, 0.0) for p in profiles) for part in names}
    parts = sorted(names, key=lambda part: (-most[part], part))
    rows = [[part, *(f"{p['parts_ms'].get(part, 0.0):.2f}" for p in profiles)] for part in parts]
    totals = {
        "graph_ms": "whole graph",
        "gflop": "GFLOP a frame",
        "gflop_per_s": "GFLOP/s reached",
        "product_gflop_per_s": "GFLOP/s of a 1024x1024 product",
    }
    for name, label in totals.items():
        rows.append([label, *("-" if p[name] is None else f"{p[name]:.1f}" for p in profiles)])
    head = ["part, ms", *(f"{p['variant']}, scale {p['scale']:g}" for p in profiles)]
    return "\n".join(table(head, rows)) + "\n"
