"""Measure the matrix rate of a device, and count the operations that a step runs on it."""

import time
from collections.abc import Callable

import torch
from torch.utils.flop_counter import FlopCounterMode

DTYPES = {"no": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def matrix_rate(device: torch.device, dtype: torch.dtype, side: int = 4096, seconds: float = 0.5) -> float:
    """Measure the operations a second of square matrix products; a multiplication and an addition count as two."""
    left, right = (torch.randn(side, side, device=device, dtype=dtype) for _ in range(2))

    def multiply() -> None:
        for _ in range(4):
            left @ right
        if device.type == "cuda":
            torch.cuda.synchronize(device)

    multiply()
    start, done, elapsed = time.perf_counter(), 0, 0.0
    while elapsed < seconds or not done:
        multiply()
        done += 4
        elapsed = time.perf_counter() - start
    return 2.0 * side**3 * done / elapsed


def count_operations(work: Callable[[], object]) -> int:
    """Count the operations of matrix products and convolutions that `work` runs, backward passes included."""
    with FlopCounterMode(display=False) as counter:
        work()
    return int(counter.get_total_flops())
