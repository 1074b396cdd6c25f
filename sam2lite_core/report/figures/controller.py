"""Draw and tabulate deadline controllers; drawing needs `pip install 'sam2lite[figures]'`."""

import importlib.util
import io
from collections.abc import Sequence
from typing import Any

import numpy as np

from sam2lite_core.bench.controller_simulation import CONTROLLERS, DEADLINE_MS, Trace, simulate
from sam2lite_core.bench.simulated_devices import DEVICES, SCENARIOS
from sam2lite_core.bench.tables import table
from sam2lite_core.errors import ConfigurationError
from sam2lite_core.report.plots import hide_frame

COLOURS = {"plain": "#d2691e", "predictive": "#1f6fb4", "off": "#b9bec6"}
SHOWN = ("step", "throttle", "bursts", "stall")
BARS = {
    "missed_percent": "missed deadlines, %",
    "mean_scale": "mean scale ρ",
    "switches_a_minute": "changes of scale a minute",
}


def check_drawing() -> None:
    """Raise ConfigurationError before long work starts if matplotlib, which pictures need, is not installed."""
    if importlib.util.find_spec("matplotlib") is None:
        raise ConfigurationError("pictures need matplotlib; pip install 'sam2lite[figures]'")


def png(figure: Any) -> bytes:
    """Encode a matplotlib figure as PNG."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()


def draw(content: dict[str, Any]) -> Any:
    """Draw one device through four scenarios, and the means of `controller_simulation.compare` as bars (matplotlib)."""
    device = DEVICES[1]
    from matplotlib.figure import Figure

    figure = Figure(figsize=(13, 15), dpi=110, layout="constrained")
    grid = figure.add_gridspec(len(SHOWN) + 1, 6, height_ratios=[1.0] * len(SHOWN) + [1.15])
    scenarios = [scenario for scenario in SCENARIOS if scenario.name in SHOWN]
    for row, scenario in enumerate(scenarios):
        traces = {name: simulate(device, scenario, name, seed=0) for name in CONTROLLERS}
        times = figure.add_subplot(grid[row, :3])
        _draw_times(times, traces)
        times.set_title(f"{scenario.name}: {scenario.description}", fontsize=10, loc="left")
        scales = figure.add_subplot(grid[row, 3:], sharex=times)
        _draw_scales(scales, traces)
        if row == 0:
            times.legend(fontsize=9, loc="upper right", framealpha=0.9)
            scales.set_title(f"{device.name}: {device.full_ms:g} ms at full scale", fontsize=10, loc="left")
    times.set_xlabel("seconds")
    scales.set_xlabel("seconds")
    for column, (name, label) in enumerate(BARS.items()):
        _draw_bars(figure.add_subplot(grid[-1, 2 * column : 2 * column + 2]), content["rows"], name, label)
    return figure


def _draw_times(axes: Any, traces: dict[str, Trace]) -> None:
    """Draw step times as dots, so that single late frames show, cut off at the upper edge."""
    top = 2.2 * DEADLINE_MS
    for name in reversed(list(traces)):
        trace = traces[name]
        size = 1.0 if len(trace.seconds) > 3000 else 4.0
        shown = np.minimum(trace.measured_ms, top)
        axes.plot(trace.seconds, shown, ".", markersize=size, color=COLOURS[name], label=name, rasterized=True)
    axes.axhline(DEADLINE_MS, color="black", linewidth=1, label="deadline")
    axes.set_ylim(0, 1.03 * top)
    axes.set_ylabel("step, ms")
    hide_frame(axes)


def _draw_scales(axes: Any, traces: dict[str, Trace]) -> None:
    for name in ("off", "plain", "predictive"):
        trace = traces[name]
        width = 0.25 if len(trace.seconds) > 3000 and name == "plain" else 1.4
        style = {"where": "post", "linewidth": width, "alpha": 0.8 if name == "plain" else 1.0}
        axes.step(trace.seconds, trace.scale, color=COLOURS[name], label=name, **style)
    axes.set_ylim(0.45, 1.05)
    axes.set_ylabel("scale ρ")
    hide_frame(axes)


def _draw_bars(axes: Any, rows: Sequence[dict[str, Any]], name: str, label: str) -> None:
    """Draw a figure's mean over the devices, by scenario and controller."""
    scenarios = list(dict.fromkeys(row["scenario"] for row in rows))
    for place, controller in enumerate(CONTROLLERS):
        heights = [
            np.mean([row[name] for row in rows if (row["scenario"], row["controller"]) == (scenario, controller)])
            for scenario in scenarios
        ]
        at = np.arange(len(scenarios)) + 0.27 * (place - 1)
        bars = axes.bar(at, heights, width=0.25, color=COLOURS[controller], label=controller)
        axes.bar_label(bars, fmt="%.2g" if name != "switches_a_minute" else "%.0f", fontsize=6)
    axes.set_xticks(range(len(scenarios)), scenarios, fontsize=8)
    axes.set_title(f"{label}, mean over {len({row['device'] for row in rows})} devices", fontsize=10, loc="left")
    if name == "mean_scale":
        axes.set_ylim(0.4, 1.05)
    hide_frame(axes)


def markdown(content: dict[str, Any]) -> str:
    """Write the rows as Markdown, a table a scenario."""
    rows = content["rows"]
    devices = "; ".join(
        f"{d['name']} {d['full_ms']:g} ms" + (f" ({d['windowed']:.0%} by the window)" if d["windowed"] else "")
        for d in content["devices"]
    )
    lines = [
        "# Deadline controllers on simulated devices",
        "",
        f"Deadline {content['deadline_ms']:g} ms, a frame every deadline, {content['seeds']} seeds, noise "
        f"{content['devices'][0]['noise']:.0%}. Steps at full scale: {devices}. Made by `sam2lite bench controller`; "
        "the same figures on every machine.",
        "",
        "Settling: frames from the onset of a load until 10 in a row lie within the deadline, noise aside. Overshoot: "
        "how far the scale falls below the one that it settles at. These, and the most changes of scale in any 100 "
        "frames after settling, are the worst seed's; all else is the mean.",
    ]
    for scenario, description in content["scenarios"].items():
        chosen = [row for row in rows if row["scenario"] == scenario]
        lines += ["", f"## {scenario}: {description}", ""]
        lines += _table(chosen, settles=any("settling_frames" in row for row in chosen))
    return "\n".join(lines) + "\n"


def _cell(value: float | None) -> str:
    """Write three digits, or a dash where there is no figure."""
    if value is None:
        return "–"
    return f"{value:.0f}" if value >= 1000 else f"{value:.3g}"


def _table(rows: Sequence[dict[str, Any]], settles: bool) -> list[str]:
    """Write a scenario's rows as a table."""
    heads = {"missed_percent": "missed %", "mean_scale": "mean ρ", "switches_a_minute": "changes of ρ a minute"}
    if settles:
        heads |= {
            "settling_frames": "settling, frames",
            "overshoot": "overshoot, ρ",
            "missed_after_percent": "missed % after",
            "most_switches_in_100": "changes in 100 frames",
        }
    body = ([row["device"], row["controller"], *(_cell(row.get(name)) for name in heads)] for row in rows)
    return table(["device", "controller", *heads.values()], body)
