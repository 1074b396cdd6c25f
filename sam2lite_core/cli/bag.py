"""Make and replay rosbag2 recordings: `sam2lite bag` and `sam2lite eval bag`."""

import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from sam2lite_core.cli.options import JsonOption, OverwriteOption, TrackerChoice, show_progress, spread_options
from sam2lite_core.files import check_json_path, write_json

ControllerOption = Annotated[
    str | None,
    typer.Option(
        help="How the deadline is kept: plain, predictive or off; predictive by default; always off with --scale."
    ),
]
TruthOption = Annotated[
    Path, typer.Option(help="Folder of true masks: 00000.png is the first image's; or STAMP.png, nanoseconds.")
]
StorageOption = Annotated[str, typer.Option(help="Storage of the bag that is written: sqlite3 or mcap.")]

bag_app = typer.Typer(help="Make rosbag2 recordings.", no_args_is_help=True)


@bag_app.callback()
def bag() -> None:
    """Make rosbag2 recordings."""


@bag_app.command("make")
def bag_make(
    frames: Annotated[str, typer.Argument(metavar="FRAMES", help="Folder of frames, or video file.")],
    out: Annotated[Path, typer.Argument(metavar="BAG", help="The bag's folder; it must not exist yet.")],
    fps: Annotated[float | None, typer.Option(help="Frames per second; by default the video's own, or 30.")] = None,
    topic: Annotated[str, typer.Option(help="Topic of the images.")] = "/camera/image_raw",
    compressed: Annotated[
        bool, typer.Option("--compressed", help="JPEG on TOPIC/compressed instead of raw bgr8.")
    ] = False,
    storage: StorageOption = "sqlite3",
) -> None:
    """Turn a folder of frames, or a video, into a bag that `ros2 bag` and Foxglove open."""
    from sam2lite_core.errors import SourceError
    from sam2lite_core.media.bags.store import is_bag
    from sam2lite_core.media.bags.writer import check_new_bag, check_topic, make_bag
    from sam2lite_core.media.open import open_source

    check_new_bag(out, storage)
    check_topic(topic)
    if is_bag(Path(frames)):
        raise SourceError(f"{frames}: is a bag already; `ros2 bag convert` makes other bags of it")
    with open_source(frames, fps=fps) as source:
        if source.length is None and frames.isdecimal():
            raise SourceError(f"camera {frames}: has no end; record a camera with `ros2 bag record`")
        with show_progress(f"writing {out}", source.length) as advance:
            count = make_bag(source, out, topic=topic, compressed=compressed, storage=storage, on_frame=advance)
    print(f"{count} frames in {out}")


@spread_options
def eval_bag(
    bag: Annotated[Path, typer.Argument(metavar="BAG", help="A rosbag2 folder, or its .db3 or .mcap file.")],
    truth: TruthOption,
    tracker: TrackerChoice,
    topic: Annotated[
        str | None, typer.Option(help="Images to play; by default the only topic that holds some.")
    ] = None,
    rate: Annotated[float, typer.Option(help="Play so many times as fast as it was recorded.")] = 1.0,
    mask: Annotated[
        Path | None, typer.Option(metavar="PNG", help="What to follow; by default the first image's truth.")
    ] = None,
    deadline_ms: Annotated[
        float | None, typer.Option(help="Time that a frame may take; by default the period, 0 for none.")
    ] = None,
    controller: ControllerOption = None,
    out: Annotated[Path | None, typer.Option(help="Folder for masks/ and bag.json.")] = None,
    out_bag: Annotated[Path | None, typer.Option(metavar="BAG", help="Bag to write with masks and statuses.")] = None,
    storage: StorageOption = "sqlite3",
    frames: Annotated[int | None, typer.Option(help="Play no more than so many images.")] = None,
    overwrite: OverwriteOption = False,
    json_file: JsonOption = None,
) -> None:
    """Play a bag to the ROS node in real time, and score what it publishes.

    What it processed is tracked again without node and deadline, to say why both differ.

    Needs ROS 2 and this package built.
    """
    from sam2lite_core.control.registry import DEFAULT_CONTROLLER
    from sam2lite_core.evaluation.bag.evaluate import evaluate_bag
    from sam2lite_core.evaluation.bag.request import Request
    from sam2lite_core.evaluation.bag.result import result_table
    from sam2lite_core.evaluation.bag.session import ReplayError

    check_json_path(json_file)
    request = Request(
        bag, truth, topic, mask, rate, deadline_ms, controller or DEFAULT_CONTROLLER, frames, tracker.options()
    )
    try:
        result = evaluate_bag(request, out, out_bag, storage=storage, overwrite=overwrite, progress=show_progress)
    except ReplayError as error:
        print(f"sam2lite: {error}", file=sys.stderr)
        raise typer.Exit(1) from None
    write_json(json_file, result)
    Console().print(result_table(result))
