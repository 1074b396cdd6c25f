"""Start the tracker on a camera: `tracker.launch.py image_topic:=/camera/image_raw`."""

from launch import LaunchDescription
from launch.actions import OpaqueFunction, RegisterEventHandler
from launch.conditions import IfCondition
from launch.event_handlers import OnProcessExit
from launch.substitutions import LaunchConfiguration

from sam2lite_ros.launching import declare_arguments, end_on_failure, tracker_node, use_large_shared_memory

# name, default, description
ARGUMENTS = (
    ("namespace", "", "Namespace of the node and its relative topics."),
    ("image_topic", "image", "Camera topic (sensor_msgs/Image); the compressed one is found beside it."),
    ("enclave", "/", "SROS 2 enclave of the node; counts only where ROS_SECURITY_ENABLE is true."),
)
SWITCHES = (
    ("use_sim_time", "false", "Take the time from /clock, as replayed bags and simulators publish it."),
    ("autostart", "true", "Configure and activate the node at once; false leaves that to a lifecycle manager."),
    ("respawn", "false", "Start the node again when its process ends unexpectedly."),
    ("required", "false", "End everything launched with this, with exit code 1, when the node fails; before respawn."),
)


def generate_launch_description() -> LaunchDescription:
    """Describe the arguments and the node."""
    tracker = tracker_node(
        arguments=["--enclave", LaunchConfiguration("enclave")],
        respawn=LaunchConfiguration("respawn"),
        respawn_delay=2.0,
    )
    return LaunchDescription(
        [
            *declare_arguments(ARGUMENTS, SWITCHES),
            OpaqueFunction(function=use_large_shared_memory),
            # Before the tracker, whose end this waits for.
            RegisterEventHandler(
                OnProcessExit(target_action=tracker, on_exit=end_on_failure),
                condition=IfCondition(LaunchConfiguration("required")),
            ),
            tracker,
        ]
    )
