"""The order of the rooms of sam2lite_ros: sessions start player and tracker, which know nothing of each other."""

import ast
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
MODULES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts): path
    for path in sorted((ROOT / "sam2lite_ros").rglob("*.py"))
    if path.name != "__init__.py"
}


def imports(path):
    """Modules of this package that a file imports, however late."""
    found = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.ImportFrom)]
    return {node.module for node in found if node.module in MODULES}


@pytest.mark.parametrize(
    ("room", "forbidden"),
    [
        ("tracker", ("player", "sessions", "launching")),
        ("player", ("tracker", "sessions", "launching")),
        ("sessions", ("launching",)),
    ],
)
def test_no_import_runs_upwards(room, forbidden):
    prefixes = tuple(f"sam2lite_ros.{name}" for name in forbidden)
    wrong = {
        name: upwards
        for name, path in MODULES.items()
        if name.startswith(f"sam2lite_ros.{room}.")
        and (upwards := {other for other in imports(path) if other.startswith(prefixes)})
    }
    assert wrong == {}


def test_no_imports_run_in_a_circle():
    graph = {name: imports(path) for name, path in MODULES.items()}
    assert len(list(TopologicalSorter(graph).static_order())) == len(MODULES)
