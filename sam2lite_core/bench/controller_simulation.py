"""Simulate deadline controllers: how fast they settle, what they miss, what it costs in scale; the same everywhere."""

import statistics
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sam2lite_core.bench.simulated_devices import DEVICES, SCENARIOS, Device, FloatArray, Scenario
from sam2lite_core.control.base import ControllerConfig
from sam2lite_core.control.registry import make_controller
from sam2lite_core.errors import ConfigurationError

CONTROLLERS = ("plain", "predictive", "off")
DEADLINE_MS = 33.0

CALM = 10
"""Frames in a row within the deadline that count as settled."""


@dataclass(frozen=True)
class Trace:
    """A run: when each frame came, its step time without and with noise, its scale and window in frames; all (T,)."""

    seconds: FloatArray
    expected_ms: FloatArray
    measured_ms: FloatArray
    scale: FloatArray
    window: NDArray[np.int64]
    deadline_ms: float

    @property
    def missed(self) -> NDArray[np.bool_]:
        """(T,) frames whose step took longer than allowed."""
        return np.asarray(self.measured_ms > self.deadline_ms, dtype=np.bool_)

    @property
    def switched(self) -> NDArray[np.bool_]:
        """(T,) frames whose scale differs from that of the frame before."""
        return np.asarray(np.diff(self.scale, prepend=self.scale[:1]) != 0, dtype=np.bool_)

    def after(self, start_s: float, end_s: float = np.inf) -> "Trace":
        """Return the part of a run from one time to another."""
        chosen = (self.seconds >= start_s) & (self.seconds < end_s)
        arrays = {name: values[chosen] for name, values in vars(self).items() if name != "deadline_ms"}
        return replace(self, **arrays)


def simulate(device: Device, scenario: Scenario, controller: str, seed: int, deadline_ms: float = DEADLINE_MS) -> Trace:
    """Run a controller through a scenario; a frame comes every `deadline_ms`.

    The noise follows from the seed, so that all controllers meet the same device.
    """
    control = make_controller(
        controller, ControllerConfig(deadline_ms=deadline_ms), device.measure(np.random.default_rng((seed, 1)))
    )
    generator = np.random.default_rng((seed, 2))
    seconds = np.arange(0.0, scenario.seconds, deadline_ms / 1e3)
    state = control.start()
    rows = []
    for load in scenario.load(seconds):
        expected = device.step_ms(state.scale, state.window, float(load))
        measured = expected * device.scatter(generator)
        rows.append((expected, measured, state.scale, state.window))
        state = control.update(state, measured)
    expected_ms, measured_ms, scale, window = (np.array(column) for column in zip(*rows, strict=True))
    return Trace(seconds, expected_ms, measured_ms, scale, window, deadline_ms)


def settling_frames(trace: Trace, from_s: float) -> int:
    """Count frames from a change of load to `CALM` in a row in time, noise aside; ConfigurationError if never."""
    late = trace.after(from_s).expected_ms > trace.deadline_ms
    for start in range(len(late) - CALM + 1):
        if not late[start : start + CALM].any():
            return start
    raise ConfigurationError(f"no choice brings the steps after {from_s} s within {trace.deadline_ms} ms")


def figures(trace: Trace, scenario: Scenario) -> dict[str, float | None]:
    """Compute the figures of one run.

    Returns:
        missed_percent: share of frames whose step took longer than the deadline.
        mean_scale, mean_window: mean resolution scale, and memory window in frames.
        switches_a_minute: changes of scale.
        settling_frames: frames from the onset of a load until its steps lie within the deadline again; None if never.
        overshoot: how far the scale fell below the one that it settled at.
        missed_after_percent: missed share while the load lasts, after settling.
        most_switches_in_100: changes of scale in any 100 frames of that time.
        The last four are there only where a load sets in; the last three only after settling.
    """
    minutes = len(trace.seconds) * trace.deadline_ms / 60e3
    result: dict[str, float | None] = {
        "missed_percent": 100.0 * float(trace.missed.mean()),
        "mean_scale": float(trace.scale.mean()),
        "mean_window": float(trace.window.mean()),
        "switches_a_minute": float(trace.switched.sum()) / minutes,
    }
    if scenario.step_s is None:
        return result
    start_s, end_s = scenario.step_s
    try:
        settling = settling_frames(trace.after(0.0, end_s), start_s)
    except ConfigurationError:
        return result | {"settling_frames": None}
    loaded = trace.after(start_s, end_s)
    rest = trace.after(start_s + settling * trace.deadline_ms / 1e3, end_s)
    return result | {
        "settling_frames": settling,
        "overshoot": float(np.median(rest.scale) - loaded.scale.min()),
        "missed_after_percent": 100.0 * float(rest.missed.mean()),
        "most_switches_in_100": most_in_a_row(rest.switched, 100),
    }


def most_in_a_row(events: NDArray[np.bool_], length: int) -> int:
    """Count the most events in any stretch of that many frames."""
    total = np.concatenate([[0], np.cumsum(events)])
    return int((total[length:] - total[:-length]).max()) if len(events) >= length else int(total[-1])


def compare(
    devices: Sequence[Device] = DEVICES,
    scenarios: Sequence[Scenario] = SCENARIOS,
    seeds: int = 3,
    tell: Callable[[str], None] = lambda _: None,
) -> dict[str, Any]:
    """Compare every controller on every device in every scenario, over so many seeds; `tell` gets a line before each.

    Returns:
        What was simulated, and a row for each controller, device and scenario: the worst run for settling and changes
        of scale, means for the rest.

    Raises:
        ConfigurationError: no seeds.
    """
    if seeds < 1:
        raise ConfigurationError(f"{seeds} seeds; give at least 1")
    rows = []
    for scenario in scenarios:
        for device in devices:
            tell(f"{scenario.name}: {device.name}")
            for controller in CONTROLLERS:
                runs = [figures(simulate(device, scenario, controller, seed), scenario) for seed in range(seeds)]
                names = {"scenario": scenario.name, "device": device.name, "controller": controller}
                rows.append(names | _summary(runs))
    return {
        "deadline_ms": DEADLINE_MS,
        "seeds": seeds,
        "devices": [asdict(device) for device in devices],
        "scenarios": {scenario.name: scenario.description for scenario in scenarios},
        "rows": rows,
    }


def _summary(runs: list[dict[str, float | None]]) -> dict[str, float | None]:
    """Take the worst run's settling and switches, the mean of the rest; None where a run never settled."""
    summary: dict[str, float | None] = {}
    for name in max(runs, key=len):
        values = [run.get(name) for run in runs]
        known = [value for value in values if value is not None]
        if len(known) < len(values):
            summary[name] = None
        elif name in ("settling_frames", "most_switches_in_100", "overshoot"):
            summary[name] = round(max(known), 3)
        else:
            summary[name] = round(statistics.fmean(known), 3)
    return summary
