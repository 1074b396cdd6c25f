"""Write one HTML page of everything that was measured: `sam2lite report`."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from sam2lite_core.files import check_json_path


def report(
    folders: Annotated[
        list[Path],
        typer.Argument(metavar="DIR...", help="Folders with results of eval and bench --json, or such files."),
    ],
    out: Annotated[Path, typer.Option(help="The HTML file to write.")] = Path("report.html"),
    title: Annotated[str, typer.Option(help="Heading of the page.")] = "SAM2-Lite report",
    deadline_ms: Annotated[float, typer.Option(help="Deadline to draw into the latency plot.")] = 50.0,
) -> None:
    """Make one self-contained HTML page of evaluations, bags, measurements of speed and pictures of the memory."""
    from sam2lite_core.report.page import what_was_found, write_report

    check_json_path(out)
    found = write_report(folders, out, title, deadline_ms)
    for path, why in found.left_out:
        print(f"{path}: not shown: {why}", file=sys.stderr)
    print(f"{', '.join(what_was_found(found))} in {out}")
