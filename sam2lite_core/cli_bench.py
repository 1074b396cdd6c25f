"""`sam2lite bench`: speed and memory on this machine."""

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from sam2lite_core.cli_bench_controller import controller
from sam2lite_core.cli_bench_parts import objects as bench_objects
from sam2lite_core.cli_bench_parts import parts
from sam2lite_core.cli_bench_peers import bench_peers
from sam2lite_core.cli_options import (
    BackendOption,
    JsonOption,
    ModelOption,
    ThreadsOption,
    VariantOption,
    numbers,
)
from sam2lite_core.files import check_json_path, write_atomically, write_json

app = typer.Typer(help="Measure speed and memory on this machine.")
app.command("controller")(controller)
app.command("parts")(parts)
app.command("objects")(bench_objects)


@app.callback(invoke_without_command=True)
def bench(
    context: typer.Context,
    variant: VariantOption = "tiny",
    backend: BackendOption = "auto",
    precision: Annotated[str, typer.Option(help="Precision of the weights, as the backend has it.")] = "auto",
    device: Annotated[
        str | None, typer.Option(help="Device as the backend names it; auto by default, cpu with --peers.")
    ] = None,
    scales: Annotated[str, typer.Option(help="Resolution scales, comma-separated.")] = "0.5,0.7,1",
    objects: Annotated[str, typer.Option(help="Numbers of objects, comma-separated.")] = "1,2,4,8,16",
    frames: Annotated[int, typer.Option(help="Timed steps per row.")] = 30,
    threads: ThreadsOption = None,
    model: ModelOption = None,
    endurance: Annotated[int, typer.Option(help="Also run this many steps in a row; 0 leaves it out.")] = 0,
    peers: Annotated[
        bool, typer.Option("--peers", help="Race SAM 2.1-tiny and EdgeTAM instead, in the same run.")
    ] = False,
    rounds: Annotated[int, typer.Option(help="With --peers: timed frames of each peer.")] = 5,
    peer_sides: Annotated[
        str | None,
        typer.Option(help="With --peers: sides of their inputs, px; their own and near to ours by default."),
    ] = None,
    json_file: JsonOption = None,
    markdown_file: Annotated[
        Path | None, typer.Option("--markdown", help="Also write the table to this file.")
    ] = None,
) -> None:
    """Measure latency by scale and number of objects, and memory growth over many steps.

    With --endurance, the long run comes first, at the first scale, so that its memory is its own.

    With --peers, one object is followed by ours at scales 1 and 0.5 and by models of published architecture with random
    weights, each in turn, with the same threads.
    """
    if context.invoked_subcommand is not None:
        return
    from sam2lite_core.evaluation import bench as measure

    for file in (json_file, markdown_file):
        check_json_path(file)
    if peers:
        bench_peers(
            variant,
            backend,
            precision,
            device or "cpu",
            threads,
            model,
            rounds,
            peer_sides,
            json_file,
            markdown_file,
        )
        return
    counts = tuple(int(value) for value in numbers(objects, "--objects"))
    settings = measure.BenchSettings(
        variant,
        backend,
        threads,
        None if model is None else str(model),
        numbers(scales, "--scales"),
        counts,
        frames,
    )
    progress = Console(stderr=True)
    endured = None
    if endurance:
        first = replace(settings, scales=settings.scales[:1])
        endured = measure.endurance(first, endurance, progress.print)
    rows = measure.latency_rows(settings, progress.print)
    content = measure.report(settings, rows, endured)
    text = measure.markdown(content)
    print(text)
    if endured is not None:
        print("\n".join(f"{name}: {value}" for name, value in endured.items()))
    if markdown_file is not None:
        write_atomically(markdown_file, text.encode())
    write_json(json_file, content)
