"""Measure a tracker in a process of its own: time to the first mask, and peak memory.

`measure` starts one; run as a module, this file is that process.
"""

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from sam2lite_core.errors import BackendError

STEPS = 10
"""Frames after the first, before memory is read."""

TIMEOUT_S = 600.0


def measure(options: dict[str, Any], size: tuple[int, int]) -> dict[str, float | str]:
    """Start a Python, import the tracker, load a model, show an object and wait for its mask.

    Args:
        options: plain values, as `Tracker` takes them.
        size: (height, width) of the frames, px.

    Returns:
        `to_first_mask_s` from starting the process, of which `import_s`, `load_s` and `first_step_s`; and
        `peak_resident_mb`, or "not measurable here" where there is no /proc.
    """
    order = json.dumps({"options": options, "size": size, "started": time.time()})
    return run_module(__name__, order, "a tracker in a process of its own")


def run_module(name: str, argument: str, title: str, environment: dict[str, str] | None = None) -> dict[str, Any]:
    """Run a module in a process and read the JSON that it prints; BackendError with its last line if it fails."""
    done = subprocess.run(
        [sys.executable, "-m", name, argument], env=environment, capture_output=True, text=True, timeout=TIMEOUT_S
    )
    if done.returncode != 0:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise BackendError(f"{title} failed: {last}")
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def peak_resident_mb(status: Path = Path("/proc/self/status")) -> float | str:
    """Return the most memory that this process ever held, MB of 10^6 bytes; getrusage also counts its parent's."""
    lines = status.read_text().splitlines() if status.exists() else []
    kilobytes = next((line.split()[1] for line in lines if line.startswith("VmHWM:")), None)
    return "not measurable here" if kilobytes is None else round(int(kilobytes) * 1024 / 1e6, 1)


def run(order: dict[str, Any]) -> None:
    """Run the measured process and print the figures as JSON."""
    start = time.perf_counter()
    import numpy as np

    from sam2lite_core.tracker import Tracker
    from sam2lite_core.types import Prompt

    imported = time.perf_counter()
    tracker = Tracker(**order["options"])
    loaded = time.perf_counter()
    height, width = order["size"]
    image = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    mask = np.zeros((height, width), bool)
    mask[height // 4 : -height // 4, width // 4 : -width // 4] = True
    shown = time.perf_counter()
    tracker.step(image, [Prompt(object_id=1, mask=mask)])
    ended = time.perf_counter()
    taken = time.time() - order["started"]
    for _ in range(STEPS):
        tracker.step(image)
    times = {"import_s": imported - start, "load_s": loaded - imported, "first_step_s": ended - shown}
    figures = {name: round(value, 3) for name, value in {"to_first_mask_s": taken, **times}.items()}
    print(json.dumps({**figures, "peak_resident_mb": peak_resident_mb()}))


if __name__ == "__main__":
    run(json.loads(sys.argv[1]))
