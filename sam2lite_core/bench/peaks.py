"""Measure this machine's peak arithmetic and bandwidth, for `sam2lite bench roofline`.

Run as a module, this file is the process that is measured: the threads of a matrix product are fixed when it starts.
"""

import json
import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from sam2lite_core.bench.parts import product_rate
from sam2lite_core.errors import BackendError

THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "VECLIB_MAXIMUM_THREADS")
"""What the libraries behind NumPy take their number of threads from."""

COPY_BYTES = 256 * 2**20
"""Larger than any cache."""

TRIES = 10
TIMEOUT_S = 300.0


def measure(threads: int) -> dict[str, float]:
    """Measure in a process of its own.

    Args:
        threads: for the product and for the copy.

    Returns:
        `threads`, `gflop_per_s` of a float32 matrix product, `gbyte_per_s` of a copy, what is read and what is written
        added up. Both the best of ten: peaks.

    Raises:
        BackendError: the process failed; with its last line.
    """
    environment = os.environ | dict.fromkeys(THREAD_VARIABLES, str(threads))
    done = subprocess.run(
        [sys.executable, "-m", __name__, str(threads)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
    )
    if done.returncode != 0:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise BackendError(f"measuring the machine's peaks failed: {last}")
    found: dict[str, float] = json.loads(done.stdout)
    return found


def copy_rate(threads: int, size: int = COPY_BYTES) -> float:
    """GB/s of a copy by several threads at once, a slice each; the best of ten."""
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
