"""`sam2lite bench controller`: how deadlines are kept, on simulated devices or on this one."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from sam2lite_core.errors import ConfigurationError
from sam2lite_core.files import check_json_path, write_atomically, write_json


def controller(
    real: Annotated[
        bool, typer.Option("--real", help="The real tracker beside a CPU hog, instead of simulated devices.")
    ] = False,
    seeds: Annotated[int, typer.Option(help="Simulated runs of each kind.")] = 3,
    seconds: Annotated[float, typer.Option(help="With --real: how long the hog runs.")] = 20.0,
    variant: Annotated[str, typer.Option(help="With --real: tiny, small or base.")] = "tiny",
    backend: Annotated[str, typer.Option(help="With --real: runtime.")] = "auto",
    threads: Annotated[int | None, typer.Option(help="With --real: CPU threads of the runtime.")] = None,
    model: Annotated[Path | None, typer.Option(help="With --real: folder of an exported model.")] = None,
    json_file: Annotated[
        Path | None, typer.Option("--json", help="Also write the result to this file.")
    ] = None,
    markdown_file: Annotated[
        Path | None, typer.Option("--markdown", help="Also write the tables to this file.")
    ] = None,
    figure_file: Annotated[
        Path | None, typer.Option("--figure", help="Also draw the simulated runs into this PNG.")
    ] = None,
) -> None:
    """Compare the deadline controllers: settling, overshoot, missed deadlines, scale, and how often it changes."""
    from sam2lite_core.bench import controller_real, controller_simulation
    from sam2lite_core.report.figures import controller

    for file in (json_file, markdown_file, figure_file):
        check_json_path(file)
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
    print(text)
    if markdown_file is not None:
        write_atomically(markdown_file, text.encode())
    write_json(json_file, content)
