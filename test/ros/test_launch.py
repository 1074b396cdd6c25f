"""The launch files: their arguments and nodes, where launch_ros is installed; what the replay would start, anywhere."""

import ast
import importlib.util
import re
import runpy
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest

LAUNCH = Path(__file__).resolve().parents[2] / "launch"
TRACKER_ARGUMENTS = {
    "params_file", "namespace", "image_topic", "use_sim_time", "autostart", "log_level", "respawn",
}  # fmt: skip
DEMO_ARGUMENTS = TRACKER_ARGUMENTS | {"source", "mask", "point", "box", "rate", "loop"}
REPLAY_ARGUMENTS = TRACKER_ARGUMENTS - {"respawn"} | {"bag", "rate", "record", "mask", "point", "box"}


def description(name):
    pytest.importorskip("launch_ros", reason="launch_ros is not among the ROS wheels; it comes with a distribution")
    return runpy.run_path(str(LAUNCH / name))["generate_launch_description"]()


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("tracker.launch.py", TRACKER_ARGUMENTS | {"enclave", "required"}),
        ("demo.launch.py", DEMO_ARGUMENTS),
        ("replay.launch.py", REPLAY_ARGUMENTS),
    ],
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


SHARED = LAUNCH.parent / "sam2lite_ros" / "launching.py"
SOURCES = [*sorted(LAUNCH.glob("*.launch.py")), SHARED]


def imports_of_launch(path):
    """Yield the imports from launch and launch_ros in a file."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module.split(".")[0] in ("launch", "launch_ros"):
            yield node


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.name)
def test_launch_files_use_only_what_every_supported_distribution_has(path):
    """Only the public modules are common to all."""
    assert {node.module for node in imports_of_launch(path)} <= {
        "launch", "launch.actions", "launch.conditions", "launch.event_handlers",
        "launch.launch_context", "launch.launch_description_entity", "launch.substitutions", "launch_ros.actions",
        "launch_ros.event_handlers", "launch_ros.parameter_descriptions", "launch_ros.substitutions",
    }  # fmt: skip


def test_the_one_description_of_the_tracker_suits_humble():
    """Humble's LifecycleNode takes no `autostart`."""
    calls = [
        node
        for path in SOURCES
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") in ("LifecycleNode", "tracker_node")
    ]
    (lifecycle,) = [call for call in calls if call.func.id == "LifecycleNode"]
    assert {"name", "namespace"} <= {keyword.arg for keyword in lifecycle.keywords}, "Humble requires both"
    assert "autostart" not in {keyword.arg for call in calls for keyword in call.keywords}
    assert len(calls) == 1 + len(FILES)


class Recorded(SimpleNamespace):
    """Stands for an action or substitution: it keeps what it was made of."""

    def __init__(self, *positional, **named):
        super().__init__(positional=positional, **named)

    def perform(self, context):
        return context[self.positional[0]]


def over_stand_ins(monkeypatch, name):
    """A launch file over stand-ins for launch: its functions run, and what they describe can be read."""
    for path in SOURCES:
        for node in imports_of_launch(path):
            module = sys.modules.get(node.module)
            if not hasattr(module, "stands_in"):
                module = ModuleType(node.module)
                module.stands_in = True
                monkeypatch.setitem(sys.modules, node.module, module)
            for alias in node.names:
                if not hasattr(module, alias.name):
                    setattr(module, alias.name, type(alias.name, (Recorded,), {}))
    spec = importlib.util.spec_from_file_location("sam2lite_ros.launching", SHARED)
    launching = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, spec.name, launching)
    spec.loader.exec_module(launching)
    return {**vars(launching), **runpy.run_path(str(LAUNCH / name))}


@pytest.fixture
def replay_launch(monkeypatch):
    return over_stand_ins(monkeypatch, "replay.launch.py")


def test_the_tracker_declares_described_arguments_and_gets_its_enclave(monkeypatch):
    launch = over_stand_ins(monkeypatch, "tracker.launch.py")
    described = launch["generate_launch_description"]().positional[0]
    declared = of_kind(described, "DeclareLaunchArgument")
    assert {entry.positional[0] for entry in declared} == TRACKER_ARGUMENTS | {"enclave", "required"}
    assert all(entry.description.endswith(".") for entry in declared)
    (tracker,) = of_kind(described, "LifecycleNode")
    given = [value if isinstance(value, str) else value.positional for value in tracker.arguments]
    assert given == ["--ros-args", "--log-level", ("log_level",), "--enclave", ("enclave",)]


