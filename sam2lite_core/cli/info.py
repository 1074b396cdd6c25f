"""Describe a variant or a model folder: `sam2lite info`."""

from collections.abc import Iterator
from typing import Any

from rich.console import Console
from rich.table import Table

from sam2lite_core.cli.options import JsonOption, ModelOption, VariantOption
from sam2lite_core.files import check_json_path, write_json


def info(variant: VariantOption = "tiny", model: ModelOption = None, json_file: JsonOption = None) -> None:
    """Show what a model is: its numbers, parameters by part, memory, operations a frame, and files."""
    from sam2lite_core.model_info import describe_model

    check_json_path(json_file)
    document = describe_model(variant, model)
    write_json(json_file, document)
    console = Console()
    for title, rows in document.items():
        table = Table(title=title, title_justify="left", show_header=False)
        table.add_column(no_wrap=True)
        table.add_column(overflow="fold")
        if rows is None:
            rows = "unknown: these are counted when a model is exported, or where torch is installed"
        for name, value in _flatten(rows):
            table.add_row(name, f"{value:,}" if isinstance(value, int) else str(value))
        if table.row_count:
            console.print(table)


def _flatten(value: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Nested entries as (dotted name, value)."""
    if isinstance(value, dict):
        for key, entry in value.items():
            yield from _flatten(entry, f"{prefix}.{key}" if prefix else str(key))
    else:
        yield prefix, value
