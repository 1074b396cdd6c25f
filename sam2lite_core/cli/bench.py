"""Measure speed and memory on this machine: `sam2lite bench`."""

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from sam2lite_core.cli.bench_controller import controller
from sam2lite_core.cli.bench_node import node
from sam2lite_core.cli.bench_parts import objects as bench_objects
from sam2lite_core.cli.bench_parts import parts
from sam2lite_core.cli.bench_peers import Race, bench_peers
from sam2lite_core.cli.bench_roofline import roofline
from sam2lite_core.cli.options import ModelChoice, Outputs, numbers, spread_options

SCALES = "0.5,0.7,1"

app = typer.Typer(help="Measure speed and memory on this machine.")
app.command("controller")(controller)
app.command("node")(node)
app.command("parts")(parts)
app.command("objects")(bench_objects)
app.command("roofline")(roofline)


@dataclass(frozen=True)
class Models(ModelChoice):
    """Options of what is measured, and how long."""

    variant: Annotated[str, typer.Option(help="Variants, comma-separated, or all; random weights where none ship.")] = (
        "tiny"
    )
    backend: Annotated[
        str, typer.Option(help="Runtimes, comma-separated; auto, all that are installed, or transformers.")
    ] = "auto"
    precision: Annotated[str, typer.Option(help="Precisions, comma-separated, as the backend has them.")] = "auto"
    device: Annotated[
        str | None, typer.Option(help="Device as the backend names it; auto by default, cpu with --peers.")
    ] = None
    scales: Annotated[str | None, typer.Option(help=f"Resolution scales, comma-separated; {SCALES} by default.")] = None
    objects: Annotated[str, typer.Option(help="Numbers of objects, comma-separated.")] = "1,2,4,8,16"
    frames: Annotated[int, typer.Option(help="Timed steps per row.")] = 30
    endurance: Annotated[int, typer.Option(help="Also run this many steps in a row; 0 leaves it out.")] = 0
    fresh: Annotated[bool, typer.Option(help="Also start a process for each model: cold start and peak memory.")] = True


@app.callback(invoke_without_command=True)
@spread_options
def bench(context: typer.Context, chosen: Models, race: Race, outputs: Outputs) -> None:
    """Measure latency by model, scale and number of objects, cold start, memory, and energy where it can be read.

    With --endurance, the long run comes first, at the first scale, so that its memory is its own.

    With --peers, one object is followed by ours at scales 1 and 0.5 and by models of published architecture with random
    weights, each in turn, with the same threads.
    """
    if context.invoked_subcommand is not None:
        return
    outputs.check()
    if race.peers:
        bench_peers(
            race,
            outputs,
            variant=chosen.variant,
            backend=chosen.backend,
            precision=chosen.precision,
            device=chosen.device or "cpu",
            threads=chosen.threads,
            model=chosen.model_path,
        )
    else:
        run_bench(chosen, outputs)


def run_bench(chosen: Models, outputs: Outputs) -> None:
    """Measure every model, print the tables, write the files."""
    from sam2lite_core.backends.registry import FRAME_BACKENDS
    from sam2lite_core.bench import fresh_process
    from sam2lite_core.bench import step as measure
    from sam2lite_core.bench.energy import opened_gauge
    from sam2lite_core.bench.models import models
    from sam2lite_core.bench.tables import markdown

    own_size = chosen.backend in FRAME_BACKENDS and chosen.scales is None
    rungs: tuple[float | None, ...] = (None,) if own_size else numbers(chosen.scales or SCALES, "--scales")
    counts = tuple(int(value) for value in numbers(chosen.objects, "--objects"))
    common = measure.BenchSettings(
        threads=chosen.threads,
        model=chosen.model_path,
        scales=rungs,
        objects=counts,
        frames=chosen.frames,
        device=chosen.device or "auto",
    )
    progress = Console(stderr=True)
    rows, processes, endured, first = [], [], None, None
    with tempfile.TemporaryDirectory() as work, opened_gauge() as gauge:
        for settings, weights in models(common, chosen.variant, chosen.backend, chosen.precision, Path(work)):
            if first is None:
                first = settings
                if chosen.endurance:
                    endured = measure.endurance(settings, chosen.endurance, progress.print)
            rows += measure.latency_rows(settings, progress.print, gauge, weights)
            if chosen.fresh:
                progress.print("a process of its own")
                figures = fresh_process.measure(
                    measure.tracker_options(settings, rungs[-1]), (settings.height, settings.width)
                )
                names = ("variant", "backend", "precision", "weights")
                processes.append({**{name: rows[-1][name] for name in names}, **figures})
        energy = gauge.summary
    content = measure.report(first or common, rows, endured, fresh=processes if chosen.fresh else None, energy=energy)
    outputs.write(content, markdown(content))
    if endured is not None:
        print("\n".join(f"{name}: {value}" for name, value in endured.items()))
