"""Measure the ROS node's overhead and endurance: `sam2lite bench node`."""

from typing import Annotated

import typer
from rich.console import Console

from sam2lite_core.cli.options import ModelChoice, Outputs, show_progress, spread_options


@spread_options
def node(
    model: ModelChoice,
    outputs: Outputs,
    frames: Annotated[int, typer.Option(help="Frames to send.")] = 300,
    minutes: Annotated[float, typer.Option(help="Soak: send frames for so long instead; 0 takes --frames.")] = 0.0,
    rate: Annotated[float, typer.Option(help="Frames per second; their period is the deadline.")] = 10.0,
) -> None:
    """Run the node over DDS on a 640x480 clip: overhead from receiving to publishing, counters, memory, threads, files.

    The clip, rendered, is played over and over by a process of its own; masks and status are subscribed to.
    """
    from sam2lite_core.bench import node

    outputs.check()
    settings = node.NodeSettings(
        frames=round(minutes * 60 * rate) if minutes else frames,
        rate=rate,
        variant=model.variant,
        backend=model.backend,
        threads=model.threads,
        model=model.model_path,
    )
    Console(stderr=True).print(f"{settings.frames} frames, {settings.frames / rate:.0f} s")
    with show_progress("frames", settings.frames) as advance:
        content = node.measure(settings, advance)
    outputs.write(content, node.markdown(content))
