"""Compare memory policies at several budgets by J&F."""

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from sam2lite_core.datasets.base import Dataset
from sam2lite_core.errors import ConfigurationError, SourceError
from sam2lite_core.evaluation.evaluate import Progress, describe_settings, evaluate, scored_settings
from sam2lite_core.evaluation.results import Evaluation
from sam2lite_core.evaluation.runs.resume import Unfinished, unfinished_folder
from sam2lite_core.evaluation.runs.team import ALONE, Team
from sam2lite_core.evaluation.tracker_options import TrackerOptions
from sam2lite_core.files import OVERWRITE, write_atomically, write_json
from sam2lite_core.graph_io import POLICIES
from sam2lite_core.tracking.settings import check_budget, check_policy

POLICIES_FILE = "policies.json"


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
    dataset: Dataset, options: TrackerOptions, out: Path, policies: Sequence[str] = POLICIES,
    budgets: Sequence[int] = (64, 128, 256, 384), prompt: str = "mask", *, workers: int = 1, overwrite: bool = False,
    progress: Progress | None = None, finished: Callable[[Cell], None] | None = None, team: Team = ALONE,
) -> dict[str, Any]:  # fmt: skip
    """Evaluate every policy at every budget; return the content of `OUT/policies.json`; `policies.md` has the table.

    Each cell is an evaluation in `OUT/POLICY-BUDGET`, without masks; finished ones are kept: a killed run goes on.

    Args:
        dataset: the sequences; their truth must be at hand.
        options: builds the tracker; its policy and budget are replaced.
        out: folder for the cells and the table.
        policies, budgets: in the table's order; learned, fifo, random, uniform, and tokens.
        prompt, workers, progress, team: as for `evaluate`.
        overwrite: replace cells of other settings.
        finished: told of every cell.

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
            folder = cell_folder(out, policy, budget)
            earlier = partial(_earlier_cell, dataset, chosen, folder, prompt, overwrite)
            evaluation = team.main_does(earlier)
            if evaluation is None:
                evaluation = evaluate(
                    dataset, chosen, prompt, folder, workers=workers, masks=False, overwrite=overwrite,
                    progress=progress, team=team,
                )  # fmt: skip
            cells.append(_summary(policy, budget, evaluation, folder))
            if finished is not None:
                finished(cells[-1])
    content = {
        "protocol": dataset.title,
        "settings": describe_settings(dataset, options, prompt),
        "policies": [asdict(cell) for cell in cells],
    }
    table = markdown(cells, dataset.title, options, prompt).encode()
    team.main_does(lambda: write_json(out / POLICIES_FILE, content))
    team.main_does(lambda: write_atomically(out / "policies.md", table))
    return content


def anything_finished(out: Path, policies: Sequence[str], budgets: Sequence[int]) -> bool:
    """Return whether `out` holds a cell of this table, or a sequence of one, which the same command keeps."""
    cells = [cell_folder(out, policy, budget) for policy in policies for budget in budgets]
    return any(Unfinished(folder).finished() for cell in cells for folder in (cell, unfinished_folder(cell)))


def cell_folder(out: Path, policy: str, budget: int) -> Path:
    """Return the folder of a cell of the table."""
    return out / f"{policy}-{budget}"


def read_cell(out: Path, key: str) -> Evaluation:
    """Read the evaluation of a cell, a dataset's `KEY.json`, or raise SourceError."""
    path = out / f"{key}.json"
    try:
        return Evaluation.from_json(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise SourceError(f"{path}: not an evaluation of ours ({error}); remove it") from None


def _earlier_cell(
    dataset: Dataset, options: TrackerOptions, out: Path, prompt: str, overwrite: bool
) -> Evaluation | None:
    """Read the evaluation of an earlier run; None where there is none, or it may be replaced."""
    path = out / f"{dataset.key}.json"
    if not path.is_file():
        return None
    evaluation = read_cell(out, dataset.key)
    asked = json.loads(json.dumps(scored_settings(describe_settings(dataset, options, prompt))))
    same = [entry.name for entry in evaluation.sequences] == dataset.names()
    if scored_settings(evaluation.settings) == asked and same:
        return evaluation
    if not overwrite:
        raise SourceError(
            f"{path}: of other settings or sequences; choose another folder, or replace it with {OVERWRITE}"
        )
    return None


def _summary(policy: str, budget: int, evaluation: Evaluation, out: Path) -> Cell:
    """Take a cell's figures from its evaluation."""
    j, f, jf = evaluation.j, evaluation.f, evaluation.jf
    if j is None or f is None or jf is None:
        raise SourceError(f"{out}: {evaluation.protocol} has no truth here; policies cannot be compared")
    by_name = {entry.name: entry.scores.jf for entry in evaluation.sequences if entry.scores is not None}
    return Cell(policy, budget, jf, j.mean, f.mean, evaluation.mean_ms or 0.0, by_name)


def markdown(cells: Sequence[Cell], title: str, options: TrackerOptions, prompt: str) -> str:
    """Lay out the table: a row a policy, a column a budget, J&F in per cent."""
    policies = dict.fromkeys(cell.policy for cell in cells)
    budgets = dict.fromkeys(cell.budget for cell in cells)
    values = {(cell.policy, cell.budget): cell.jf for cell in cells}
    scale = "controller's scale" if options.scale is None else f"scale {options.scale:g}"
    rows = [[policy, *(f"{100 * values[policy, budget]:.1f}" for budget in budgets)] for policy in policies]
    table = markdown_table(["policy", *(f"B = {budget}" for budget in budgets)], rows)
    return f"J&F, {title}, {options.variant}, {scale}, shown by {prompt}\n\n{table}"


def markdown_table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Lay out a Markdown table."""
    lines = [f"| {' | '.join(cells)} |" for cells in (header, *rows)]
    return "\n".join([lines[0], "|---" * len(header) + "|", *lines[1:]]) + "\n"
