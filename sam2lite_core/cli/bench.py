"""`sam2lite bench`: speed and memory on this machine."""

import tempfile
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from sam2lite_core.cli.bench_controller import controller
from sam2lite_core.cli.bench_node import node
from sam2lite_core.cli.bench_parts import objects as bench_objects
from sam2lite_core.cli.bench_parts import parts
from sam2lite_core.cli.bench_peers import bench_peers
from sam2lite_core.cli.bench_roofline import roofline
from sam2lite_core.cli.options import JsonOption, ModelOption, ThreadsOption, numbers
from sam2lite_core.files import check_json_path, write_atomically, write_json

SCALES = "0.5,0.7,1"

app = typer.Typer(help="Measure speed and memory on this machine.")
app.command("controller")(controller)
app.command("node")(node)
app.command("parts")(parts)
app.command("objects")(bench_objects)
app.command("roofline")(roofline)


@app.callback(invoke_without_command=True)
def bench(
    context: typer.Context,
    variant: Annotated[
        str, typer.Option(help="Variants, comma-separated, or all; random weights where none ship.")
    ] = "tiny",
    backend: Annotated[
        str, typer.Option(help="Runtimes, comma-separated; auto, all that are installed, or transformers.")
    ] = "auto",
    precision: Annotated[
        str, typer.Option(help="Precisions, comma-separated, as the backend has them.")
    ] = "auto",
    device: Annotated[
        str | None, typer.Option(help="Device as the backend names it; auto by default, cpu with --peers.")
    ] = None,
    scales: Annotated[
        str | None, typer.Option(help=f"Resolution scales, comma-separated; {SCALES} by default.")
    ] = None,
    objects: Annotated[str, typer.Option(help="Numbers of objects, comma-separated.")] = "1,2,4,8,16",
    frames: Annotated[int, typer.Option(help="Timed steps per row.")] = 30,
    threads: ThreadsOption = None,
    model: ModelOption = None,
    endurance: Annotated[int, typer.Option(help="Also run this many steps in a row; 0 leaves it out.")] = 0,
    fresh: Annotated[
        bool, typer.Option(help="Also start a process for each model: cold start and peak memory.")
    ] = True,
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
    """Measure latency by model, scale and number of objects, cold start, memory, and energy where it can be read.

    With --endurance, the long run comes first, at the first scale, so that its memory is its own.

    With --peers, one object is followed by ours at scales 1 and 0.5 and by models of published architecture with random
    weights, each in turn, with the same threads.
    """
    if context.invoked_subcommand is not None:
        return
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
    run_bench(
        variant, backend, precision, device or "auto", scales, objects, frames, threads, model,
        endurance, fresh, json_file, markdown_file,
    )  # fmt: skip


def run_bench(
    variants: str,
    backends: str,
    precisions: str,
    device: str,
    scales: str | None,
    objects: str,
    frames: int,
    threads: int | None,
    model: Path | None,
    endurance: int,
    fresh: bool,
    json_file: Path | None,
    markdown_file: Path | None,
) -> None:
    """Measure every model, print the tables, write the files; arguments as in the options of `sam2lite bench`."""
    from sam2lite_core.backends.registry import FRAME_BACKENDS
    from sam2lite_core.bench import fresh_process
    from sam2lite_core.bench import step as measure
    from sam2lite_core.bench.energy import opened_gauge
    from sam2lite_core.bench.models import models
    from sam2lite_core.bench.tables import markdown

    own_size = backends in FRAME_BACKENDS and scales is None
    rungs: tuple[float | None, ...] = (None,) if own_size else numbers(scales or SCALES, "--scales")
    path = None if model is None else str(model)
    counts = tuple(int(value) for value in numbers(objects, "--objects"))
    common = measure.BenchSettings(
        threads=threads, model=path, scales=rungs, objects=counts, frames=frames, device=device
    )
    progress = Console(stderr=True)
    rows, processes, endured, first = [], [], None, None
    with tempfile.TemporaryDirectory() as work, opened_gauge() as gauge:
        for settings, weights in models(common, variants, backends, precisions, Path(work)):
            if first is None:
                first = settings
                if endurance:
                    endured = measure.endurance(settings, endurance, progress.print)
            rows += measure.latency_rows(settings, progress.print, gauge, weights)
            if fresh:
                progress.print("a process of its own")
                figures = fresh_process.measure(
                    measure.tracker_options(settings, rungs[-1]), (settings.height, settings.width)
                )
                names = ("variant", "backend", "precision", "weights")
                processes.append({**{name: rows[-1][name] for name in names}, **figures})
        energy = gauge.summary
    content = measure.report(
        first or common, rows, endured, fresh=processes if fresh else None, energy=energy
    )
    text = markdown(content)
    print(text)
    if endured is not None:
        print("\n".join(f"{name}: {value}" for name, value in endured.items()))
    if markdown_file is not None:
        write_atomically(markdown_file, text.encode())
    write_json(json_file, content)