FILES = ["tracker.launch.py", "demo.launch.py", "replay.launch.py"]


def exited(code):
    return SimpleNamespace(returncode=code, process_name="tracker-1")


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("code", [2, -9])
def test_a_process_that_fails_ends_the_launch_with_an_error(monkeypatch, name, code):
    end = over_stand_ins(monkeypatch, name)["end_on_failure"]
    with pytest.raises(RuntimeError, match=f"tracker-1 ended with code {code}"):
        end(exited(code), SimpleNamespace(is_shutdown=False))


@pytest.mark.parametrize("name", FILES)
def test_an_ordinary_end_and_a_shutdown_that_goes_on_are_no_failure(monkeypatch, name):
    end = over_stand_ins(monkeypatch, name)["end_on_failure"]
    assert end(exited(0), SimpleNamespace(is_shutdown=False)) is None
    assert end(exited(-2), SimpleNamespace(is_shutdown=True)) is None


def test_the_tracker_ends_what_includes_it_only_when_asked_to(monkeypatch):
    launch = over_stand_ins(monkeypatch, "tracker.launch.py")
    described = launch["generate_launch_description"]().positional[0]
    assert defaults(launch)["required"] == "false"
    (handler,), (tracker,) = (of_kind(described, kind) for kind in ("RegisterEventHandler", "LifecycleNode"))
    assert described.index(handler) < described.index(tracker)
    assert handler.condition.positional[0].positional == ("required",)
    (watch,) = handler.positional
    assert (watch.target_action, watch.on_exit) == (tracker, launch["end_on_failure"])
    assert not hasattr(tracker, "on_exit")


@pytest.mark.parametrize(("respawn", "ends"), [("false", True), ("True", False)])
def test_a_demo_ends_with_its_tracker_unless_that_is_started_again(monkeypatch, respawn, ends):
    launch = over_stand_ins(monkeypatch, "demo.launch.py")
    (tracker,) = launch["start_tracker"](defaults(launch, respawn=respawn, box="1,2,3,4"))
    assert tracker.respawn is not ends
    assert tracker.on_exit == (launch["end_on_failure"] if ends else None)
    (player,) = of_kind(launch["generate_launch_description"]().positional[0], "Node")
    assert player.on_exit == launch["end_on_failure"]


def test_a_replay_ends_with_its_tracker(replay_launch, bag):
    (tracker,) = of_kind(replay_launch["replay"](defaults(replay_launch, bag=bag)), "LifecycleNode")
    assert tracker.on_exit == replay_launch["end_on_failure"]
    assert all(tracker.parameters), "an empty dictionary becomes a file without parameters"


def defaults(launch, **given):
    """The arguments as launch would have them."""
    described = launch["generate_launch_description"]().positional[0]
    declared = {
        entry.positional[0]: entry.default_value
        for entry in described
        if type(entry).__name__ == "DeclareLaunchArgument"
    }
    assert set(given) <= set(declared)
    return {**declared, **given}


@pytest.fixture
def bag(tmp_path):
    (tmp_path / "bag").mkdir()
    return str(tmp_path / "bag")


def of_kind(entities, kind):
    return [entity for entity in entities if type(entity).__name__ == kind]


def test_the_replay_declares_described_arguments(replay_launch):
    described = replay_launch["generate_launch_description"]().positional[0]
    declared = of_kind(described, "DeclareLaunchArgument")
    assert {entry.positional[0] for entry in declared} == REPLAY_ARGUMENTS
    assert all(entry.description.endswith(".") for entry in declared)


