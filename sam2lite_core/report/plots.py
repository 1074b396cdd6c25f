"""Draw the report's plots as SVG in data URIs."""

import base64
import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from sam2lite_core.report.inputs import Run

POLICY_COLOURS = {"learned": "#c0392b", "fifo": "#2c6fbb", "uniform": "#2e8b57", "random": "#8a8f98"}
TIME_BINS = 20
PALETTE = ("#2c6fbb", "#e08a1e", "#2e8b57", "#8e5bb5", "#c0392b", "#4aa3a2", "#8a8f98", "#b5895b")


def as_data_uri(figure: Any) -> str:
    """Encode a matplotlib figure as a data URI, so that the page needs no other file."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None})
    return "data:image/svg+xml;base64," + base64.b64encode(buffer.getvalue()).decode()


def hide_frame(axes: Any, labelsize: int = 8) -> None:
    """Leave out a plot's upper and right edge, and set the size of its ticks' labels, points."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=labelsize)


def _figure(width: float, height: float, columns: int = 1) -> tuple[Any, list[Any]]:
    """Return a figure and its axes in a row, inches."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    axes = list(figure.subplots(1, columns, sharey=True, squeeze=False)[0])
    for each in axes:
        hide_frame(each)
        each.grid(axis="y", color="#e6e9ed", linewidth=0.8)
        each.set_axisbelow(True)
    return figure, axes


def sequence_bars(runs: Sequence[Run]) -> str:
    """Draw J&F of every sequence, a bar a run; runs share a protocol."""
    names = list(dict.fromkeys(entry.name for run in runs for entry in run.evaluation.sequences))
    figure, (axes,) = _figure(max(6.0, min(16.0, 1.5 + len(names) * (0.35 + 0.12 * len(runs)))), 3.4)
    width = 0.8 / len(runs)
    for index, run in enumerate(runs):
        scores = {e.name: e.scores.jf for e in run.evaluation.sequences if e.scores is not None}
        heights = [100 * scores.get(name, float("nan")) for name in names]
        places = np.arange(len(names)) + (index - (len(runs) - 1) / 2) * width
        axes.bar(places, heights, width, label=run.name, color=PALETTE[index % len(PALETTE)])
    axes.set_xticks(range(len(names)), names, rotation=40, ha="right", fontsize=8)
    axes.set_ylim(0, 100)
    axes.set_ylabel("J&F, %", fontsize=9)
    if len(runs) > 1:
        figure.legend(loc="outside upper left", ncols=min(len(runs), 5), fontsize=8, frameon=False)
    return as_data_uri(figure)


def time_series(run: Run) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Average J&F by share of the video that is over: middles of the bins, 0..1, and J&F, 0..1 (NaN in empty bins)."""
    sums, counts = np.zeros(TIME_BINS), np.zeros(TIME_BINS)
    for sequence in run.evaluation.sequences:
        if sequence.scores is None:
            continue
        length = max(2, len(sequence.frames["names"]))
        for entry in sequence.scores.objects:
            bins = (np.array(entry.frames) / (length - 1) * TIME_BINS).astype(int).clip(0, TIME_BINS - 1)
            np.add.at(sums, bins, entry.frames_jf)
            np.add.at(counts, bins, 1)
    middles = (np.arange(TIME_BINS) + 0.5) / TIME_BINS
    return middles, np.where(counts > 0, sums / np.maximum(counts, 1), np.nan)


def policies_over_time(by_budget: Mapping[str, Mapping[str, Run]]) -> str:
    """Draw J&F over the video by memory policy, a plot a budget (the paper's figure 3)."""
    figure, all_axes = _figure(1.2 + 3.2 * len(by_budget), 3.2, len(by_budget))
    handles: dict[str, Any] = {}
    for axes, (budget, runs) in zip(all_axes, by_budget.items(), strict=True):
        for policy, run in runs.items():
            x, y = time_series(run)
            colour = POLICY_COLOURS.get(policy)
            (handles[policy],) = axes.plot(100 * x, 100 * y, label=policy, color=colour, linewidth=1.8)
        axes.set_title(f"B = {budget}", fontsize=9)
        axes.set_xlabel("share of the video, %", fontsize=9)
    all_axes[0].set_ylabel("J&F, %", fontsize=9)
    figure.legend(handles.values(), handles.keys(), loc="outside upper left", ncols=4, fontsize=8, frameon=False)
    return as_data_uri(figure)


