"""J&F by memory policy and budget: the table that says what the learned gate is worth."""

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from sam2lite_core.datasets.base import Dataset
from sam2lite_core.errors import ConfigurationError, SourceError
from sam2lite_core.evaluation.evaluate import Progress, describe_settings, evaluate, what_matters
from sam2lite_core.evaluation.results import Evaluation
from sam2lite_core.evaluation.runs.resume import Unfinished, unfinished_folder
from sam2lite_core.evaluation.runs.team import ALONE, Team
from sam2lite_core.evaluation.tracker_options import TrackerOptions
from sam2lite_core.files import OVERWRITE, write_atomically, write_json
from sam2lite_core.graph_io import POLICIES
from sam2lite_core.tracking.settings import check_budget, check_policy

POLICIES_FILE = "policies.json"
BUDGETS = (64, 128, 256, 384)


@dataclass(frozen=True)
class Cell:
    """One evaluation of the table: J&F, J and F in 0..1, mean step in ms, J&F by sequence."""

    policy: str
    budget: int
    jf: float
    j: float
    f: float
    mean_ms: float
    sequences: dict[str, float]


def evaluate_policies(
    dataset: Dataset,
    options: TrackerOptions,
    out: Path,
    policies: Sequence[str] = POLICIES,
    budgets: Sequence[int] = BUDGETS,
    prompt: str = "mask",
    *,
    workers: int = 1,
    overwrite: bool = False,
    progress: Progress | None = None,
    finished: Callable[[Cell], None] | None = None,
    team: Team = ALONE,
) -> dict[str, Any]:
    """Evaluate every policy at every budget.

    Each cell is an evaluation of its own in `OUT/POLICY-BUDGET`, without masks; those that are there are not done
    again, so a run that was killed goes on where it stopped. `OUT/policies.json` and `policies.md` hold the table.

    Args:
        dataset: which sequences, and where they are; its truth must be at hand.
        options: how to build the tracker; its policy and budget are replaced.
        out: folder for the cells and the table.
        policies: learned, fifo, random, uniform, in the table's order.
        budgets: tokens, in the table's order.
        prompt: how objects are shown.
        workers: processes.
        overwrite: replace cells of other settings.
        progress: told of every sequence of every cell.
        finished: told of every cell.
        team: processes that share the sequences of every cell, and `out` with them.

    Returns:
        What `policies.json` holds.

    Raises:
        ConfigurationError: a policy or budget that does not exist, or none.
        SourceError: as for `evaluate`; or a cell in `out` is of other settings.
    """
    if not policies or not budgets:
        raise ConfigurationError("no policy or no budget; give at least one of each")
    cells = []
    for policy in map(check_policy, policies):
        for budget in map(check_budget, budgets):
            chosen = replace(options, memory_policy=policy, memory_budget=budget)
            evaluation = _cell(
                dataset, chosen, cell_folder(out, policy, budget), prompt, workers, overwrite, progress, team
            )
            cells.append(_summary(policy, budget, evaluation, out))
            if finished is not None:
                finished(cells[-1])
    content = {
        "protocol": dataset.title,
        "settings": describe_settings(dataset, options, prompt),
        "policies": [asdict(cell) for cell in cells],
    }

    def write() -> None:
        write_json(out / POLICIES_FILE, content)
        write_atomically(out / "policies.md", markdown(cells, dataset.title, options, prompt).encode())

    team.main_does(write)
    return content


def anything_finished(out: Path, policies: Sequence[str], budgets: Sequence[int]) -> bool:
    """Whether `out` holds a cell of this table, or a sequence of one: what the same command does not do again."""
    cells = [cell_folder(out, policy, budget) for policy in policies for budget in budgets]
    return any(Unfinished(folder).finished() for cell in cells for folder in (cell, unfinished_folder(cell)))


def cell_folder(out: Path, policy: str, budget: int) -> Path:
    """Where a cell of the table lies."""
    return out / f"{policy}-{budget}"


def _cell(
    dataset: Dataset, options: TrackerOptions, out: Path, prompt: str, workers: int, overwrite: bool,
    progress: Progress | None, team: Team,
) -> Evaluation:  # fmt: skip
    """One evaluation, read where it is there already."""
    earlier = team.main_does(lambda: _earlier_cell(dataset, options, out, prompt, overwrite))
    if earlier is not None:
        return earlier
    return evaluate(
        dataset, options, prompt, out, workers=workers, masks=False, overwrite=overwrite, progress=progress,
        team=team,
    )  # fmt: skip


def _earlier_cell(
    dataset: Dataset, options: TrackerOptions, out: Path, prompt: str, overwrite: bool
) -> Evaluation | None:
    """The evaluation that an earlier run left; None where there is none, or it may be replaced."""
    path = out / f"{dataset.key}.json"
    if not path.is_file():
        return None
    try:
        evaluation = Evaluation.from_json(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise SourceError(f"{path}: not an evaluation of ours ({error}); remove it") from None
    asked = json.loads(json.dumps(what_matters(describe_settings(dataset, options, prompt))))
    same = [entry.name for entry in evaluation.sequences] == dataset.names()
    if what_matters(evaluation.settings) == asked and same:
        return evaluation
    if not overwrite:
        raise SourceError(
            f"{path}: of other settings or sequences; choose another folder, or replace it with {OVERWRITE}"
        )
    return None


def _summary(policy: str, budget: int, evaluation: Evaluation, out: Path) -> Cell:
    """A cell's numbers."""
    if evaluation.j is None or evaluation.f is None or evaluation.jf is None:
        raise SourceError(f"{out}: {evaluation.protocol} has no truth here; policies cannot be compared")
    by_name = {entry.name: entry.scores.jf for entry in evaluation.sequences if entry.scores is not None}
    return Cell(
        policy,
        budget,
        evaluation.jf,
        evaluation.j.mean,
        evaluation.f.mean,
        evaluation.mean_ms or 0.0,
        by_name,
    )


def markdown(cells: Sequence[Cell], title: str, options: TrackerOptions, prompt: str) -> str:
    """The table: a row a policy, a column a budget, J&F in per cent."""
    policies = list(dict.fromkeys(cell.policy for cell in cells))
    budgets = list(dict.fromkeys(cell.budget for cell in cells))
    values: dict[tuple[str, int], Any] = {(cell.policy, cell.budget): cell.jf for cell in cells}
    scale = "controller's scale" if options.scale is None else f"scale {options.scale:g}"
    lines = [
        f"J&F, {title}, {options.variant}, {scale}, shown by {prompt}",
        "",
        "| policy | " + " | ".join(f"B = {budget}" for budget in budgets) + " |",
        "|---" * (len(budgets) + 1) + "|",
    ]
    for policy in policies:
        row = " | ".join(f"{100 * values[policy, budget]:.1f}" for budget in budgets)
        lines.append(f"| {policy} | {row} |")
    return "\n".join(lines) + "\n"