def test_the_bag_is_played_once_the_tracker_is_active(replay_launch, bag):
    entities = replay_launch["replay"](defaults(replay_launch, bag=bag, rate="0.5"))
    (tracker,) = of_kind(entities, "LifecycleNode")
    (handler,) = of_kind(entities, "RegisterEventHandler")
    assert entities.index(handler) < entities.index(tracker)
    (transition,) = handler.positional
    assert (transition.target_lifecycle_node, transition.goal_state) == (tracker, "active")
    (play,) = transition.entities
    assert play.cmd == [
        "ros2", "bag", "play", bag, "--rate", "0.5", "--delay", "2", "--clock", "200", "--disable-keyboard-controls",
    ]  # fmt: skip
    (pause,) = play.on_exit
    assert pause.period > 0
    assert [type(action).__name__ for action in pause.actions] == ["Shutdown"]
    assert of_kind(entities, "ExecuteProcess") == [], "nothing is recorded unless asked for"
    topics = {source: target.positional[0] for source, target in tracker.remappings}
    assert topics == {"image": "image_topic"}


def test_the_recorder_starts_first_and_keeps_the_bag_s_time(replay_launch, bag, tmp_path):
    target = str(tmp_path / "seen")
    entities = replay_launch["replay"](defaults(replay_launch, bag=bag, record=target))
    recorder = entities[0]
    assert recorder.cmd[:5] == ["ros2", "bag", "record", "--output", target]
    assert recorder.cmd[5] == "--regex"
    assert recorder.cmd[7:] == ["--use-sim-time"]
    wanted = {"/tracker/mask", "/left/tracker/status", "/tracker/objects"}
    others = {"/tracker/mask/compressed", "/camera/image_raw", "/tracker/status_of_others", "/mytracker_/mask"}
    assert {name for name in wanted | others if re.search(recorder.cmd[6], name)} == wanted


def test_without_simulated_time_nobody_waits_for_a_clock(replay_launch, bag, tmp_path):
    context = defaults(replay_launch, bag=bag, record=str(tmp_path / "seen"), use_sim_time="False")
    entities = replay_launch["replay"](context)
    assert "--use-sim-time" not in entities[0].cmd
    (handler,) = of_kind(entities, "RegisterEventHandler")
    assert "--clock" not in handler.positional[0].entities[0].cmd


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, {}),
        ({"point": "5,6"}, {"initial_prompt.points": [5.0, 6.0], "initial_prompt.object_id": 1}),
        ({"box": "1,2,3,4"}, {"initial_prompt.box": [1.0, 2.0, 3.0, 4.0], "initial_prompt.object_id": 1}),
    ],
)
def test_a_prompt_becomes_parameters(replay_launch, given, expected):
    assert replay_launch["initial_prompt"](defaults(replay_launch, **given)) == expected


def test_a_mask_is_named_by_its_full_path_and_keeps_its_labels(replay_launch, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    prompt = replay_launch["initial_prompt"](defaults(replay_launch, mask="first.png"))
    assert prompt["initial_prompt.mask_file"].positional == (str(tmp_path / "first.png"),)
    assert prompt["initial_prompt.object_id"] == 0


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"bag": ""}, "give bag:=/path/to/bag"),
        ({"bag": "/no/such/bag"}, "bag is '/no/such/bag', which does not exist"),
        ({"rate": "0"}, "rate is '0'; give a factor above 0"),
        ({"rate": "fast"}, "rate is 'fast'"),
        ({"record": "{bag}"}, "which exists already"),
    ],
)
def test_what_cannot_be_replayed_is_said_before_anything_starts(replay_launch, bag, given, said):
    context = defaults(replay_launch, **{"bag": bag, **{k: v.format(bag=bag) for k, v in given.items()}})
    with pytest.raises(RuntimeError, match=re.escape(said)):
        replay_launch["replay"](context)


@pytest.mark.parametrize(
    ("mine", "expected"), [(None, ["FASTDDS_DEFAULT_PROFILES_FILE", "FASTRTPS_DEFAULT_PROFILES_FILE"]), ("own", [])]
)
def test_the_profile_is_set_unless_the_user_has_one(replay_launch, monkeypatch, mine, expected):
    for name in replay_launch["PROFILE_VARIABLES"]:
        monkeypatch.delenv(name, raising=False)
    if mine:
        monkeypatch.setenv("FASTRTPS_DEFAULT_PROFILES_FILE", mine)
    assert [action.positional[0] for action in replay_launch["use_large_shared_memory"]({})] == expected
