"""The shape of the project: which way imports point, what gets installed, that every entry point resolves."""

import ast
import importlib.metadata
import json
import os
import re
import runpy
import subprocess
import sys
from collections.abc import Iterator
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
MAY_IMPORT_TORCH = (
    "backends/torch",
    "backends/transformers",
    "bench/published_peers.py",
    "bench/random_weights.py",
    "bench/traffic.py",
    "export/",
    "model/",
)


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


def subscripts_at_import(source: str, roots: tuple[str, ...]) -> set[str]:
    """Subscripts of what comes from these modules that importing the source evaluates, as written there."""
    tree = ast.parse(source)
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names.update(alias.asname or alias.name for alias in node.names if alias.name.split(".")[0] in roots)
        elif isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] in roots:
            names.update(alias.asname or alias.name for alias in node.names)

    def evaluated(node: ast.AST) -> Iterator[ast.AST]:
        yield node
        for field, value in ast.iter_fields(node):
            if field == "body" and isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)):
                continue
            for child in value if isinstance(value, list) else [value]:
                if isinstance(child, ast.AST):
                    yield from evaluated(child)

    subscripts = [node for node in evaluated(tree) if isinstance(node, ast.Subscript)]
    return {
        ast.unparse(node)
        for node in subscripts
        if any(ast.unparse(node.value) == name or ast.unparse(node.value).startswith(f"{name}.") for name in names)
    }


def sources(package: str) -> list[Path]:
    return sorted((ROOT / package).rglob("*.py"))


def files_below(folder: Path) -> set[Path]:
    return {path.relative_to(folder) for path in folder.rglob("*") if path.is_file()}


def run_python(code: str, folder: Path) -> str:
    """Return what a fresh interpreter prints for this code, started in a folder."""
    done = subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, check=False)
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


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("def f(a: list[P[int]]) -> None: ...", {"P[int]"}),
        ("def f(a: 'list[P[int]]') -> 'P[int]': ...", set()),
        ("class A(P[int]):\n    b: P[str]\n    def c(self) -> P[bool]: ...", {"P[int]", "P[str]", "P[bool]"}),
        ("Alias = P[int]", {"P[int]"}),
        ("def f(a=P[int]):\n    b: P[str] = P[str]()", {"P[int]"}),
        ("import rclpy.task\nA = rclpy.task.Future[int]", {"rclpy.task.Future[int]"}),
        ("A = list[P]\nB: dict[str, P]", set()),
    ],
)
def test_subscripts_at_import_finds_what_importing_evaluates(source: str, expected: set[str]) -> None:
    assert subscripts_at_import(f"from rclpy.parameter import Parameter as P\n{source}", ("rclpy",)) == expected


def test_nothing_of_rclpy_is_subscripted_at_import() -> None:
    """Parameter, Future, Service, … are not generic in the rclpy of Humble and Jazzy."""
    files = [*sources("sam2lite_ros"), *sources("launch")]
    found = {path.name: subscripts_at_import(path.read_text(), ("rclpy", "launch", "launch_ros")) for path in files}
    assert {name: subscripts for name, subscripts in found.items() if subscripts} == {}


def test_no_numpy_dtype_is_subscripted_at_import() -> None:
    """Ubuntu 22.04 has numpy 1.21, whose dtype is not generic; NDArray is."""
    wrong = {
        path.name
        for package in ("sam2lite_core", "sam2lite_ros")
        for path in sources(package)
        if any(".dtype[" in found for found in subscripts_at_import(path.read_text(), ("numpy",)))
    }
    assert wrong == set()


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
        if "torch" in imported_names(path.read_text()) and not str(path.relative_to(core)).startswith(MAY_IMPORT_TORCH)
    ]
    assert wrong == []


@pytest.mark.parametrize(
    "statement",
    [
        "import sam2lite_core.cli.app",
        "import sam2lite_core.tracker",
        "import sam2lite_core.video",
        "from sam2lite_core import Prompt, Tracker, TrackResult, VideoProcessor",
    ],
)
def test_importing_the_core_loads_nothing_heavy(statement: str) -> None:
    loaded = "import json, sys; print(json.dumps(sorted({name.split('.')[0] for name in sys.modules})))"
    names = set(json.loads(run_python(f"{statement}; {loaded}", ROOT)))
    assert "sam2lite_core" in names
    heavy = {"matplotlib", "onnx", "onnxruntime", "onnxscript", "rclpy", "torch", "training", "transformers"}
    assert names & heavy == set()


