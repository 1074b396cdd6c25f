"""Define the parts of a section, and write numbers."""

from collections.abc import Sequence
from dataclasses import dataclass

from sam2lite_core.report.inputs import Inputs, Run

EVAL = "sam2lite eval davis --root DAVIS --out DIR"
BAG = "sam2lite eval bag BAG --truth MASKS --out DIR"
BENCH = "sam2lite bench --json DIR/bench.json"


@dataclass(frozen=True)
class TableView:
    """A table: column titles, rows of text, and a caption."""

    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    caption: str = ""

    @property
    def kinds(self) -> list[str]:
        """Return the CSS class of each column: `name` for the first, else `number` or `text` (any letter)."""
        columns = [[row[index] for row in self.rows] for index in range(1, len(self.columns))]
        return ["name", *("text" if any(map(str.isalpha, "".join(cells))) else "number" for cells in columns)]


@dataclass(frozen=True)
class Picture:
    """A picture as a data URI, what it shows in words, and a caption."""

    uri: str
    alt: str
    caption: str = ""


@dataclass(frozen=True)
class Section:
    """A part of the page.

    Attributes:
        key: the anchor.
        title: the heading.
        note: a line below it.
        missing: what it lacks and which command makes that; shown where it has neither table nor picture.
    """

    key: str
    title: str
    tables: Sequence[TableView] = ()
    pictures: Sequence[Picture] = ()
    missing: str = ""
    note: str = ""


def scored(inputs: Inputs) -> list[Run]:
    """Return the runs whose truth was at hand."""
    return [run for run in inputs.runs if run.evaluation.jf is not None]


def per_cent(value: float | None) -> str:
    """Write a share 0..1 in per cent; a dash where nothing is known."""
    return "–" if value is None else f"{100 * value:.1f}"


def number(value: float | None, digits: int = 1) -> str:
    """Write a number; a dash where nothing is known."""
    return "–" if value is None else f"{value:.{digits}f}"
