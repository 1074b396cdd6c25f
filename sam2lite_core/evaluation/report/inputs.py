"""What lies in the folders that a report is made of."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sam2lite_core.errors import SourceError
from sam2lite_core.evaluation.evaluate import MASKS
from sam2lite_core.evaluation.results import Evaluation
from sam2lite_core.evaluation.resume import PIECES

FIGURES = ("memory_timeline.png", "memory_attention.png")


@dataclass(frozen=True)
class Run:
    """One evaluation.

    Attributes:
        name: of its folder, or its file where it is not the only one.
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
        """The tracker's options; empty where masks from elsewhere were scored."""
        tracker: dict[str, Any] = self.evaluation.settings.get("tracker", {})
        return tracker


@dataclass(frozen=True)
class Inputs:
    """Everything that was found, in the order of the folders.

    Attributes:
        runs: evaluations.
        benches: what `sam2lite bench` wrote, by name.
        policies: tables of policies and budgets, by name.
        figures: pictures of the memory, as `memory_figures` draws them.
    """

    runs: list[Run] = field(default_factory=list)
    benches: dict[str, dict[str, Any]] = field(default_factory=dict)
    policies: dict[str, dict[str, Any]] = field(default_factory=dict)
    figures: list[Path] = field(default_factory=list)


def read_inputs(folders: Sequence[Path]) -> Inputs:
    """Look through folders, and the folders in them.

    JSON files that are no results of ours are passed over.

    Raises:
        SourceError: a folder is missing, nothing of use is in any of them, or a result is damaged.
    """
    inputs = Inputs()
    for folder in folders:
        if not folder.is_dir():
            raise SourceError(f"{folder}: no such folder")
        for path in sorted(folder.rglob("*.json")):
            if path.parent.name != PIECES and ".unfinished" not in str(path):
                _sort_in(inputs, path, folder)
        inputs.figures.extend(path for name in FIGURES for path in sorted(folder.rglob(name)))
    if not (inputs.runs or inputs.benches or inputs.policies or inputs.figures):
        where = ", ".join(map(str, folders))
        raise SourceError(
            f"{where}: no result in there; `sam2lite eval` and `sam2lite bench --json` write results"
        )
    return inputs


def _sort_in(inputs: Inputs, path: Path, folder: Path) -> None:
    """Put one JSON file where it belongs."""
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise SourceError(f"{path}: cannot be read: {error}") from None
    if not isinstance(document, dict):
        return
    name = _name(path, folder)
    try:
        if {"protocol", "settings", "sequences"} <= document.keys():
            masks = path.parent / MASKS
            evaluation = Evaluation.from_json(document)
            inputs.runs.append(
                Run(_free(name, inputs), evaluation, document, masks if masks.is_dir() else None)
            )
        elif {"protocol", "policies"} <= document.keys():
            inputs.policies[name] = document
        elif {"machine", "settings", "latency"} <= document.keys():
            inputs.benches[f"{name} {path.stem}" if name in inputs.benches else name] = document
    except (KeyError, TypeError) as error:
        raise SourceError(f"{path}: a damaged result, or of another version: {error!r}") from None


def _name(path: Path, folder: Path) -> str:
    """The result's folder, as it was given or from there on."""
    inside = path.parent.relative_to(folder)
    return str(inside) if inside.parts else path.parent.resolve().name


def _free(name: str, inputs: Inputs) -> str:
    """The name, with a number where another run has it."""
    taken = {run.name for run in inputs.runs}
    number = 2
    free = name
    while free in taken:
        free, number = f"{name} ({number})", number + 1
    return free
