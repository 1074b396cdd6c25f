"""Read the folders that a report is made of."""

import json
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sam2lite_core.errors import SourceError
from sam2lite_core.evaluation.evaluate import MASKS
from sam2lite_core.evaluation.results import Evaluation
from sam2lite_core.evaluation.runs.resume import UNFINISHED, is_part

FIGURES = ("memory_timeline.png", "memory_attention.png")

NO_RESULT = "no evaluation, table of policies, bag or measurement of speed that a report shows"
"""Why a JSON file is left out."""


@dataclass(frozen=True)
class Run:
    """One evaluation.

    Attributes:
        name: of its folder, with a number where another run has it.
        evaluation: what it found.
        document: the JSON as it was read: also what the dataclasses do not hold.
        masks: folder of the masks; None where none were written.
    """

    name: str
    evaluation: Evaluation
    document: dict[str, Any]
    masks: Path | None

    @property
    def tracker(self) -> dict[str, Any]:
        """Return the tracker's options; empty where masks from elsewhere were scored."""
        tracker: dict[str, Any] = self.evaluation.settings.get("tracker", {})
        return tracker


@dataclass(frozen=True)
class BagRun:
    """One bag that was played to the node: what `bag.json` says, as far as the report shows it.

    Attributes:
        topic: what was played.
        rate: how many times as fast as it was recorded.
        frames: how many frames got how far.
        deadline: `ms`, None where there was none, and how many processed frames `missed` it.
        age_ms: percentiles of the masks' age; empty when nothing was processed.
        jf: J&F, 0..1, of the frames `processed`, of `all_frames`, and of the `offline` run; None where nothing could be
            scored.
        why: parts of their difference, -1..1, by name; empty where nothing could be scored.
        machine: what it ran on.
    """

    topic: str
    rate: float
    frames: dict[str, int]
    deadline: dict[str, Any]
    age_ms: dict[str, float]
    jf: dict[str, float | None]
    why: dict[str, float]
    machine: dict[str, Any]

    @classmethod
    def from_json(cls, document: dict[str, Any]) -> "BagRun":
        """Read what `eval bag` wrote.

        Raises:
            KeyError: something is missing in it.
        """
        frames, limit, why = document["frames"], document["deadline"], document["why"] or {}
        parts = ("resolution_and_window", "node", "dropped_frames") if why else ()
        return cls(
            topic=document["topic"],
            rate=float(document["rate"]),
            frames={name: int(frames[name]) for name in ("in_bag", "received", "processed", "dropped")},
            deadline={"ms": limit["ms"], "missed": limit["missed"]},
            age_ms=document["latency_ms"].get("age", {}),
            jf={name: document["score"][name]["jf"] for name in ("processed", "all_frames", "offline")},
            why={name: float(why[name]) for name in parts},
            machine=document["machine"],
        )


@dataclass(frozen=True)
class Inputs:
    """Everything that was found, in the order of the folders.

    Attributes:
        runs: evaluations.
        benches: what `sam2lite bench` wrote, by name.
        policies: tables of policies and budgets, by name.
        bags: what `sam2lite eval bag` wrote, by name.
        figures: pictures of the memory, as `memory_figures` draws them.
        left_out: files and folders that the report cannot show, and why not.
    """

    runs: list[Run] = field(default_factory=list)
    benches: dict[str, dict[str, Any]] = field(default_factory=dict)
    policies: dict[str, dict[str, Any]] = field(default_factory=dict)
    bags: dict[str, BagRun] = field(default_factory=dict)
    figures: list[Path] = field(default_factory=list)
    left_out: list[tuple[Path, str]] = field(default_factory=list)

    def shown(self) -> int:
        """Count the results that there are to show."""
        return len(self.runs) + len(self.benches) + len(self.policies) + len(self.bags) + len(self.figures)


def read_inputs(given: Sequence[Path]) -> Inputs:
    """Read results, and look through folders and the folders in them.

    Everything that is given has something to show, or is refused. What else lies in the folders and cannot be shown is
    listed in `left_out`.

    Args:
        given: folders, and JSON files.

    Raises:
        SourceError: a folder or file is missing or has nothing to show, or a result is damaged.
    """
    inputs = Inputs()
    for path in given:
        before = inputs.shown()
        if path.is_dir():
            _look_through(inputs, path)
        elif path.is_file():
            _sort_in(inputs, path, path.parent)
        else:
            raise SourceError(f"{path}: no such folder or file")
        if inputs.shown() == before:
            raise SourceError(f"{path}: {_why_nothing(inputs, path)}")
    return inputs


def _look_through(inputs: Inputs, folder: Path) -> None:
    """Take what lies in a folder."""
    unfinished: set[Path] = set()
    for path in sorted(folder.rglob("*.json")):
        whole = [parent for parent in path.parents if parent.suffix == UNFINISHED]
        if not whole:
            if not is_part(path):
                _sort_in(inputs, path, folder)
        elif whole[-1] not in unfinished:
            unfinished.add(whole[-1])
            inputs.left_out.append((whole[-1], "an unfinished run; the command that started it goes on with it"))
    inputs.figures.extend(path for name in FIGURES for path in sorted(folder.rglob(name)))


def _why_nothing(inputs: Inputs, path: Path) -> str:
    """Say why nothing of a given folder or file can be shown."""
    for left, why in inputs.left_out:
        if left == path or path in left.parents:
            return why if left == path else f"no result in there; {left.relative_to(path)} is {why}"
    return "no result in there; `sam2lite eval`, `sam2lite eval bag --out` and `sam2lite bench --json` write results"


def _sort_in(inputs: Inputs, path: Path, folder: Path) -> None:
    """Put one JSON file where it belongs."""
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise SourceError(f"{path}: cannot be read: {error}") from None
    found = document.keys() if isinstance(document, dict) else set()
    name = _name(path, folder)
    try:
        if {"protocol", "settings", "sequences"} <= found:
            masks = path.parent / MASKS
            evaluation = Evaluation.from_json(document)
            free = _free(name, [run.name for run in inputs.runs])
            inputs.runs.append(Run(free, evaluation, document, masks if masks.is_dir() else None))
        elif {"protocol", "policies"} <= found:
            inputs.policies[_free(name, inputs.policies)] = document
        elif {"bag", "topic", "frames", "score"} <= found:
            inputs.bags[_free(name, inputs.bags)] = BagRun.from_json(document)
        elif {"machine", "settings", "latency"} <= found:
            several = f"{name} {path.stem}" if name in inputs.benches else name
            inputs.benches[_free(several, inputs.benches)] = document
        else:
            inputs.left_out.append((path, NO_RESULT))
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise SourceError(f"{path}: a damaged result, or of another version: {error!r}") from None


def _name(path: Path, folder: Path) -> str:
    """Name a result by its folder, as it was given or from there on."""
    inside = path.parent.relative_to(folder)
    return str(inside) if inside.parts else path.parent.resolve().name


def _free(name: str, taken: Collection[str]) -> str:
    """Return the name, with a number where another result has it."""
    number = 2
    free = name
    while free in taken:
        free, number = f"{name} ({number})", number + 1
    return free
