"""The order of the rooms: no import runs upwards, and no modules import each other in a circle."""

import ast
import graphlib
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("sam2lite_core", "sam2lite_ros", "training")

ROOMS = (
    ("errors", "types", "variants", "files"),
    ("media",),
    ("graph_io",),  # below frame, whose prompt rasters fill the graphs' inputs
    ("frame",),
    ("scenes",),
    ("model",),
    ("backends",),
    ("model_info",),  # describes what the model and the backends' files hold
    ("control",),
    ("tracking",),
    ("tracker", "video"),
    ("datasets",),
    ("evaluation",),
    ("export",),
    ("bench",),
    ("report",),
    ("cli",),
    ("__main__",),
)
"""Rooms of `sam2lite_core`, low to high. A room imports rooms below it and its own; those of one line are modules that
may import each other."""

RANKS = {room: rank for rank, line in enumerate(ROOMS) for room in line}


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


@cache
def modules() -> dict[str, Path]:
    return {module_name(path): path for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py"))}


def imports_of(tree: ast.AST) -> Iterator[str]:
    """Modules of ours that a source imports, at the top or late; imports for type checkers alone do not count."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING"):
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            # `from package import name` imports a module only where the name is one.
            whole = [f"{node.module}.{alias.name}" for alias in node.names]
            yield from (name if name in modules() else str(node.module) for name in whole)
        else:
            yield from imports_of(node)


@cache
def graph() -> dict[str, set[str]]:
    """The modules that each module of ours imports."""
    return {
        name: {found for found in imports_of(ast.parse(path.read_text())) if found in modules()} - {name}
        for name, path in modules().items()
    }


def room(module: str) -> str:
    return module.split(".")[1]


def test_every_module_of_the_core_has_a_room() -> None:
    rooms = {room(name) for name in modules() if name.startswith("sam2lite_core.")}
    assert rooms == set(RANKS)


def test_no_import_runs_upwards_between_rooms() -> None:
    upwards = [
        f"{name} imports {other}"
        for name, others in graph().items()
        for other in sorted(others)
        if name.startswith("sam2lite_core.")
        and other.startswith("sam2lite_core.")
        and RANKS[room(other)] > RANKS[room(name)]
    ]
    assert upwards == []


@pytest.mark.parametrize(
    ("importer", "forbidden"),
    [
        ("tracker", {"player", "sessions", "launching"}),
        ("player", {"tracker", "sessions", "launching"}),
        ("sessions", {"launching"}),
    ],
)
def test_sessions_start_player_and_tracker_which_know_nothing_of_each_other(importer: str, forbidden: set[str]) -> None:
    upwards = [
        f"{name} imports {other}"
        for name, others in graph().items()
        for other in sorted(others)
        if name.startswith(f"sam2lite_ros.{importer}.")
        and other.startswith("sam2lite_ros.")
        and room(other) in forbidden
    ]
    assert upwards == []


def test_no_modules_import_each_other_in_a_circle() -> None:
    try:
        graphlib.TopologicalSorter(graph()).prepare()
    except graphlib.CycleError as error:
        pytest.fail(" -> ".join(error.args[1]))


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("from sam2lite_core import types", {"sam2lite_core.types"}),
        ("def late():\n    import sam2lite_core.cli.app", {"sam2lite_core.cli.app"}),
        ("from sam2lite_core.types import Prompt", {"sam2lite_core.types"}),
        ("if TYPE_CHECKING:\n    import sam2lite_core.types", set()),
    ],
)
def test_imports_of_finds_modules_and_leaves_types_out(source: str, expected: set[str]) -> None:
    assert set(imports_of(ast.parse(source))) == expected
