"""Write measurements as Markdown tables."""

from collections.abc import Iterable, Sequence
from typing import Any

_COLUMNS = ("variant", "backend", "precision", "weights", "scale", "objects")


def markdown(content: dict[str, Any]) -> str:
    """Write the latency rows, what a fresh process took and held, and what the energy was measured with."""
    machine, settings = content["machine"], content["settings"]
    rows = content["latency"]
    meters = list(dict.fromkeys(meter for row in rows for meter in row.get("energy_mj", ())))
    parts = ("inference", "motion", "preprocess", "postprocess")
    head = [*_COLUMNS, "step p50 ms", "p95", "p99", *parts, "FPS", *(f"{meter} mJ" for meter in meters)]
    versions = ", ".join(f"{name} {machine[name]}" for name in ("onnxruntime", "torch") if name in machine)
    lines = [
        f"{machine['cpu']}, {machine['cores']} cores, {settings['threads'] or 'default'} threads, {versions or '-'}, "
        f"source {settings['width']}x{settings['height']}, {settings['frames']} steps a row; parts are medians",
        "",
        *table(head, [_cells(row, parts, meters) for row in rows]),
    ]
    if any(row.get("weights") == "random" for row in rows):
        lines += ["", "Random weights: none ship for this variant, and time does not depend on them."]
    if "fresh_process" in content:
        names = ("variant", "backend", "precision", "weights")
        figures = ("to_first_mask_s", "import_s", "load_s", "first_step_s", "peak_resident_mb")
        titles = ("start to first mask s", "import s", "load s", "first step s", "peak resident MB")
        body = [[str(row[key]) for key in (*names, *figures)] for row in content["fresh_process"]]
        lines += ["", "A process of its own:", "", *table([*names, *titles], body)]
    if "energy" in content:
        lines += ["", f"Energy: {content['energy']}"]
    return "\n".join(lines) + "\n"


def _cells(row: dict[str, Any], parts: tuple[str, ...], meters: list[str]) -> list[str]:
    step = row["step_ms"]
    energy = row.get("energy_mj", {})
    return [
        *(str(row.get(column, "-")) for column in _COLUMNS),
        *(f"{step[name]:.1f}" for name in ("p50", "p95", "p99")),
        *(f"{row[f'{part}_ms']:.1f}" for part in parts),
        str(row["fps"]),
        *(f"{energy[meter]:.1f}" if meter in energy else "-" for meter in meters),
    ]


def table(head: Sequence[str], body: Iterable[Iterable[object]]) -> list[str]:
    """Write a Markdown table of titles and rows of cells, line by line."""
    rule = "|---" * len(head) + "|"
    return [f"| {' | '.join(head)} |", rule, *(f"| {' | '.join(map(str, cells))} |" for cells in body)]
