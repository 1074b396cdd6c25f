"""Whether tracking lasts: J&F minute by minute of short sequences, played forward and backward.

The picture needs `pip install 'sam2lite[figures]'`.
"""

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from sam2lite_core.datasets.looped import Looped
from sam2lite_core.errors import ConfigurationError
from sam2lite_core.evaluation.davis_protocol import ObjectScores
from sam2lite_core.evaluation.policies import cell_folder
from sam2lite_core.evaluation.results import Evaluation, SequenceResult


def frames_of(minutes: int, fps: float) -> int:
    """Frames of so many minutes.

    Raises:
        ConfigurationError: less than two minutes, which leave nothing to compare, or minutes without a frame or end.
    """
    if not (1.0 <= 60.0 * fps < math.inf) or minutes < 2:
        raise ConfigurationError(
            f"{minutes:g} minutes at {fps:g} frames/s; give at least 2 minutes, and a positive rate"
        )
    return round(minutes * 60.0 * fps)


def by_minute(result: SequenceResult, fps: float) -> list[float]:
    """Mean J&F of a sequence in each minute, averaged over its objects, 0..1."""
    means = []
    for entry in _objects(result):
        minutes = (np.asarray(entry.frames) / (60.0 * fps)).astype(int)
        scores = np.asarray(entry.frames_jf)
        means.append([float(scores[minutes == minute].mean()) for minute in range(minutes.max() + 1)])
    return [float(value) for value in np.mean(means, axis=0)]


def first_pass(result: SequenceResult, length: int) -> float:
    """Mean J&F of the frames that a sequence has once, 0..1, averaged over its objects.

    Args:
        result: of the looped sequence.
        length: frames of the sequence as it is.
    """
    parts = [
        np.mean([score for frame, score in zip(entry.frames, entry.frames_jf, strict=True) if frame < length])
        for entry in _objects(result)
    ]
    return float(np.mean(parts))


def _objects(result: SequenceResult) -> tuple[ObjectScores, ...]:
    """The objects' scores; every frame of DAVIS has a truth."""
    assert result.scores is not None
    return tuple(result.scores.objects)


def summarise(
    dataset: Looped, evaluations: Mapping[str, Evaluation], fps: float
) -> dict[str, dict[str, Any]]:
    """Figures by policy.

    Returns:
        For each policy `jf` (all frames), `first_pass`, `minutes` (J&F of each), `drop` (first pass minus last minute),
        all 0..1 and means over the sequences, and `sequences` with the same of each.
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
            name: float(np.mean([row[name] for row in rows.values()]))
            for name in ("jf", "first_pass", "drop")
        }
        means["minutes"] = [
            float(value) for value in np.mean([row["minutes"] for row in rows.values()], axis=0)
        ]
        summary[policy] = {**means, "sequences": rows}
    return summary


def read_cells(dataset: Looped, out: Path, policies: Sequence[str], budget: int) -> dict[str, Evaluation]:
    """The evaluations that `evaluate_policies` left in `out`."""
    found = {}
    for policy in policies:
        path = cell_folder(out, policy, budget) / f"{dataset.key}.json"
        found[policy] = Evaluation.from_json(json.loads(path.read_text(encoding="utf-8")))
    return found


def markdown(content: dict[str, Any]) -> str:
    """The figures as a Markdown table, per cent."""
    summary = content["policies"]
    count = len(next(iter(summary.values()))["minutes"])
    scale = "the controller's scale" if content["scale"] is None else f"scale {content['scale']:g}"
    lines = [
        f"{content['title']} at {content['fps']:g} frames/s; J&F, per cent, means over "
        f"{', '.join(content['sequences'])}; {content['variant']}, {scale}, "
        f"{content['budget']} tokens, shown by {content['prompt']}. Drop: first pass minus last minute.",
        "",
        "| policy | first pass | " + " | ".join(f"minute {n + 1}" for n in range(count)) + " | all | drop |",
        "|---" * (count + 4) + "|",
    ]
    for policy, row in summary.items():
        cells = [row["first_pass"], *row["minutes"], row["jf"], row["drop"]]
        lines.append(f"| {policy} | " + " | ".join(f"{100 * value:.1f}" for value in cells) + " |")
    lines += ["", "| sequence | " + " | ".join(f"{policy}: all, drop" for policy in summary) + " |"]
    lines.append("|---" * (len(summary) + 1) + "|")
    for name in content["sequences"]:
        rows = [row["sequences"][name] for row in summary.values()]
        lines.append(
            f"| {name} | "
            + " | ".join(f"{100 * row['jf']:.1f}, {100 * row['drop']:.1f}" for row in rows)
            + " |"
        )
    return "\n".join(lines) + "\n"
