"""Replay a bag to the tracker, and record what it says: `replay.launch.py bag:=/path/to/bag mask:=/path/to.png`."""

from pathlib import Path

from launch import LaunchContext, LaunchDescription
from launch.actions import ExecuteProcess, OpaqueFunction, RegisterEventHandler, Shutdown, TimerAction
from launch.launch_description_entity import LaunchDescriptionEntity
from launch_ros.event_handlers import OnStateTransition

from sam2lite_ros.launching import (
    PROMPT_ARGUMENTS,
    argument,
    declare_arguments,
    end_on_failure,
    initial_prompt,
    is_true,
    tracker_node,
    use_large_shared_memory,
)

CLOCK_HZ = "200"
"""Messages per second on /clock: times of a mask are this fine."""

START_DELAY_S = "2"
"""Pause before the first message, in which everybody finds everybody: the first image carries the prompt."""

END_DELAY_S = 3.0
"""Pause after the last message, in which the last masks are still made and recorded."""

RECORDED = ".*/tracker/(mask|objects|status)$"
"""Topics to record. A pattern, since Humble takes topics in another way than the distributions after it."""

# name, default, description
ARGUMENTS = (
    ("bag", "", "The bag to replay; it must be given."),
    ("image_topic", "/camera/image_raw", "Topic of the bag that carries the frames (sensor_msgs/Image)."),
    ("rate", "1.0", "Play so many times as fast as it was recorded."),
    ("record", "", "Bag to write with masks, objects and status; it must not exist. Empty records nothing."),
    *PROMPT_ARGUMENTS,
    ("namespace", "", "Namespace of the tracker and its relative topics."),
)
SWITCHES = (
    ("use_sim_time", "true", "Publish the bag's time on /clock, and let tracker and recorder follow it."),
    ("autostart", "true", "Configure and activate the tracker at once; the bag is played once it is active."),
)


def play_command(context: LaunchContext) -> list[str]:
    """Return the `ros2 bag play` command in the words that Humble, Jazzy and Kilted share.

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
    """Return the `ros2 bag record` command in the words that all distributions share; empty when nothing is recorded.

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


def replay(context: LaunchContext) -> list[LaunchDescriptionEntity]:
    """Start recorder and tracker, and the bag once the tracker is active; all end after the bag."""
    tracker = tracker_node(initial_prompt(context), on_exit=end_on_failure)
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
            OnStateTransition(target_lifecycle_node=tracker, goal_state="active", entities=[play], handle_once=True)
        ),
        tracker,
    ]


def generate_launch_description() -> LaunchDescription:
    """Describe the arguments, and what is started with them."""
    return LaunchDescription(
        [
            *declare_arguments(ARGUMENTS, SWITCHES),
            OpaqueFunction(function=use_large_shared_memory),
            OpaqueFunction(function=replay),
        ]
    )
