"""Replay a bag to the tracker, and record what it says: `replay.launch.py bag:=/path/to/bag mask:=/path/to.png`."""

import os
from pathlib import Path
from typing import Any

from launch import LaunchContext, LaunchDescription
from launch.actions import (
    DeclareLaunchArgument,
    ExecuteProcess,
    OpaqueFunction,
    RegisterEventHandler,
    SetEnvironmentVariable,
    Shutdown,
    TimerAction,
)
from launch.launch_description_entity import LaunchDescriptionEntity
from launch.substitutions import LaunchConfiguration, PathJoinSubstitution
from launch_ros.actions import LifecycleNode
from launch_ros.event_handlers import OnStateTransition
from launch_ros.parameter_descriptions import ParameterValue
from launch_ros.substitutions import FindPackageShare

SPELLINGS = ["true", "false", "True", "False"]
PROFILE_VARIABLES = ("FASTDDS_DEFAULT_PROFILES_FILE", "FASTRTPS_DEFAULT_PROFILES_FILE")

CLOCK_HZ = "200"
"""How often /clock is published: times of a mask are this fine."""

START_DELAY_S = "2"
"""Pause before the first message, in which everybody finds everybody: the first image carries the prompt."""

END_DELAY_S = 3.0
"""Pause after the last message, in which the last masks are still made and recorded."""

RECORDED = ".*/tracker/(mask|objects|status)$"
"""What is recorded. As a pattern, since Humble takes topics in another way than the distributions after it."""

# name, default, description
ARGUMENTS = (
    ("bag", "", "The bag to replay; it must be given."),
    ("image_topic", "/camera/image_raw", "Topic of the bag that carries the frames (sensor_msgs/Image)."),
    ("rate", "1.0", "Play so many times as fast as it was recorded."),
    ("record", "", "Bag to write with masks, objects and status; it must not exist. Empty records nothing."),
    ("mask", "", "PNG of the first frame's size; each of its labels is followed."),
    ("point", "", "X,Y in pixels of the first frame, on the object to follow."),
    ("box", "", "X0,Y0,X1,Y1 in pixels of the first frame, around the object to follow."),
    ("namespace", "", "Namespace of the tracker and its relative topics."),
)
SWITCHES = (
    ("use_sim_time", "true", "Publish the bag's time on /clock, and let tracker and recorder follow it."),
    ("autostart", "true", "Configure and activate the tracker at once; the bag is played once it is active."),
)


def use_large_shared_memory(context: LaunchContext) -> list[LaunchDescriptionEntity]:
    """Name the Fast DDS profile of this package to every process started here, unless the user has one."""
    if any(os.environ.get(name) for name in PROFILE_VARIABLES):
        return []
    profile = PathJoinSubstitution([FindPackageShare("sam2lite_ros"), "config", "fastdds_shm.xml"])
    return [SetEnvironmentVariable(name, profile) for name in PROFILE_VARIABLES]


def argument(context: LaunchContext, name: str) -> str:
    """Return a launch argument's value."""
    return str(LaunchConfiguration(name).perform(context))


def initial_prompt(context: LaunchContext) -> dict[str, Any]:
    """Turn the arguments mask, point and box into the tracker's parameters."""
    mask, point, box = (argument(context, name) for name in ("mask", "point", "box"))
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


def play_command(context: LaunchContext) -> list[str]:
    """`ros2 bag play`, in the words that Humble, Jazzy and Kilted share.

    Raises:
        RuntimeError: no bag was given, it does not exist, or the rate is no positive number.
    """
    bag, rate = argument(context, "bag"), argument(context, "rate")
    if not bag or not Path(bag).exists():
        raise RuntimeError(f"bag is {bag!r}, which does not exist; give bag:=/path/to/bag")
    try:
        positive = float(rate) > 0
    except ValueError:
        positive = False
    if not positive:
        raise RuntimeError(f"rate is {rate!r}; give a factor above 0, as in rate:=0.5")
    command = ["ros2", "bag", "play", bag, "--rate", rate, "--delay", START_DELAY_S]
    if is_true(context, "use_sim_time"):
        command += ["--clock", CLOCK_HZ]
    # Without a terminal of its own it would complain about the keys that it cannot read.
    return [*command, "--disable-keyboard-controls"]


def record_command(context: LaunchContext) -> list[str]:
    """`ros2 bag record`, in the words that Humble, Jazzy and Kilted share; empty when nothing is recorded.

    Raises:
        RuntimeError: something is already where the bag shall be.
    """
    target = argument(context, "record")
    if not target:
        return []
    if Path(target).exists():
        raise RuntimeError(f"record is {target!r}, which exists already; name a new bag")
    command = ["ros2", "bag", "record", "--output", target, "--regex", RECORDED]
    return [*command, "--use-sim-time"] if is_true(context, "use_sim_time") else command


def is_true(context: LaunchContext, name: str) -> bool:
    """Return a switch."""
    return argument(context, name).lower() == "true"


def end_on_failure(event: Any, context: LaunchContext) -> None:
    """End all that was launched, with exit code 1, when a process has failed by itself.

    The action Shutdown would end it with 0.

    Raises:
        RuntimeError: the process failed; launch shuts down for it.
    """
    if event.returncode != 0 and not context.is_shutdown:
        raise RuntimeError(f"{event.process_name} ended with code {event.returncode}")


def replay(context: LaunchContext) -> list[LaunchDescriptionEntity]:
    """Start recorder and tracker, and the bag once the tracker is active; all end after the bag."""
    tracker = LifecycleNode(
        package="sam2lite_ros",
        executable="tracker",
        name="tracker",
        namespace=LaunchConfiguration("namespace"),
        parameters=[
            LaunchConfiguration("params_file"),
            # One dictionary: without a prompt, another would be a file of parameters with none in it.
            {**initial_prompt(context), **{name: switch(name) for name in ("use_sim_time", "autostart")}},
        ],
        remappings=[("image", LaunchConfiguration("image_topic"))],
        arguments=["--ros-args", "--log-level", LaunchConfiguration("log_level")],
        on_exit=end_on_failure,
        output="screen",
    )
    play = ExecuteProcess(
        cmd=play_command(context),
        name="play",
        output="screen",
        # The interrupt that a shutdown sends is what makes the recorder complete its bag.
        on_exit=[TimerAction(period=END_DELAY_S, actions=[Shutdown(reason="the bag was played")])],
    )
    recorder = record_command(context)
    return [
        *([ExecuteProcess(cmd=recorder, name="record", output="screen")] if recorder else []),
        # Before the tracker, whose start this waits for.
        RegisterEventHandler(
            OnStateTransition(
                target_lifecycle_node=tracker, goal_state="active", entities=[play], handle_once=True
            )
        ),
        tracker,
    ]


def switch(name: str) -> ParameterValue:
    """Return a launch argument as a boolean parameter."""
    return ParameterValue(LaunchConfiguration(name), value_type=bool)


def generate_launch_description() -> LaunchDescription:
    """Describe the arguments, and what is started with them."""
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
            OpaqueFunction(function=replay),
        ]
    )
