"""`sam2lite bench`: speed and memory on this machine."""

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from sam2lite_core.cli_bench_controller import controller
from sam2lite_core.cli_bench_parts import objects as bench_objects
from sam2lite_core.cli_bench_parts import parts
from sam2lite_core.cli_numbers import numbers
from sam2lite_core.files import check_json_path, write_json

app = typer.Typer(help="Measure speed and memory on this machine.")
app.command("controller")(controller)
app.command("parts")(parts)
app.command("objects")(bench_objects)


@app.callback(invoke_without_command=True)
def bench(
    context: typer.Context,
    variant: Annotated[str, typer.Option(help="Model variant: tiny, small or base.")] = "tiny",
    backend: Annotated[str, typer.Option(help="Runtime; auto takes the best that is installed.")] = "auto",
    scales: Annotated[str, typer.Option(help="Resolution scales, comma-separated.")] = "0.5,0.7,1",
    objects: Annotated[str, typer.Option(help="Numbers of objects, comma-separated.")] = "1,2,4,8,16",
    frames: Annotated[int, typer.Option(help="Timed steps per row.")] = 30,
    threads: Annotated[int | None, typer.Option(help="CPU threads of the runtime.")] = None,
    model: Annotated[Path | None, typer.Option(help="Folder of an exported model.")] = None,
    endurance: Annotated[int, typer.Option(help="Also run this many steps in a row; 0 leaves it out.")] = 0,
    json_file: Annotated[
        Path | None, typer.Option("--json", help="Also write the result to this file.")
    ] = None,
) -> None:
    """Measure latency by scale and number of objects, and memory growth over many steps.

    With --endurance, the long run comes first, at the first scale, so that its memory is its own.
    """
    if context.invoked_subcommand is not None:
        return
    from sam2lite_core.evaluation import bench as measure

    check_json_path(json_file)
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
    print(measure.markdown(content))
    if endured is not None:
        print("\n".join(f"{name}: {value}" for name, value in endured.items()))
    write_json(json_file, content)
