"""Build the parts that the launch files share, with the API common to Humble, Jazzy and Kilted.

Only launch files import this, since it needs `launch` and `launch_ros`.
"""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from launch.actions import DeclareLaunchArgument, SetEnvironmentVariable
from launch.launch_context import LaunchContext
from launch.launch_description_entity import LaunchDescriptionEntity
from launch.substitutions import LaunchConfiguration, PathJoinSubstitution
from launch_ros.actions import LifecycleNode
from launch_ros.parameter_descriptions import ParameterValue
from launch_ros.substitutions import FindPackageShare

from sam2lite_ros.sessions.processes import PROFILE_VARIABLES

SPELLINGS = ["true", "false", "True", "False"]
LEVELS = ["debug", "info", "warn", "error", "fatal"]

PROMPT_ARGUMENTS = (
    ("mask", "", "PNG of the first frame's size; each of its labels is followed."),
    ("point", "", "X,Y in pixels of the first frame, on the object to follow."),
    ("box", "", "X0,Y0,X1,Y1 in pixels of the first frame, around the object to follow."),
)
"""Name, default and description of the arguments that `initial_prompt` reads."""


def declare_arguments(
    texts: Sequence[tuple[str, str, str]], switches: Sequence[tuple[str, str, str]]
) -> list[LaunchDescriptionEntity]:
    """Declare the arguments of a launch file, and those of all: `texts`, and `switches` that are true or false.

    Each is a name, a default and a description.
    """
    return [
        *(DeclareLaunchArgument(name, default_value=value, description=text) for name, value, text in texts),
        *(
            DeclareLaunchArgument(name, default_value=value, choices=SPELLINGS, description=text)
            for name, value, text in switches
        ),
        DeclareLaunchArgument(
            "params_file",
            default_value=share("config", "tracker.yaml"),
            description="YAML file with the tracker's parameters.",
        ),
        DeclareLaunchArgument(
            "log_level", default_value="info", choices=LEVELS, description="Least severe log messages to show."
        ),
    ]


def tracker_node(
    prompt: Mapping[str, Any] | None = None, arguments: Sequence[Any] = (), **options: Any
) -> LifecycleNode:
    """Describe the tracker, set up by the launch arguments; `prompt` holds parameters, `arguments` are for ROS."""
    return LifecycleNode(
        package="sam2lite_ros",
        executable="tracker",
        name="tracker",
        namespace=LaunchConfiguration("namespace"),
        parameters=[
            LaunchConfiguration("params_file"),
            # One dictionary: an empty one of its own would become a file without parameters.
            {**(prompt or {}), **{name: switch(name) for name in ("use_sim_time", "autostart")}},
        ],
        remappings=[("image", LaunchConfiguration("image_topic"))],
        arguments=["--ros-args", "--log-level", LaunchConfiguration("log_level"), *arguments],
        output="screen",
        **options,
    )


def use_large_shared_memory(context: LaunchContext) -> list[LaunchDescriptionEntity]:
    """Set the Fast DDS profile of this package for every process started here, unless the user has one.

    Each distribution reads one of the two variables.
    """
    if any(os.environ.get(name) for name in PROFILE_VARIABLES):
        return []
    return [SetEnvironmentVariable(name, share("config", "fastdds_shm.xml")) for name in PROFILE_VARIABLES]


def end_on_failure(event: Any, context: LaunchContext) -> None:
    """End everything launched, with exit code 1, when a process has failed by itself; Shutdown would end with 0.

    Raises:
        RuntimeError: the process failed; launch shuts down for it.
    """
    if event.returncode != 0 and not context.is_shutdown:
        raise RuntimeError(f"{event.process_name} ended with code {event.returncode}")


def initial_prompt(context: LaunchContext) -> dict[str, Any]:
    """Turn the arguments mask, point and box into the tracker's parameters; empty when none is given."""
    mask, point, box = (argument(context, name) for name, _, _ in PROMPT_ARGUMENTS)
    prompt: dict[str, Any] = {}
    if mask:
        # A plain string would be read as YAML, and a path may look like something else in YAML.
        prompt["initial_prompt.mask_file"] = ParameterValue(str(Path(mask).resolve()), value_type=str)
    if point:
        prompt["initial_prompt.points"] = [float(value) for value in point.split(",")]
    if box:
        prompt["initial_prompt.box"] = [float(value) for value in box.split(",")]
    if prompt:
        prompt["initial_prompt.object_id"] = 0 if mask and not (point or box) else 1
    return prompt


def argument(context: LaunchContext, name: str) -> str:
    """Return a launch argument's value."""
    return str(LaunchConfiguration(name).perform(context))


def is_true(context: LaunchContext, name: str) -> bool:
    """Return the value of a launch argument that is true or false."""
    return argument(context, name).lower() == "true"


def switch(name: str) -> ParameterValue:
    """Return a launch argument as a boolean parameter."""
    return ParameterValue(LaunchConfiguration(name), value_type=bool)


def share(*parts: str) -> PathJoinSubstitution:
    """Return a path below the share folder of this package."""
    return PathJoinSubstitution([FindPackageShare("sam2lite_ros"), *parts])
