"""`sam2lite bag`: rosbag2 recordings from what is no recording yet."""

from pathlib import Path
from typing import Annotated

import typer

from sam2lite_core.cli_options import show_progress

bag_app = typer.Typer(help="Make rosbag2 recordings.", no_args_is_help=True)


@bag_app.callback()
def bag() -> None:
    """Make rosbag2 recordings."""


@bag_app.command("make")
def bag_make(
    frames: Annotated[str, typer.Argument(help="Folder of frames, or video file.")],
    out: Annotated[Path, typer.Argument(metavar="BAG", help="The bag's folder; it must not exist yet.")],
    fps: Annotated[
        float | None, typer.Option(help="Frames per second; by default the video's own, or 30.")
    ] = None,
    topic: Annotated[str, typer.Option(help="Topic of the images.")] = "/camera/image_raw",
    compressed: Annotated[
        bool, typer.Option("--compressed", help="JPEG on TOPIC/compressed instead of raw bgr8.")
    ] = False,
    storage: Annotated[str, typer.Option(help="sqlite3 or mcap.")] = "sqlite3",
) -> None:
    """Turn a folder of frames, or a video, into a bag that `ros2 bag` and Foxglove open."""
    from sam2lite_core.bags.store import is_bag
    from sam2lite_core.bags.writer import check_new_bag, check_topic, make_bag
    from sam2lite_core.errors import SourceError
    from sam2lite_core.frame_sources import open_source

    check_new_bag(out, storage)
    check_topic(topic)
    if is_bag(Path(frames)):
        raise SourceError(f"{frames}: is a bag already; `ros2 bag convert` makes other bags of it")
    with open_source(frames, fps=fps) as source:
        if source.length is None and frames.isdecimal():
            raise SourceError(f"camera {frames}: has no end; record a camera with `ros2 bag record`")
        with show_progress(f"writing {out}", source.length) as advance:
            count = make_bag(
                source, out, topic=topic, compressed=compressed, storage=storage, on_frame=advance
            )
    print(f"{count} frames in {out}")
