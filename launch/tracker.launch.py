"""Start the tracker on a camera: `tracker.launch.py image_topic:=/camera/image_raw`."""

import os
from typing import Any

from launch import LaunchContext, LaunchDescription
from launch.actions import (
    DeclareLaunchArgument,
    OpaqueFunction,
    RegisterEventHandler,
    SetEnvironmentVariable,
)
from launch.conditions import IfCondition
from launch.event_handlers import OnProcessExit
from launch.launch_description_entity import LaunchDescriptionEntity
from launch.substitutions import LaunchConfiguration, PathJoinSubstitution
from launch_ros.actions import LifecycleNode
from launch_ros.parameter_descriptions import ParameterValue
from launch_ros.substitutions import FindPackageShare

SPELLINGS = ["true", "false", "True", "False"]
PROFILE_VARIABLES = ("FASTDDS_DEFAULT_PROFILES_FILE", "FASTRTPS_DEFAULT_PROFILES_FILE")


def use_large_shared_memory(context: LaunchContext) -> list[LaunchDescriptionEntity]:
    """Name the Fast DDS profile of this package to every node started here, unless the user has one."""
    if any(os.environ.get(name) for name in PROFILE_VARIABLES):
        return []
    profile = PathJoinSubstitution([FindPackageShare("sam2lite_ros"), "config", "fastdds_shm.xml"])
    return [SetEnvironmentVariable(name, profile) for name in PROFILE_VARIABLES]


def end_on_failure(event: Any, context: LaunchContext) -> None:
    """End all that was launched, with exit code 1, when a process has failed by itself.

    The action Shutdown would end it with 0.

    Raises:
        RuntimeError: the process failed; launch shuts down for it.
    """
    if event.returncode != 0 and not context.is_shutdown:
        raise RuntimeError(f"{event.process_name} ended with code {event.returncode}")


def generate_launch_description() -> LaunchDescription:
    """Describe the arguments and the node."""
    default_parameters = PathJoinSubstitution([FindPackageShare("sam2lite_ros"), "config", "tracker.yaml"])
    tracker = LifecycleNode(
        package="sam2lite_ros",
        executable="tracker",
        name="tracker",
        namespace=LaunchConfiguration("namespace"),
        parameters=[
            LaunchConfiguration("params_file"),
            {
                "use_sim_time": ParameterValue(LaunchConfiguration("use_sim_time"), value_type=bool),
                "autostart": ParameterValue(LaunchConfiguration("autostart"), value_type=bool),
            },
        ],
        remappings=[("image", LaunchConfiguration("image_topic"))],
        arguments=[
            "--ros-args",
            *("--log-level", LaunchConfiguration("log_level")),
            *("--enclave", LaunchConfiguration("enclave")),
        ],
        respawn=LaunchConfiguration("respawn"),
        respawn_delay=2.0,
        output="screen",
    )
    return LaunchDescription(
        [
            DeclareLaunchArgument(
                "params_file",
                default_value=default_parameters,
                description="YAML file with the tracker's parameters.",
            ),
            DeclareLaunchArgument(
                "namespace",
                default_value="",
                description="Namespace of the node and its relative topics.",
            ),
            DeclareLaunchArgument(
                "image_topic",
                default_value="image",
                description="Camera topic (sensor_msgs/Image); the compressed one is found beside it.",
            ),
            DeclareLaunchArgument(
                "use_sim_time",
                default_value="false",
                choices=SPELLINGS,
                description="Take the time from /clock, as replayed bags and simulators publish it.",
            ),
            DeclareLaunchArgument(
                "autostart",
                default_value="true",
                choices=SPELLINGS,
                description="Configure and activate the node at once; false leaves that to a lifecycle manager.",
            ),
            DeclareLaunchArgument(
                "log_level",
                default_value="info",
                choices=["debug", "info", "warn", "error", "fatal"],
                description="Least severe log messages to show.",
            ),
            DeclareLaunchArgument(
                "respawn",
                default_value="false",
                choices=SPELLINGS,
                description="Start the node again when its process ends unexpectedly.",
            ),
            DeclareLaunchArgument(
                "required",
                default_value="false",
                choices=SPELLINGS,
                description="End everything launched with this, with exit code 1, when the node fails; before respawn.",
            ),
            DeclareLaunchArgument(
                "enclave",
                default_value="/",
                description="SROS 2 enclave of the node; counts only where ROS_SECURITY_ENABLE is true.",
            ),
            OpaqueFunction(function=use_large_shared_memory),
            # Before the tracker, whose end this waits for.
            RegisterEventHandler(
                OnProcessExit(target_action=tracker, on_exit=end_on_failure),
                condition=IfCondition(LaunchConfiguration("required")),
            ),
            tracker,
        ]
    )