def test_the_package_offers_its_public_names_when_they_are_asked_for() -> None:
    code = "import sys, sam2lite_core; assert 'numpy' not in sys.modules; from sam2lite_core import *; print(Tracker)"
    assert "sam2lite_core.tracker.Tracker" in run_python(code, ROOT)
    for name in sam2lite_core.__all__:
        assert getattr(sam2lite_core, name)
    with pytest.raises(AttributeError, match="no attribute 'Trackers'"):
        getattr(sam2lite_core, "Trackers")  # noqa: B009  # a typo must fail


def test_every_import_of_the_nodes_is_declared_in_package_xml() -> None:
    package = parsed_package_xml()
    declared = {dependency.name for dependency in (*package.build_depends, *package.exec_depends)}
    keys = {
        "cv2": "python3-opencv",
        "numpy": "python3-numpy",
        "onnxruntime": "python3-onnxruntime-pip",
        "rich": "python3-rich",
        "typer": "python3-typer",
        "yaml": "python3-yaml",
    }
    # Our own conversions serve without cv_bridge, and `ros2 bag` replays without rosbags; pictures, exports, engines
    # and evaluations over many machines are made on workstations.
    # Type checkers bring typing_extensions along; at run time nothing imports it.
    optional = {"accelerate", "cv_bridge", "jinja2", "matplotlib", "rosbags", "tensorrt_rtx_bindings"}
    optional.add("typing_extensions")
    robots = [
        path
        for path in sources("sam2lite_core")
        if not {"torch", "onnx", "safetensors"} & imported_names(path.read_text())
    ]
    files = [*sources("sam2lite_ros"), *sources("launch"), *robots]
    imported = set().union(*(imported_names(path.read_text()) for path in files))
    assert "rclpy" in imported
    foreign = imported - optional - {"sam2lite_core", "sam2lite_ros"} - set(sys.stdlib_module_names)
    assert {keys.get(name, name) for name in foreign} - declared == set()


def test_package_xml_says_what_rep_149_asks_for() -> None:
    package = parsed_package_xml()
    package.validate()
    assert package.package_format == 3
    assert package.name == "sam2lite_ros"
    assert package.licenses == ["MIT"]
    assert package.get_build_type() == "ament_cmake"
    assert [group.name for group in package.member_of_groups] == ["rosidl_interface_packages"]


def test_versions_agree() -> None:
    version = sam2lite_core.__version__
    assert re.search(r"<version>(.+)</version>", (ROOT / "package.xml").read_text())[1] == version
    assert PYPROJECT["tool"]["setuptools"]["dynamic"]["version"] == {"attr": "sam2lite_core.__version__"}
    assert re.search(r"^## \[([^]]+)\]", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)[1] == version


def test_cmake_exports_that_version() -> None:
    config = built_prefix() / "share/sam2lite_ros/cmake/sam2lite_rosConfig-version.cmake"
    assert f'set(PACKAGE_VERSION "{sam2lite_core.__version__}")' in config.read_text()


def test_console_scripts_resolve() -> None:
    declared = PYPROJECT["project"]["scripts"]
    assert declared
    for name, target in declared.items():
        entry = importlib.metadata.EntryPoint(name=name, value=target, group="console_scripts")
        assert callable(entry.load()), name


def test_executables_resolve() -> None:
    table = re.search(r"set\(EXECUTABLES(.*?)\)", (ROOT / "CMakeLists.txt").read_text(), re.DOTALL)[1].split()
    scripts = sorted((built_prefix() / "lib/sam2lite_ros").iterdir())
    assert [path.name for path in scripts] == sorted(entry.split(":")[0] for entry in table)
    for path in scripts:
        assert os.access(path, os.X_OK), path
        assert os.access(path.read_text().splitlines()[0].removeprefix("#!"), os.X_OK), path
        assert callable(runpy.run_path(str(path), run_name="imported")["main"]), path