def policies_by_budget(table: Mapping[str, Any]) -> str:
    """Draw J&F against the budget, a line a policy."""
    figure, (axes,) = _figure(5.2, 3.2)
    cells = table["policies"]
    for policy in dict.fromkeys(cell["policy"] for cell in cells):
        points = [(cell["budget"], 100 * cell["jf"]) for cell in cells if cell["policy"] == policy]
        axes.plot(*zip(*points, strict=True), marker="o", label=policy, color=POLICY_COLOURS.get(policy))
    axes.set_xticks(sorted({cell["budget"] for cell in cells}))
    axes.set_xlabel("memory budget B, tokens", fontsize=9)
    axes.set_ylabel("J&F, %", fontsize=9)
    figure.legend(loc="outside upper left", ncols=4, fontsize=8, frameon=False)
    return as_data_uri(figure)


def model_of_row(row: Mapping[str, Any]) -> str:
    """Write variant, backend and precision of a row of `sam2lite bench`, as far as it has them."""
    return ", ".join(str(row[key]) for key in ("variant", "backend", "precision") if key in row)


def latency_by_rung(benches: Mapping[str, Mapping[str, Any]], deadline_ms: float) -> str:
    """Draw step time of one object by rung, a line a device and variant, and the deadline (the paper's figure 2)."""
    figure, (axes,) = _figure(6.4, 3.4)
    colours = iter(PALETTE * 8)
    for name, bench in benches.items():
        rows = bench["latency"]
        fewest = min(row["objects"] for row in rows)
        for model in dict.fromkeys(map(model_of_row, rows)):
            chosen = [row for row in rows if model_of_row(row) == model and row["objects"] == fewest]
            chosen.sort(key=lambda row: float(row["scale"]))
            scales = [row["scale"] for row in chosen]
            medians, slow = ([row["step_ms"][key] for row in chosen] for key in ("p50", "p95"))
            colour = next(colours)
            label = f"{name}: {model}, {bench['machine']['cpu']}"
            axes.plot(scales, medians, marker="o", color=colour, label=label)
            axes.fill_between(scales, medians, slow, color=colour, alpha=0.18, linewidth=0)
    axes.axhline(deadline_ms, color="#1f2933", linestyle="--", linewidth=1.2)
    axes.annotate(f"deadline {deadline_ms:g} ms", (1, deadline_ms), xycoords=("axes fraction", "data"),
                  ha="right", va="bottom", fontsize=8, xytext=(0, 2), textcoords="offset points",
                  bbox={"facecolor": "white", "alpha": 0.75, "linewidth": 0, "pad": 1})  # fmt: skip
    axes.set_ylim(bottom=0)
    axes.set_xlabel("resolution scale ρ", fontsize=9)
    axes.set_ylabel("step, ms: median to p95", fontsize=9)
    figure.legend(loc="outside upper left", ncols=1, fontsize=8, frameon=False)
    return as_data_uri(figure)


def accuracy_against(points: Sequence[tuple[Run, float]], label: str) -> str:
    """Draw J&F against the cost of a step, with its label and unit, a point a run (the paper's figure 4)."""
    figure, (axes,) = _figure(6.0, 3.6)
    for index, (run, cost) in enumerate(points):
        y = 100 * (run.evaluation.jf or 0.0)
        colour = POLICY_COLOURS.get(str(run.tracker.get("memory_policy")), PALETTE[index % len(PALETTE)])
        axes.plot(cost, y, "o", color=colour, markersize=6)
        axes.annotate(run.name, (cost, y), xytext=(5, 4), textcoords="offset points", fontsize=7)
    axes.margins(0.18)
    axes.set_xlabel(label, fontsize=9)
    axes.set_ylabel("J&F, %", fontsize=9)
    return as_data_uri(figure)
