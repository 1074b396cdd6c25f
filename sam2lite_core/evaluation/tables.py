"""Lay scores out in tables for the terminal."""

from rich import box
from rich.table import Table

from sam2lite_core.evaluation.absence import summarise_absences
from sam2lite_core.evaluation.davis_protocol import Statistic
from sam2lite_core.evaluation.results import Evaluation


def score_table(result: Evaluation) -> Table:
    """Lay out the scores of an evaluation, per cent, a row per sequence and one for all; `std` is consistency."""
    prompt = result.settings.get("prompt")
    title = result.protocol + (f", shown by {prompt}" if prompt else "")
    table = Table(title=title, box=box.SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
    table.add_column("sequence", overflow="fold")
    for name in ("J&F", "J", "F", "recall", "decay", "std", "flicker", "FPS"):
        table.add_column(name, justify="right", no_wrap=True)
    for entry in result.sequences:
        row = [""] * 7
        if entry.scores is not None and entry.stability is not None:
            scores, steady = entry.scores, entry.stability
            row = _score_cells(scores.j, scores.f, steady.consistency, steady.flicker)
        table.add_row(entry.name, *row, _cell(entry.timing.get("fps")))
    table.add_section()
    row = [""] * 7
    if result.j is not None and result.f is not None:
        steadiness = (result.mean_stability("consistency"), result.mean_stability("flicker"))
        row = _score_cells(result.j, result.f, *steadiness)
    table.add_row("all", *row, _cell(result.fps))
    return table


def stress_table(result: Evaluation) -> Table:
    """Lay out J&F by set, and the outcomes of absences, per cent."""
    absence = summarise_absences(result.sequences)
    figures = {f"{name} J&F": result.set_jf(name) for name in result.settings["data"]["sets"]}
    figures[f"LOST within 10 frames, of {absence.absences} absences"] = absence.lost_within_10
    figures[f"found within 15 frames, of {absence.returns} returns"] = absence.found_within_15
    figures["false LOST"] = absence.false_lost
    table = Table(box=box.SIMPLE_HEAD)
    table.add_column("stress")
    table.add_column("", justify="right")
    for name, value in figures.items():
        table.add_row(name, _cell(value, 100))
    return table


def _score_cells(j: Statistic, f: Statistic, std: float | None, flicker: float | None) -> list[str]:
    """Format J&F, J, F, recall and decay of J, consistency and flicker, per cent."""
    values = ((j.mean + f.mean) / 2, j.mean, f.mean, j.recall, j.decay, std, flicker)
    return [_cell(value, 100) for value in values]


def _cell(value: float | None, unit: int = 1) -> str:
    return "" if value is None else f"{unit * value:.1f}"
