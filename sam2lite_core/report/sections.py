"""Make the report's sections of the inputs; each names the command that makes what it lacks."""

import base64
import itertools
from collections.abc import Callable

from sam2lite_core.errors import Sam2LiteError
from sam2lite_core.evaluation.absence import summarise_absences
from sam2lite_core.evaluation.stability import DRIFT_LEAST_FRAMES
from sam2lite_core.report import plots
from sam2lite_core.report.bags import bags
from sam2lite_core.report.inputs import Inputs, Run
from sam2lite_core.report.tradeoff import tradeoff
from sam2lite_core.report.views import BENCH, EVAL, Picture, Section, TableView, number, per_cent, scored
from sam2lite_core.report.worst import draw_worst

POLICIES = "sam2lite eval policies --root DAVIS --out DIR"


def make_sections(inputs: Inputs, deadline_ms: float) -> list[Section]:
    """Make all sections in the order of the page."""
    makers: list[Callable[[Inputs], Section]] = [
        accuracy, sequences, side_by_side, over_time, by_budget, absences, bags, memory,
        lambda given: latency(given, deadline_ms), tradeoff, worst,
    ]  # fmt: skip
    found = [make(inputs) for make in makers]
    return [*found, left_out(inputs)] if inputs.left_out else found


def _tracker(run: Run) -> str:
    """Describe the tracker in a few words: variant, scale, policy and budget."""
    tracker = run.tracker
    if not tracker:
        return "–"
    scale = "ρ by the controller" if tracker["scale"] is None else f"ρ = {tracker['scale']:g}"
    budget = tracker["memory_budget"]
    return f"{tracker['variant']}, {scale}, {tracker['memory_policy']}{'' if budget is None else f' {budget}'}"


def accuracy(inputs: Inputs) -> Section:
    """Tabulate the runs: settings, scores and speed."""
    columns = ("run", "protocol", "prompt", "tracker", "J&F", "J", "F", "recall", "decay", "drift", "std", "flicker",
               "step ms", "FPS", "peak MB")  # fmt: skip
    rows = []
    for run in inputs.runs:
        result = run.evaluation
        j, f = result.j, result.f
        means = [None] * 5 if j is None or f is None else [result.jf, j.mean, f.mean, j.recall, j.decay]
        peaks = [e.timing["peak_resident_mb"] for e in result.sequences if "peak_resident_mb" in e.timing]
        stability = [result.mean_stability(name) for name in ("drift", "consistency", "flicker")]
        words = (run.name, result.protocol, str(result.settings.get("prompt", "–")), _tracker(run))
        times = (number(result.mean_ms), number(result.fps), number(max(peaks, default=None), 0))
        rows.append((*words, *map(per_cent, (*means, *stability)), *times))
    caption = (
        "Scores in per cent. Drift: J&F per 1,000 frames, of objects scored on "
        f"{DRIFT_LEAST_FRAMES} frames or more; over fewer a slope says nothing. Std: standard deviation of J&F "
        "across frames. Flicker: boundary change that motion does not explain. "
        "Times are those of the machine that ran it."
    )
    tables = [TableView(columns, rows, caption)] if rows else []
    return Section("accuracy", "Accuracy and speed", tables, missing=f"No evaluation: {EVAL}")


def sequences(inputs: Inputs) -> Section:
    """Draw bars by sequence, a plot a protocol."""
    pictures = []
    for protocol in sorted({run.evaluation.protocol for run in scored(inputs)}):
        runs = [run for run in scored(inputs) if run.evaluation.protocol == protocol]
        shown = runs[: len(plots.PALETTE)]
        left = f"; the first {len(shown)} of {len(runs)} runs" if len(runs) > len(shown) else ""
        pictures.append(Picture(plots.sequence_bars(shown), f"J&F by sequence, {protocol}", protocol + left))
    return Section("sequences", "By sequence", pictures=pictures, missing=f"No scored evaluation: {EVAL}")


def side_by_side(inputs: Inputs) -> Section:
    """Compare the first two runs that share sequences."""
    for first, second in itertools.combinations(scored(inputs), 2):
        left, right = (
            {e.name: e.scores.jf for e in run.evaluation.sequences if e.scores is not None} for run in (first, second)
        )
        shared = [name for name in left if name in right]
        if not shared or first.evaluation.protocol != second.evaluation.protocol:
            continue
        rows = [
            (name, per_cent(left[name]), per_cent(right[name]), f"{100 * (right[name] - left[name]):+.1f}")
            for name in sorted(shared, key=lambda name: right[name] - left[name])
        ]
        before, after = (sum(side[name] for name in shared) / len(shared) for side in (left, right))
        rows.append(("mean", per_cent(before), per_cent(after), f"{100 * (after - before):+.1f}"))
        table = TableView(("sequence", first.name, second.name, "difference"), rows, "J&F, per cent")
        return Section("compare", "Two runs side by side", [table])
    missing = f"Needs two evaluations of the same sequences: {EVAL}, twice"
    return Section("compare", "Two runs side by side", missing=missing)


