"""Play a source to the tracker: `demo.launch.py source:=/path/to/frames mask:=/path/to.png`."""

import os
from pathlib import Path
from typing import Any

import numpy as np
from launch import LaunchContext, LaunchDescription
from launch.actions import DeclareLaunchArgument, OpaqueFunction, SetEnvironmentVariable
from launch.launch_description_entity import LaunchDescriptionEntity
from launch.substitutions import LaunchConfiguration, PathJoinSubstitution
from launch_ros.actions import LifecycleNode, Node
from launch_ros.parameter_descriptions import ParameterValue
from launch_ros.substitutions import FindPackageShare

from sam2lite_core.scenes.clip import render_clip

SPELLINGS = ["true", "false", "True", "False"]
PROFILE_VARIABLES = ("FASTDDS_DEFAULT_PROFILES_FILE", "FASTRTPS_DEFAULT_PROFILES_FILE")

# name, default, description
ARGUMENTS = (
    ("source", "", "Folder of images, video file or camera index; empty plays the rendered clip."),
    ("mask", "", "PNG of the first frame's size; each of its labels is followed."),
    ("point", "", "X,Y in pixels of the first frame, on the object to follow."),
    ("box", "", "X0,Y0,X1,Y1 in pixels of the first frame, around the object to follow."),
    ("rate", "0.0", "Frames per second; 0.0 takes the source's own."),
    ("namespace", "", "Namespace of both nodes and their relative topics."),
    ("image_topic", "image", "Topic that carries the frames."),
)
SWITCHES = (
    ("loop", "false", "Start over at the end."),
    ("use_sim_time", "false", "Let the player publish /clock and the tracker follow it."),
    ("autostart", "true", "Configure and activate the tracker at once."),
    ("respawn", "false", "Start the tracker again when its process ends unexpectedly."),
)


def use_large_shared_memory(context: LaunchContext) -> list[LaunchDescriptionEntity]:
    """Name the Fast DDS profile of this package to every node started here, unless the user has one."""
    if any(os.environ.get(name) for name in PROFILE_VARIABLES):
        return []
    profile = PathJoinSubstitution([FindPackageShare("sam2lite_ros"), "config", "fastdds_shm.xml"])
    return [SetEnvironmentVariable(name, profile) for name in PROFILE_VARIABLES]


def initial_prompt(context: LaunchContext) -> dict[str, Any]:
    """Turn the arguments mask, point and box into the tracker's parameters."""
    mask, point, box = (LaunchConfiguration(name).perform(context) for name in ("mask", "point", "box"))
    prompt: dict[str, Any] = {}
    if mask:
        # A plain string would be read as YAML, and a path may look like something else in YAML.
        prompt["initial_prompt.mask_file"] = ParameterValue(str(Path(mask).resolve()), value_type=str)
    if point:
        prompt["initial_prompt.points"] = [float(value) for value in point.split(",")]
    if box:
        prompt["initial_prompt.box"] = [float(value) for value in box.split(",")]
    if not (prompt or LaunchConfiguration("source").perform(context)):
        prompt["initial_prompt.box"] = first_rendered_object()
    prompt["initial_prompt.object_id"] = 0 if mask and not (point or box) else 1
    return prompt


def first_rendered_object() -> list[float]:
    """Return the box x0, y0, x1, y1 of the rendered clip's first object, so that the clip plays without a prompt."""
    rows, columns = np.nonzero(render_clip(frames=1).label_maps[0] == 1)
    return [float(value) for value in (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)]


def end_on_failure(event: Any, context: LaunchContext) -> None:
    """End all that was launched, with exit code 1, when a process has failed by itself.

    The action Shutdown would end it with 0.

    Raises:
        RuntimeError: the process failed; launch shuts down for it.
    """
    if event.returncode != 0 and not context.is_shutdown:
        raise RuntimeError(f"{event.process_name} ended with code {event.returncode}")


def start_tracker(context: LaunchContext) -> list[LaunchDescriptionEntity]:
    """Start the tracker with the prompt that the arguments give."""
    respawn = LaunchConfiguration("respawn").perform(context).lower() == "true"
    return [
        LifecycleNode(
            package="sam2lite_ros",
            executable="tracker",
            name="tracker",
            namespace=LaunchConfiguration("namespace"),
            parameters=[
                LaunchConfiguration("params_file"),
                {**initial_prompt(context), **{name: switch(name) for name in ("use_sim_time", "autostart")}},
            ],
            remappings=[("image", LaunchConfiguration("image_topic"))],
            arguments=["--ros-args", "--log-level", LaunchConfiguration("log_level")],
            respawn=respawn,
            respawn_delay=2.0,
            on_exit=None if respawn else end_on_failure,
            output="screen",
        )
    ]


def switch(name: str) -> ParameterValue:
    """Return a launch argument as a boolean parameter."""
    return ParameterValue(LaunchConfiguration(name), value_type=bool)


def generate_launch_description() -> LaunchDescription:
    """Describe the arguments and both nodes; the player waits until the tracker has subscribed."""
    parameters_file = PathJoinSubstitution([FindPackageShare("sam2lite_ros"), "config", "tracker.yaml"])
    return LaunchDescription(
        [
            *(
                DeclareLaunchArgument(name, default_value=value, description=text)
                for name, value, text in ARGUMENTS
            ),
            *(
                DeclareLaunchArgument(name, default_value=value, choices=SPELLINGS, description=text)
                for name, value, text in SWITCHES
            ),
            DeclareLaunchArgument(
                "params_file",
                default_value=parameters_file,
                description="YAML file with the tracker's parameters.",
            ),
            DeclareLaunchArgument(
                "log_level",
                default_value="info",
                choices=["debug", "info", "warn", "error", "fatal"],
                description="Least severe log messages to show.",
            ),
            OpaqueFunction(function=use_large_shared_memory),
            OpaqueFunction(function=start_tracker),
            Node(
                package="sam2lite_ros",
                executable="player",
                name="player",
                namespace=LaunchConfiguration("namespace"),
                parameters=[
                    {
                        "source": ParameterValue(LaunchConfiguration("source"), value_type=str),
                        "rate": ParameterValue(LaunchConfiguration("rate"), value_type=float),
                        "loop": switch("loop"),
                        "publish_clock": switch("use_sim_time"),
                    }
                ],
                remappings=[("image", LaunchConfiguration("image_topic"))],
                arguments=["--ros-args", "--log-level", LaunchConfiguration("log_level")],
                on_exit=end_on_failure,
                output="screen",
            ),
        ]
    )