def test_pip_installs_the_core_and_nothing_else() -> None:
    setuptools = pytest.importorskip("setuptools", reason="needs setuptools: run scripts/setup.sh")
    include = PYPROJECT["tool"]["setuptools"]["packages"]["find"]["include"]
    found = set(setuptools.find_packages(str(ROOT), include=include))
    folders = {".".join(path.parent.relative_to(ROOT).parts) for path in sources("sam2lite_core")}
    # Fewer: a folder lacks its __init__.py. More: something besides the core would be installed.
    assert found == folders


def test_pip_installs_every_file_of_the_weights() -> None:
    core = ROOT / "sam2lite_core"
    patterns = PYPROJECT["tool"]["setuptools"]["package-data"]["sam2lite_core"]
    packaged = {path for pattern in patterns for path in core.glob(pattern)}
    present = {path for path in (core / "weights").rglob("*") if path.is_file()}
    assert core / "weights/MODEL_CARD.md" in present
    assert present - packaged == set()


def installed_python() -> Path:
    """The install space's folder of Python packages."""
    return next(path.parents[1] for path in built_prefix().glob("**/sam2lite_core/__init__.py"))


def outside_the_checkout() -> dict[str, str]:
    """The environment without a path that leads Python into the checkout."""
    paths = [str(installed_python()), *os.environ.get("PYTHONPATH", "").split(os.pathsep)]
    return {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(path for path in paths if path and Path(path).resolve() != ROOT),
    }


def test_installed_package_holds_messages_and_modules_side_by_side() -> None:
    prefix = built_prefix()
    modules = ["msg", "srv", "player.node", "sessions.demo", "tracker.node"]
    for folder in (prefix, ROOT):  # away from the checkout, and from inside it
        run_python("; ".join(f"import sam2lite_ros.{name}" for name in modules), folder)
    installed = installed_python()
    assert not (installed / "training").exists()
    assert files_below(installed / "sam2lite_core/weights") == files_below(ROOT / "sam2lite_core/weights")


@pytest.mark.parametrize("package", ["sam2lite_core", "sam2lite_ros"])
def test_install_space_carries_every_module_and_subpackage(package: str) -> None:
    generated = ("msg", "srv")
    installed = installed_python()
    found = {
        path
        for path in files_below(installed / package)
        if path.suffix == ".py" and (package == "sam2lite_core" or path.parts[0] not in generated)
    }
    expected = {path.relative_to(ROOT / package) for path in sources(package)}
    assert Path("__init__.py") in found
    assert found == expected, "the build is older than the checkout: run scripts/setup.sh"


@pytest.mark.parametrize(
    ("command", "code", "said"),
    [
        (["{python}", "-m", "sam2lite_core", "--version"], 0, sam2lite_core.__version__),
        (["{prefix}/lib/sam2lite_ros/demo", "--help"], 0, "--deadline-ms"),
        (["{prefix}/lib/sam2lite_ros/player", "--ros-args", "-p", "source:=/nowhere"], 2, "player: /nowhere"),
        (["{prefix}/lib/sam2lite_ros/tracker", "--ros-args", "-p", "variant:=huge"], 2, "tracker: variant"),
    ],
    ids=lambda value: Path(value[0]).name if isinstance(value, list) else "",
)
def test_what_is_installed_runs_outside_the_checkout(command: list[str], code: int, said: str, tmp_path: Path) -> None:
    places = {"python": sys.executable, "prefix": str(built_prefix())}
    done = subprocess.run(
        [part.format(**places) for part in command],
        cwd=tmp_path,
        env=outside_the_checkout(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == code, done.stderr
    assert said in done.stdout + done.stderr


@pytest.mark.parametrize(("given", "expected"), [(None, "1"), ("0", "0")])
def test_onnxruntime_is_told_to_report_to_nobody_before_it_is_imported(given: str | None, expected: str) -> None:
    environment = {name: value for name, value in os.environ.items() if name != "ORT_DISABLE_TELEMETRY"}
    environment |= {} if given is None else {"ORT_DISABLE_TELEMETRY": given}
    # A finder that comes first sees the variable as onnxruntime will find it.
    code = """
import os, sys
class Finder:
    def find_spec(self, name, path, target=None):
        if name == "onnxruntime":
            print(os.environ.get("ORT_DISABLE_TELEMETRY"))
sys.meta_path.insert(0, Finder())
import sam2lite_core.backends.onnxruntime
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True)
    assert done.stdout.split() == [expected]