def over_time(inputs: Inputs) -> Section:
    """Draw the paper's figure 3: runs that differ by their memory policy alone."""
    groups: dict[str, dict[str, dict[str, Run]]] = {}
    for run in (run for run in scored(inputs) if "memory_policy" in run.tracker):
        tracker = run.tracker
        rest = {k: v for k, v in tracker.items() if k not in ("memory_policy", "memory_budget", "threads")}
        key = f"{run.evaluation.protocol} {run.evaluation.settings.get('prompt')} {sorted(rest.items())}"
        budget = str(tracker["memory_budget"] or "default")
        groups.setdefault(key, {}).setdefault(budget, {}).setdefault(tracker["memory_policy"], run)
    pictures = []
    for by_budget in groups.values():
        several = {budget: runs for budget, runs in by_budget.items() if len(runs) > 1}
        if several:
            protocol = next(iter(next(iter(several.values())).values())).evaluation.protocol
            alt = f"J&F over time by memory policy, {protocol}"
            pictures.append(Picture(plots.policies_over_time(several), alt, protocol))
    missing = f"Needs runs of several policies: {POLICIES}"
    return Section("time", "Over time, by memory policy", pictures=pictures, missing=missing)


def by_budget(inputs: Inputs) -> Section:
    """Tabulate and draw policies against budgets."""
    tables, pictures = [], []
    for name, table in inputs.policies.items():
        cells = table["policies"]
        budgets = list(dict.fromkeys(cell["budget"] for cell in cells))
        values = {(cell["policy"], cell["budget"]): cell["jf"] for cell in cells}
        policies = list(dict.fromkeys(cell["policy"] for cell in cells))
        rows = [(policy, *(per_cent(values.get((policy, b))) for b in budgets)) for policy in policies]
        tables.append(TableView(("policy", *(f"B = {b}" for b in budgets)), rows, f"{name}: J&F, per cent"))
        pictures.append(Picture(plots.policies_by_budget(table), f"J&F by policy and budget, {name}"))
    missing = f"No table of policies: {POLICIES}"
    return Section("policies", "Memory policies and budgets", tables, pictures, missing)


def absences(inputs: Inputs) -> Section:
    """Tabulate stress sets, and what became of objects that vanished."""
    rows, tables = [], []
    for run in scored(inputs):
        summary = summarise_absences(run.evaluation.sequences)
        if summary.absences:
            shares = (summary.lost_within_10, summary.found_within_15, summary.false_lost)
            rows.append((run.name, str(summary.absences), *map(per_cent, shares)))
        sets = run.document.get("sets")
        if sets:
            scores = [(name.replace("_", " "), per_cent(value)) for name, value in sets.items()]
            tables.append(TableView(("set", "J&F"), scores, run.name))
    if rows:
        columns = ("run", "absences", "LOST within 10", "found within 15", "false LOST")
        tables.append(TableView(columns, rows, "Frames; shares in per cent"))
    missing = "No stress sets: sam2lite eval stress --out DIR"
    return Section("stress", "Stress sets and absences", tables, missing=missing)


def memory(inputs: Inputs) -> Section:
    """Show the paper's figure 1."""
    words = {
        "memory_timeline.png": "Which frames' tokens the memory bank keeps",
        "memory_attention.png": "What one patch reads from the frames that are remembered",
    }
    pictures = []
    for path in inputs.figures:
        uri = "data:image/png;base64," + base64.b64encode(path.read_bytes()).decode()
        pictures.append(Picture(uri, words[path.name], words[path.name]))
    missing = "No pictures of the memory: python -m sam2lite_core.report.figures.memory --out DIR"
    return Section("memory", "What memory keeps", pictures=pictures, missing=missing)


def latency(inputs: Inputs, deadline_ms: float) -> Section:
    """Draw the paper's figure 2, and tabulate it."""
    if not inputs.benches:
        return Section("latency", "Latency", missing=f"No measurement of speed: {BENCH}")
    columns = ("device", "variant", "ρ", "objects", "p50 ms", "p95 ms", "inference ms", "FPS", "meets deadline")
    rows = []
    for name, bench in inputs.benches.items():
        for row in bench["latency"]:
            step = row["step_ms"]
            speed = map(number, (step["p50"], step["p95"], row["inference_ms"], row["fps"]))
            names = (f"{name}: {bench['machine']['cpu']}", plots.model_of_row(row))
            met = "yes" if step["p95"] <= deadline_ms else "no"
            rows.append((*names, number(row["scale"], 2), str(row["objects"]), *speed, met))
    picture = Picture(plots.latency_by_rung(inputs.benches, deadline_ms), "Latency by device and resolution scale")
    caption = f"A deadline of {deadline_ms:g} ms is met when p95 is below it"
    return Section("latency", "Latency by device and rung", [TableView(columns, rows, caption)], [picture])


def worst(inputs: Inputs) -> Section:
    """Show the worst frames of the first run that can."""
    reasons = []
    for run in scored(inputs):
        try:
            pictures = [
                Picture(
                    uri,
                    f"Frame {frame.frame} of {frame.sequence}: prediction and truth",
                    f"{frame.sequence}, frame {frame.frame}, object {frame.object_id}: J&F {per_cent(frame.score)}",
                )
                for frame, uri in draw_worst(run)
            ]
        except (Sam2LiteError, StopIteration) as error:
            reasons.append(str(error))
            continue
        note = f"Of {run.name}: prediction left, truth right; the worst of a sequence, worst first"
        return Section("worst", "Worst frames", pictures=pictures, note=note)
    why = f" ({reasons[0]})" if reasons else ""
    return Section("worst", "Worst frames", missing=f"Needs an evaluation with its masks and its data: {EVAL}{why}")


def left_out(inputs: Inputs) -> Section:
    """List the files that are not on the page."""
    rows = [(str(path), why) for path, why in inputs.left_out]
    return Section("left-out", "Not shown", [TableView(("file or folder", "why"), rows)])
