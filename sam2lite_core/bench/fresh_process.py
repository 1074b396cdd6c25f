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
        options: as `Tracker` takes them; plain values.
        size: (height, width) of the frames, px.

    Returns:
        `to_first_mask_s` from starting the process, of which `import_s`, `load_s` and `first_step_s`; and
        `peak_resident_mb`, or "not measurable here" where there is no /proc.

    Raises:
        BackendError: the process failed; with its last line.
    """
    order = json.dumps({"options": options, "size": size})
    start = time.perf_counter()
    with subprocess.Popen(
        [sys.executable, "-m", __name__, order], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None  # it was asked for
        first = process.stdout.readline()
        taken = time.perf_counter() - start
        rest, complaint = process.communicate(timeout=TIMEOUT_S)
    if process.returncode != 0:
        last = (complaint.strip().splitlines() or ["no message"])[-1]
        raise BackendError(f"a tracker in a process of its own failed: {last}")
    return {"to_first_mask_s": round(taken, 3), **json.loads(first), **json.loads(rest)}


def peak_resident_mb(status: Path = Path("/proc/self/status")) -> float | str:
    """Most memory that this process ever held, MB of 10^6 bytes.

    Not getrusage: its figure begins with what the parent held.
    """
    try:
        lines = status.read_text().splitlines()
    except OSError:
        return "not measurable here"
    kilobytes = next((line.split()[1] for line in lines if line.startswith("VmHWM:")), None)
    return "not measurable here" if kilobytes is None else round(int(kilobytes) * 1024 / 1e6, 1)


def run(order: dict[str, Any]) -> None:
    """Run the measured process: print a line of JSON after the first mask, and one at the end."""
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
    times = {"import_s": imported - start, "load_s": loaded - imported, "first_step_s": time.perf_counter() - shown}
    print(json.dumps({name: round(value, 3) for name, value in times.items()}), flush=True)
    for _ in range(STEPS):
        tracker.step(image)
    print(json.dumps({"peak_resident_mb": peak_resident_mb()}))


if __name__ == "__main__":
    run(json.loads(sys.argv[1]))
