"""Measure this machine's peak arithmetic and bandwidth, for `sam2lite bench roofline`.

Run as a module, this file is the process that is measured: the threads of a matrix product are fixed when it starts.
"""

import json
import os
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from sam2lite_core.bench.fresh_process import run_module
from sam2lite_core.bench.parts import product_rate

THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "VECLIB_MAXIMUM_THREADS")
"""Variables from which the libraries behind NumPy take their number of threads."""

COPY_BYTES = 256 * 2**20
"""Larger than any cache."""

TRIES = 10


def measure(threads: int) -> dict[str, float]:
    """Measure in a process of its own, with so many threads for the product and for the copy; the best of ten.

    Returns:
        `threads`, `gflop_per_s` of a float32 matrix product, `gbyte_per_s` of a copy, reading and writing added up.
    """
    environment = os.environ | dict.fromkeys(THREAD_VARIABLES, str(threads))
    return run_module(__name__, str(threads), "measuring the machine's peaks", environment)


def copy_rate(threads: int, size: int = COPY_BYTES) -> float:
    """Measure the GB/s of a copy by several threads at once, a slice each; the best of ten."""
    source, target = np.ones(size, np.uint8), np.zeros(size, np.uint8)
    pairs = list(zip(np.array_split(source, threads), np.array_split(target, threads), strict=True))
    times = []
    with ThreadPoolExecutor(threads) as pool:
        for _ in range(TRIES):
            start = time.perf_counter()
            # NumPy lets go of the interpreter while it copies.
            list(pool.map(lambda pair: np.copyto(pair[1], pair[0]), pairs))
            times.append(time.perf_counter() - start)
    return 2.0 * size / min(times) / 1e9


if __name__ == "__main__":
    count = int(sys.argv[1])
    rates = {"gflop_per_s": round(product_rate(), 1), "gbyte_per_s": round(copy_rate(count), 2)}
    print(json.dumps({"threads": count, **rates}))
