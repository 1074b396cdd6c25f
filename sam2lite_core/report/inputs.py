"""Read the folders that a report is made of."""

import itertools
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


@dataclass(frozen=True)
class Run:
    """An evaluation: its unique name, its JSON, the folder of its masks or None."""

    name: str
    evaluation: Evaluation
    document: dict[str, Any]
    masks: Path | None

    @property
    def tracker(self) -> dict[str, Any]:
        """Return the tracker's options; none where masks from elsewhere were scored."""
        tracker: dict[str, Any] = self.evaluation.settings.get("tracker", {})
        return tracker


@dataclass(frozen=True)
class BagRun:
    """A bag that was played to the node, from `bag.json`.

    Attributes:
        topic: of its images.
        rate: playing speed over recording speed.
        frames: numbers in_bag, received, processed and dropped.
        deadline: `ms`, None where there was none, and how many processed frames `missed` it.
        age_ms: percentiles of the masks' age; empty when nothing was processed.
        jf: J&F, 0..1, of `processed`, `all_frames` and `offline`; None where nothing could be scored.
        why: parts of their difference, -1..1, by name; empty where nothing could be scored.
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
        """Read what `eval bag` wrote; KeyError if something is missing in it."""
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
    """Everything that was found, in the order of the folders, by name; `left_out` says why the rest cannot be shown."""

    runs: list[Run] = field(default_factory=list)
    benches: dict[str, dict[str, Any]] = field(default_factory=dict)
    policies: dict[str, dict[str, Any]] = field(default_factory=dict)
    bags: dict[str, BagRun] = field(default_factory=dict)
    figures: list[Path] = field(default_factory=list)
    left_out: list[tuple[Path, str]] = field(default_factory=list)

    def shown(self) -> int:
        """Count the results that there are to show."""
        return sum(map(len, (self.runs, self.benches, self.policies, self.bags, self.figures)))


def read_inputs(given: Sequence[Path]) -> Inputs:
    """Read JSON files, and look through folders and the folders in them.

    Whatever else lies in the folders is listed in `left_out`.

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
    inside = path.parent.relative_to(folder)
    name = str(inside) if inside.parts else path.parent.resolve().name
    try:
        if {"protocol", "settings", "sequences"} <= found:
            masks = path.parent / MASKS
            free = _free(name, [run.name for run in inputs.runs])
            evaluation = Evaluation.from_json(document)
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


def _free(name: str, taken: Collection[str]) -> str:
    """Return the name, with a number where another result has it."""
    names = itertools.chain([name], (f"{name} ({number})" for number in itertools.count(2)))
    return next(free for free in names if free not in taken)
