"""Tabulate ablations: differences to the full row, paired by sequence, beside the paper's (table 3)."""

import json
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sam2lite_core.errors import SourceError
from training.ablation.run import FULL, SCORES_FILE

PAPER = {
    "no_attention": -2.9,
    "no_readout": -1.7,
    "no_attention_no_readout": -4.5,
    "no_edge": -0.8,
    "fifo": -3.3,
    "random": -8.9,
    "output_only": -2.7,
    "budget_128": -2.2,
    "budget_768": 0.3,
}
"""Differences of J&F to the full model on DAVIS 2017 in the paper's table 3, points."""

LEAST = 2.0
"""Least difference, points: the noise of ten sequences."""

RESAMPLES = 10_000
INTERVAL = (2.5, 97.5)


def read_scores(out: Path) -> list[dict[str, Any]]:
    """Read every scored fork of a folder.

    Raises:
        SourceError: there is none, or one cannot be read.
    """
    paths = sorted(out.glob(f"*/{SCORES_FILE}"))
    if not paths:
        raise SourceError(f"{out}: no fork is scored there yet")
    try:
        return [json.loads(path.read_text(encoding="utf-8")) for path in paths]
    except (OSError, ValueError) as error:
        raise SourceError(f"{out}: a {SCORES_FILE} cannot be read: {error}") from None


def bootstrap(differences: NDArray[np.float64], seed: int = 0) -> tuple[float, float]:
    """Estimate the 95 % interval of the mean of (S,) differences, one a sequence, by resampling."""
    rng = np.random.default_rng(seed)
    picked = rng.integers(0, len(differences), (RESAMPLES, len(differences)))
    low, high = np.percentile(differences[picked].mean(axis=1), INTERVAL)
    return float(low), float(high)


def summarise(scores: list[dict[str, Any]]) -> dict[str, Any]:
    """Summarise the figures of `read_scores` by row and set, per cent, over the seeds of the full row.

    Returns:
        `rows`: by row its `seeds`, `steps`, `clips` and `minutes` a fork, and by set `jf`, and but for the full row
        `difference`, `interval` and `verdict`.

    Raises:
        SourceError: the full row is not scored, or another on other sequences.
    """
    by_row: dict[str, dict[int, dict[str, Any]]] = defaultdict(dict)
    for entry in scores:
        by_row[entry["row"]][entry["seed"]] = entry
    full = by_row.get(FULL)
    if not full:
        raise SourceError(f"row {FULL!r} is not scored yet; the others are compared with it")
    rows = {}
    for row in sorted(by_row, key=lambda name: (name != FULL, list(PAPER).index(name) if name in PAPER else 99)):
        seeds = sorted(by_row[row].keys() & full.keys())
        if not seeds:
            continue
        forks = [by_row[row][seed] for seed in seeds]
        sets: dict[str, dict[str, Any]] = {}
        for name in forks[0]["jf"]:
            mine, whole = ([entries[seed]["jf"][name] for seed in seeds] for entries in (by_row[row], full))
            if len({frozenset(run) for run in mine + whole}) != 1:
                raise SourceError(f"row {row!r} and row {FULL!r} were scored on different sequences of {name}")
            scores_of, compared = _by_sequence(mine), _by_sequence(whole)
            sets[name] = {"jf": float(scores_of.mean()), "sequences": len(scores_of)}
            if row != FULL:
                low, high = bootstrap(scores_of - compared)
                difference = float((scores_of - compared).mean())
                judged = verdict(difference, low, high)
                sets[name] |= {"difference": difference, "interval": [low, high], "verdict": judged}
        rows[row] = {
            "seeds": seeds,
            **{name: [fork[name] for fork in forks] for name in ("steps", "clips", "minutes")},
            "paper": PAPER.get(row),
            "sets": sets,
        }
    return {"rows": rows, "least": LEAST, "resamples": RESAMPLES}


def verdict(difference: float, low: float, high: float) -> str:
    """Judge a difference by its size and its interval, points."""
    if abs(difference) < LEAST:
        return "no difference"
    return "differs" if low > 0.0 or high < 0.0 else "open"


def _by_sequence(runs: list[dict[str, float]]) -> NDArray[np.float64]:
    """Average the runs, (S,) per cent; sequences in the order of their names."""
    return np.asarray(np.mean([[100.0 * run[name] for name in sorted(run)] for run in runs], axis=0), np.float64)


def markdown(content: dict[str, Any]) -> str:
    """Write the figures as a Markdown table."""
    rows = content["rows"]
    sets = rows[FULL]["sets"]
    head = ["row", "seeds", "steps", "paper"]
    head += [f"{name}: {column}" for name in sets for column in ("J&F", "difference", "95 %", "verdict")]
    sizes = ", ".join(f"{entry['sequences']} sequences of {name}" for name, entry in sets.items())
    lines = [
        f"J&F, per cent, means over {sizes} and over seeds. Differences to `{FULL}` are paired by sequence, with the "
        f"interval that holds 95 % of {content['resamples']} resampled means. Below {content['least']:g} points: no "
        "difference; above, with an interval on both sides of 0: open. Paper: its table 3, on DAVIS 2017.",
        "",
        "| " + " | ".join(head) + " |",
        "|---" * len(head) + "|",
    ]
    for row, entry in rows.items():
        paper = "" if entry["paper"] is None else f"{entry['paper']:+.1f}"
        cells = [f"`{row}`", str(len(entry["seeds"])), "/".join(str(n) for n in sorted(set(entry["steps"]))), paper]
        for name in sets:
            figures = entry["sets"][name]
            cells.append(f"{figures['jf']:.1f}")
            if row == FULL:
                cells += ["", "", ""]
                continue
            low, high = figures["interval"]
            cells += [f"{figures['difference']:+.1f}", f"{low:+.1f} to {high:+.1f}", figures["verdict"]]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"
