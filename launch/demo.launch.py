"""Play a source to the tracker: `demo.launch.py source:=/path/to/frames mask:=/path/to.png`."""

import numpy as np
from launch import LaunchContext, LaunchDescription
from launch.actions import OpaqueFunction
from launch.launch_description_entity import LaunchDescriptionEntity
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import Node
from launch_ros.parameter_descriptions import ParameterValue

from sam2lite_core.scenes.clip import render_clip
from sam2lite_ros.launching import (
    PROMPT_ARGUMENTS,
    argument,
    declare_arguments,
    end_on_failure,
    initial_prompt,
    is_true,
    switch,
    tracker_node,
    use_large_shared_memory,
)

# name, default, description
ARGUMENTS = (
    ("source", "", "Folder of images, video file or camera index; empty plays the rendered clip."),
    *PROMPT_ARGUMENTS,
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


def first_rendered_object() -> list[float]:
    """Return the box x0, y0, x1, y1 of the rendered clip's first object, so that the clip plays without a prompt."""
    rows, columns = np.nonzero(render_clip(frames=1).label_maps[0] == 1)
    return [float(value) for value in (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)]


def start_tracker(context: LaunchContext) -> list[LaunchDescriptionEntity]:
    """Start the tracker with the prompt that the arguments give."""
    prompt = initial_prompt(context)
    if not (prompt or argument(context, "source")):
        prompt = {"initial_prompt.box": first_rendered_object(), "initial_prompt.object_id": 1}
    respawn = is_true(context, "respawn")
    return [tracker_node(prompt, respawn=respawn, respawn_delay=2.0, on_exit=None if respawn else end_on_failure)]


def generate_launch_description() -> LaunchDescription:
    """Describe the arguments and both nodes; the player waits until the tracker has subscribed."""
    player = Node(
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
    )
    return LaunchDescription(
        [
            *declare_arguments(ARGUMENTS, SWITCHES),
            OpaqueFunction(function=use_large_shared_memory),
            OpaqueFunction(function=start_tracker),
            player,
        ]
    )
