"""Read the energy that the machine itself counts: RAPL (x86), NVML (NVIDIA GPUs), the rails of a Jetson board.

All count the whole package, GPU or board, idle power included. Nothing is estimated.
"""

import importlib
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sam2lite_core.errors import ConfigurationError

RAIL_PERIOD_S = 0.05
"""Time between readings of the rails, which tell power and not energy."""

BOARD_RAIL = "VDD_IN"
"""A Jetson's rail that feeds all the others; without it, all rails are summed up."""


class RaplMeter:
    """One processor package, from Linux's powercap folder."""

    def __init__(self, folder: Path) -> None:
        """Open it; OSError if its counter cannot be read: on many systems only root may."""
        self.name = f"rapl {(folder / 'name').read_text().strip()}"
        self._counter = folder / "energy_uj"
        self._range = int((folder / "max_energy_range_uj").read_text())
        self._last, self._total = int(self._counter.read_text()), 0

    def joules(self) -> float:
        """Return the energy since it was opened, J; to be read more often than the counter wraps, in minutes."""
        now = int(self._counter.read_text())
        self._total += now - self._last if now >= self._last else now + self._range - self._last
        self._last = now
        return self._total / 1e6


class NvmlMeter:
    """All GPUs that NVML sees, Volta and later."""

    name = "nvml"

    def __init__(self, library: Any) -> None:
        """Take pynvml; raises its errors: no driver, or a GPU that counts no energy."""
        library.nvmlInit()
        self._library = library
        self._gpus = [library.nvmlDeviceGetHandleByIndex(i) for i in range(library.nvmlDeviceGetCount())]
        self._start = self._millijoules()

    def _millijoules(self) -> int:
        return sum(int(self._library.nvmlDeviceGetTotalEnergyConsumption(gpu)) for gpu in self._gpus)

    def joules(self) -> float:
        """Return the energy since it was opened, J."""
        return (self._millijoules() - self._start) / 1e3


class JetsonMeter:
    """The board's power monitor, sampled in a thread."""

    def __init__(self, rails: dict[str, tuple[Path, Path]]) -> None:
        """Start sampling rails: files of millivolts and of milliamperes by name; OSError if one cannot be read."""
        chosen = {BOARD_RAIL: rails[BOARD_RAIL]} if BOARD_RAIL in rails else rails
        self.name = f"jetson {'+'.join(chosen)}"
        self._rails = list(chosen.values())
        self._total, self._last, self._power = 0.0, time.monotonic(), self._watts()
        self._lock, self._ended = threading.Lock(), threading.Event()
        self._thread = threading.Thread(target=self._sample, daemon=True)
        self._thread.start()

    def _watts(self) -> float:
        return sum(int(volts.read_text()) * int(amps.read_text()) / 1e6 for volts, amps in self._rails)

    def _sample(self) -> None:
        while not self._ended.wait(RAIL_PERIOD_S):
            self.joules()

    def joules(self) -> float:
        """Return the energy since it was opened, J: trapezoids between the readings."""
        with self._lock:
            now, power = time.monotonic(), self._watts()
            self._total += (now - self._last) * (power + self._power) / 2
            self._last, self._power = now, power
            return self._total

    def close(self) -> None:
        """End the thread."""
        self._ended.set()
        self._thread.join()


def jetson_rails(sys_root: Path) -> dict[str, tuple[Path, Path]]:
    """Find the files of millivolts and milliamperes of an INA3221 monitor, by the rail's name."""
    rails = {}
    for label in sorted(sys_root.glob("bus/i2c/drivers/ina3221/*/hwmon/hwmon*/in*_label")):
        channel = label.name.removeprefix("in").removesuffix("_label")
        files = label.with_name(f"in{channel}_input"), label.with_name(f"curr{channel}_input")
        if all(file.is_file() for file in files):
            rails[label.read_text().strip()] = files
    return rails


Meter = RaplMeter | NvmlMeter | JetsonMeter


def open_meters(sys_root: Path = Path("/sys"), nvml: str = "pynvml") -> tuple[list[Meter], list[str]]:
    """Open every meter that this machine lets us read; return them, and why each of the others is missing.

    Args:
        sys_root: where Linux mounts sysfs.
        nvml: module of nvidia-ml-py.
    """
    meters: list[Meter] = []
    missing = []
    packages = sorted(p for p in sys_root.glob("class/powercap/intel-rapl:*") if p.name.count(":") == 1)
    if not packages:
        missing.append("no RAPL counter")
    for folder in packages:
        try:
            meters.append(RaplMeter(folder))
        except OSError as error:
            missing.append(f"RAPL: {folder.name} cannot be read ({error.strerror})")
    try:
        meters.append(NvmlMeter(importlib.import_module(nvml)))
    except ImportError:
        missing.append("NVML: nvidia-ml-py is not installed")
    except Exception as error:  # NVML's errors share no type that can be named without it
        missing.append(f"NVML: {error}")
    rails = jetson_rails(sys_root)
    if rails:
        meters.append(JetsonMeter(rails))
    else:
        missing.append("no Jetson rails")
    return meters, missing


@dataclass(frozen=True)
class Gauge:
    """Meters around pieces of work, and why others are missing; made by `opened_gauge`."""

    meters: Sequence[Meter]
    missing: Sequence[str]

    @property
    def summary(self) -> str:
        """Name the meters, or say why there are none."""
        if self.meters:
            return ", ".join(meter.name for meter in self.meters)
        return f"not measurable here: {'; '.join(self.missing)}"

    def per_step(self, work: Callable[[], Any], steps: int) -> tuple[Any, dict[str, float] | None]:
        """Do a piece of work of one step or more.

        Returns:
            Its result, and millijoules a step by meter; None where nothing is measurable.
        """
        if steps < 1:
            raise ConfigurationError(f"energy of {steps} steps; give at least 1")
        before = [meter.joules() for meter in self.meters]
        result = work()
        used = {
            meter.name: round(1e3 * (meter.joules() - start) / steps, 3)
            for meter, start in zip(self.meters, before, strict=True)
        }
        return result, used or None


@contextmanager
def opened_gauge(sys_root: Path = Path("/sys"), nvml: str = "pynvml") -> Iterator[Gauge]:
    """Open a gauge of every meter there is; arguments as for `open_meters`."""
    meters, missing = open_meters(sys_root, nvml)
    try:
        yield Gauge(meters, missing)
    finally:
        for meter in meters:
            if isinstance(meter, JetsonMeter):
                meter.close()
