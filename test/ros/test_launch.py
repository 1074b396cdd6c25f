"""The launch files: their arguments and nodes, where launch_ros is installed."""

import ast
import runpy
from pathlib import Path

import pytest

LAUNCH = Path(__file__).resolve().parents[2] / "launch"
TRACKER_ARGUMENTS = {
    "params_file", "namespace", "image_topic", "use_sim_time", "autostart", "log_level", "respawn",
}  # fmt: skip
DEMO_ARGUMENTS = TRACKER_ARGUMENTS | {"source", "mask", "point", "box", "rate", "loop"}


def description(name):
    pytest.importorskip(
        "launch_ros", reason="launch_ros is not among the ROS wheels; it comes with a distribution"
    )
    return runpy.run_path(str(LAUNCH / name))["generate_launch_description"]()


@pytest.mark.parametrize(
    ("name", "arguments"), [("tracker.launch.py", TRACKER_ARGUMENTS), ("demo.launch.py", DEMO_ARGUMENTS)]
)
def test_every_argument_has_a_description_and_a_default(name, arguments):
    declared = {argument.name: argument for argument in description(name).get_launch_arguments()}
    assert set(declared) == arguments
    for argument in declared.values():
        assert argument.description
        assert argument.default_value is not None


def test_the_tracker_is_a_lifecycle_node_of_this_package():
    entities = description("tracker.launch.py").entities
    from launch_ros.actions import LifecycleNode

    nodes = [entity for entity in entities if isinstance(entity, LifecycleNode)]
    assert [node.node_package for node in nodes] == ["sam2lite_ros"]
    assert [node.node_executable for node in nodes] == ["tracker"]


@pytest.mark.parametrize("path", sorted(LAUNCH.glob("*.launch.py")), ids=lambda path: path.name)
def test_launch_files_use_only_what_every_supported_distribution_has(path):
    """Humble's LifecycleNode takes no `autostart`, and only the public modules are common to all."""
    tree = ast.parse(path.read_text())
    modules = {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert {module for module in modules if module.split(".")[0] in ("launch", "launch_ros")} <= {
        "launch", "launch.actions", "launch.launch_description_entity", "launch.substitutions",
        "launch_ros.actions", "launch_ros.parameter_descriptions", "launch_ros.substitutions",
    }  # fmt: skip
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
    lifecycle = [call for call in calls if getattr(call.func, "id", "") == "LifecycleNode"]
    assert len(lifecycle) == 1
    given = {keyword.arg for keyword in lifecycle[0].keywords}
    assert {"name", "namespace"} <= given, "Humble requires both"
    assert "autostart" not in given
