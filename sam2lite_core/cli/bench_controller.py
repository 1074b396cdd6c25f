"""Compare deadline controllers on simulated devices or on this one: `sam2lite bench controller`."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from sam2lite_core.cli.options import Outputs, spread_options
from sam2lite_core.errors import ConfigurationError
from sam2lite_core.files import check_json_path, write_atomically


@spread_options
def controller(
    outputs: Outputs,
    real: Annotated[
        bool, typer.Option("--real", help="The real tracker under CPU load, instead of simulated devices.")
    ] = False,
    seeds: Annotated[int, typer.Option(help="Simulated runs of each kind.")] = 3,
    seconds: Annotated[float, typer.Option(help="With --real: how long the CPU load lasts.")] = 20.0,
    variant: Annotated[str, typer.Option(help="With --real: tiny, small or base.")] = "tiny",
    backend: Annotated[str, typer.Option(help="With --real: runtime.")] = "auto",
    threads: Annotated[int | None, typer.Option(help="With --real: CPU threads of the runtime.")] = None,
    model: Annotated[Path | None, typer.Option(help="With --real: folder of an exported model.")] = None,
    figure_file: Annotated[
        Path | None, typer.Option("--figure", help="Also draw the simulated runs into this PNG.")
    ] = None,
) -> None:
    """Compare the deadline controllers: settling, overshoot, missed deadlines, scale, and how often it changes."""
    from sam2lite_core.bench import controller_real, controller_simulation
    from sam2lite_core.report.figures import controller

    outputs.check()
    check_json_path(figure_file)
    if real and figure_file is not None:
        raise ConfigurationError(f"--figure {figure_file} shows simulated runs; leave it out with --real")
    progress = Console(stderr=True)
    if real:
        settings = controller_real.RealSettings(
            variant, backend, threads, None if model is None else str(model), hog_s=seconds
        )
        content = controller_real.measure(settings, progress.print)
        text = controller_real.summary(content)
    else:
        if figure_file is not None:
            controller.check_drawing()
        content = controller_simulation.compare(seeds=seeds, tell=progress.print)
        text = controller.markdown(content)
        if figure_file is not None:
            write_atomically(figure_file, controller.png(controller.draw(content)))
    outputs.write(content, text)
