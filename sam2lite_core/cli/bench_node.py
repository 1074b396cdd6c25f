"""`sam2lite bench node`: what the ROS node costs beside the model, and whether it holds out."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from sam2lite_core.cli.options import (
    BackendOption,
    JsonOption,
    ModelOption,
    ThreadsOption,
    VariantOption,
    show_progress,
)
from sam2lite_core.files import check_json_path, write_atomically, write_json


def node(
    frames: Annotated[int, typer.Option(help="Frames to send.")] = 300,
    minutes: Annotated[
        float, typer.Option(help="Soak: send frames for so long instead; 0 takes --frames.")
    ] = 0.0,
    rate: Annotated[float, typer.Option(help="Frames per second; their period is the deadline.")] = 10.0,
    variant: VariantOption = "tiny",
    backend: BackendOption = "auto",
    threads: ThreadsOption = None,
    model: ModelOption = None,
    json_file: JsonOption = None,
    markdown_file: Annotated[
        Path | None, typer.Option("--markdown", help="Also write the table to this file.")
    ] = None,
) -> None:
    """Run the node over DDS on a 640x480 clip: overhead from receiving to publishing, counters, memory, threads, files.

    The clip, rendered, is played over and over by a process of its own; masks and status are subscribed to.
    """
    from sam2lite_core.bench import node

    for file in (json_file, markdown_file):
        check_json_path(file)
    settings = node.NodeSettings(
        frames=round(minutes * 60 * rate) if minutes else frames,
        rate=rate,
        variant=variant,
        backend=backend,
        threads=threads,
        model=None if model is None else str(model),
    )
    Console(stderr=True).print(f"{settings.frames} frames, {settings.frames / rate:.0f} s")
    with show_progress("frames", settings.frames) as advance:
        content = node.measure(settings, advance)
    text = node.markdown(content)
    print(text)
    if markdown_file is not None:
        write_atomically(markdown_file, text.encode())
    write_json(json_file, content)
