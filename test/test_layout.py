"""The shape of the project: which way imports point, what gets installed, that every entry point resolves."""

import ast
import importlib.metadata
import json
import os
import re
import runpy
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import sam2lite_core

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).resolve().parents[1]
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())

ROS_NAMES = {"ament_index_python", "launch", "launch_ros", "rclpy", "sensor_msgs", "std_msgs"}
FORBIDDEN = {
    "sam2lite_core": {"sam2lite_ros", "training"} | ROS_NAMES,
    "sam2lite_ros": {"onnx", "torch", "training"},
    "training": {"sam2lite_ros"} | ROS_NAMES,
}
MAY_IMPORT_TORCH = ("backends/torch", "backends/transformers", "export/", "model/")


def imported_names(source: str) -> set[str]:
    """Top-level names of every absolute import in a source text, however deep or late it stands."""
    names = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names.update(alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            names.add((node.module or "").split(".")[0])
        elif isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
            called = ast.unparse(node.func)
            if called.endswith("import_module") or called == "__import__":
                names.add(str(node.args[0].value).split(".")[0])
    return names


def sources(package: str) -> list[Path]:
    return sorted((ROOT / package).rglob("*.py"))


def run_python(code: str, folder: Path) -> str:
    """What a fresh interpreter prints for this code, started in a folder."""
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def parsed_package_xml() -> Any:
    catkin = pytest.importorskip("catkin_pkg.package", reason="needs catkin_pkg: run scripts/setup.sh")
    return catkin.parse_package(str(ROOT / "package.xml"))


def built_prefix() -> Path:
    """The install space of the ROS package, or a skip that says how to get one."""
    index = pytest.importorskip("ament_index_python", reason="needs ROS 2: source scripts/env.sh")
    try:
        return Path(index.get_package_prefix("sam2lite_ros"))
    except index.PackageNotFoundError:
        pytest.skip("sam2lite_ros is not built: run scripts/setup.sh, then source scripts/env.sh")


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("import rclpy", {"rclpy"}),
        ("import rclpy.node as node, os", {"rclpy", "os"}),
        ("def late():\n    from training.losses import dice", {"training"}),
        ("if True:\n    import importlib\nimportlib.import_module('torch.nn')", {"importlib", "torch"}),
        ("x = __import__('onnx')", {"onnx"}),
        ("from . import types\nfrom .training import x", set()),
        ("text = 'import rclpy'  # import torch", set()),
    ],
)
def test_imported_names_finds_what_a_source_imports(source: str, expected: set[str]) -> None:
    assert imported_names(source) == expected


@pytest.mark.parametrize("package", sorted(FORBIDDEN))
def test_imports_point_towards_the_core_only(package: str) -> None:
    files = sources(package)
    assert files
    wrong = {
        str(path.relative_to(ROOT)): sorted(found)
        for path in files
        if (found := imported_names(path.read_text()) & FORBIDDEN[package])
    }
    assert wrong == {}


def test_torch_stays_where_robots_do_not_need_it() -> None:
    core = ROOT / "sam2lite_core"
    wrong = [
        str(path.relative_to(ROOT))
        for path in sources("sam2lite_core")
        if "torch" in imported_names(path.read_text())
        and not str(path.relative_to(core)).startswith(MAY_IMPORT_TORCH)
    ]
    assert wrong == []


@pytest.mark.parametrize("module", ["sam2lite_core.cli", "sam2lite_core.tracker", "sam2lite_core.video"])
def test_importing_the_core_loads_nothing_heavy(module: str) -> None:
    loaded = "import json, sys; print(json.dumps(sorted({name.split('.')[0] for name in sys.modules})))"
    names = set(json.loads(run_python(f"import {module}; {loaded}", ROOT)))
    assert "numpy" in names
    assert names & {"onnx", "onnxscript", "rclpy", "torch", "training", "transformers"} == set()


def test_every_import_of_the_nodes_is_declared_in_package_xml() -> None:
    package = parsed_package_xml()
    ours = {"sam2lite_core", "sam2lite_ros"}
    needed = {keys.get(name, name) for name in imported - ours - optional - set(sys.stdlib_module_names)}
    assert needed - declared == set()


def test_package_xml_says_what_rep_149_asks_for() -> None:
    package = parsed_package_xml()


def test_pip_installs_every_file_of_the_weights() -> None:
    core = ROOT / "sam2lite_core"
    patterns = PYPROJECT["tool"]["setuptools"]["package-data"]["sam2lite_core"]
    packaged = {path for pattern in patterns for path in core.glob(pattern)}
    present = {path for path in (core / "weights").iterdir() if path.suffix in {".onnx", ".json", ".md"}}
    assert core / "weights/MODEL_CARD.md" in present
    assert present - packaged == set()


def test_installed_package_holds_messages_and_modules_side_by_side() -> None:
    modules = ["msg", "srv", "player", "tracker_node"]
    import_both = "; ".join(f"import sam2lite_ros.{name}" for name in modules)
    for folder in (built_prefix(), ROOT):  # away from the checkout, and from inside it
        run_python(import_both, folder)
    installed = next((built_prefix() / "lib").glob("python3*/site-packages"))
    assert not (installed / "training").exists()
    assert {path.name for path in (installed / "sam2lite_core/weights").glob("*.onnx")} == {
        path.name for path in (ROOT / "sam2lite_core/weights").glob("*.onnx")
    }
