"""Measure J&F minute by minute of short sequences that are played forward and backward."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from sam2lite_core.datasets.looped import Looped
from sam2lite_core.errors import ConfigurationError
from sam2lite_core.evaluation.davis_protocol import ObjectScores
from sam2lite_core.evaluation.policies import cell_folder, markdown_table, read_cell
from sam2lite_core.evaluation.results import Evaluation, SequenceResult


def frames_of(minutes: int, fps: float) -> int:
    """Return the number of frames of so many minutes; raise ConfigurationError for fewer than two or a bad fps."""
    if not (1.0 <= 60.0 * fps < math.inf) or minutes < 2:
        raise ConfigurationError(
            f"{minutes:g} minutes at {fps:g} frames/s; give at least 2 minutes, and a positive rate"
        )
    return round(minutes * 60.0 * fps)


def by_minute(result: SequenceResult, fps: float) -> list[float]:
    """Average J&F of a sequence in each minute over its objects, 0..1."""
    means = []
    for entry in _objects(result):
        minutes = (np.asarray(entry.frames) / (60.0 * fps)).astype(int)
        scores = np.asarray(entry.frames_jf)
        means.append([float(scores[minutes == minute].mean()) for minute in range(minutes.max() + 1)])
    return [float(value) for value in np.mean(means, axis=0)]


def first_pass(result: SequenceResult, length: int) -> float:
    """Average J&F over the first `length` frames, those of the sequence as it is, and over its objects, 0..1."""
    parts = [
        np.mean([score for frame, score in zip(entry.frames, entry.frames_jf, strict=True) if frame < length])
        for entry in _objects(result)
    ]
    return float(np.mean(parts))


def _objects(result: SequenceResult) -> tuple[ObjectScores, ...]:
    """Return the objects' scores; every frame of DAVIS has a truth."""
    assert result.scores is not None
    return result.scores.objects


def summarise(dataset: Looped, evaluations: Mapping[str, Evaluation], fps: float) -> dict[str, dict[str, Any]]:
    """Sum up evaluations by policy, 0..1: means over the sequences, and `sequences` with the same of each.

    `jf` (all frames), `first_pass`, `minutes` (J&F of each) and `drop` (first pass minus last minute).
    """
    lengths = {name: len(dataset.dataset.open(name).images) for name in dataset.names()}
    summary = {}
    for policy, evaluation in evaluations.items():
        rows: dict[str, dict[str, Any]] = {}
        for result in evaluation.sequences:
            minutes = by_minute(result, fps)
            start = first_pass(result, lengths[result.name])
            rows[result.name] = {
                "jf": float(np.mean([entry.jf for entry in _objects(result)])),
                "first_pass": start,
                "minutes": minutes,
                "drop": start - minutes[-1],
            }
        means: dict[str, Any] = {
            name: np.mean([row[name] for row in rows.values()], axis=0).tolist()
            for name in ("jf", "first_pass", "drop", "minutes")
        }
        summary[policy] = {**means, "sequences": rows}
    return summary


def read_cells(dataset: Looped, out: Path, policies: Sequence[str], budget: int) -> dict[str, Evaluation]:
    """Read the evaluations that `evaluate_policies` left in `out`, or raise SourceError."""
    return {policy: read_cell(cell_folder(out, policy, budget), dataset.key) for policy in policies}


def markdown(content: dict[str, Any]) -> str:
    """Lay the figures out as Markdown tables, per cent."""
    summary = content["policies"]
    count = len(next(iter(summary.values()))["minutes"])
    scale = "the controller's scale" if content["scale"] is None else f"scale {content['scale']:g}"
    text = (
        f"{content['title']} at {content['fps']:g} frames/s; J&F, per cent, means over "
        f"{', '.join(content['sequences'])}; {content['variant']}, {scale}, "
        f"{content['budget']} tokens, shown by {content['prompt']}. Drop: first pass minus last minute."
    )
    header = ["policy", "first pass", *(f"minute {n + 1}" for n in range(count)), "all", "drop"]
    rows = [
        [policy, *(f"{100 * v:.1f}" for v in (row["first_pass"], *row["minutes"], row["jf"], row["drop"]))]
        for policy, row in summary.items()
    ]
    by_name = [
        [name, *(_jf_and_drop(row["sequences"][name]) for row in summary.values())] for name in content["sequences"]
    ]
    by_sequence = markdown_table(["sequence", *(f"{policy}: all, drop" for policy in summary)], by_name)
    return "\n".join([text + "\n", markdown_table(header, rows), by_sequence])


def _jf_and_drop(row: dict[str, Any]) -> str:
    return f"{100 * row['jf']:.1f}, {100 * row['drop']:.1f}"
