"""Fill the tables of docs/performance.md from the JSON of `sam2lite bench`, so that no figure is typed by hand.

`python -m sam2lite_core.bench.performance_page docs/performance.md docs/benchmarks`
"""

import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from sam2lite_core.bench import parts, peers, roofline
from sam2lite_core.bench.tables import markdown as latency
from sam2lite_core.errors import Sam2LiteError, SourceError
from sam2lite_core.files import write_atomically

BLOCK = re.compile(r"<!-- table: (\S+) -->\n.*?<!-- end -->", re.DOTALL)
"""A table's place on the page."""

Read = Callable[[str], dict[str, Any]]
"""Gives a file of the folder by its name."""

TABLES: dict[str, Callable[[Read], str]] = {
    "step": lambda read: latency(read("step.json")),
    "parts": lambda read: parts.markdown(read("parts.json")["profiles"]),
    "peers": lambda read: peers.markdown(read("peers.json")),
    "peaks": lambda read: roofline.peaks_markdown(read("roofline.json")["peaks"]),
    "roofline": lambda read: roofline.markdown(read("roofline.json"), read("parts.json")["profiles"]),
}
"""Every table by the name that its block has."""


def fill(page: str, folder: Path) -> str:
    """Fill every block of the page, from `<!-- table: NAME -->` to `<!-- end -->`, from the JSON in a folder.

    Raises:
        SourceError: a block has an unknown name, or a file is missing or was not written by `sam2lite bench`.
    """

    def read(name: str) -> dict[str, Any]:
        try:
            content: dict[str, Any] = json.loads((folder / name).read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise SourceError(f"{folder / name}: cannot be read: {error}") from None
        return content

    def table(match: re.Match[str]) -> str:
        name = match[1]
        if name not in TABLES:
            raise SourceError(f"no table {name!r} for the page; choose one of {', '.join(TABLES)}")
        try:
            text = TABLES[name](read)
        except (KeyError, TypeError, StopIteration) as error:
            raise SourceError(f"{folder}: table {name!r} lacks {error}; measure it again") from None
        return f"<!-- table: {name} -->\n\n{text.strip()}\n\n<!-- end -->"

    return BLOCK.sub(table, page)


def main(arguments: list[str]) -> int:
    """Fill a page in place; 2 with the reason where that cannot be done."""
    if len(arguments) != 2:
        print("usage: python -m sam2lite_core.bench.performance_page PAGE FOLDER", file=sys.stderr)
        return 2
    page, folder = map(Path, arguments)
    try:
        text = page.read_text(encoding="utf-8")
        write_atomically(page, fill(text, folder).encode())
    except (OSError, Sam2LiteError) as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
