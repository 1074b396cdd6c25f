"""`sam2lite eval policies` and `sam2lite eval long`: memory policies side by side, by budget and by minute."""

from functools import partial
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from sam2lite_core.cli.eval_datasets import PromptOption, SequencesOption, WorkersOption, YearOption, split
from sam2lite_core.cli.options import (
    BackendOption,
    BudgetOption,
    JsonOption,
    ModelOption,
    OverwriteOption,
    ScaleOption,
    ThreadsOption,
    VariantOption,
    numbers,
    resumable,
    show_progress,
    tracker_options,
)
from sam2lite_core.errors import ConfigurationError
from sam2lite_core.files import check_json_path, write_atomically, write_json
from sam2lite_core.variants import DEFAULT_POLICY


def whole_numbers(text: str, name: str) -> tuple[int, ...]:
    """Comma-separated whole numbers of an option.

    Raises:
        ConfigurationError: something else; the message names the option.
    """
    values = numbers(text, name)
    for value in values:
        if not value.is_integer():
            raise ConfigurationError(f"{name} {value:g} is not a whole number")
    return tuple(int(value) for value in values)


def eval_policies(
    root: Annotated[Path, typer.Option(help="Folder in DAVIS's layout.")],
    out: Annotated[Path, typer.Option(help="Folder for the table; a killed run goes on there.")],
    policies: Annotated[
        str, typer.Option(help="Memory policies, comma-separated.")
    ] = "learned,fifo,random,uniform",
    budgets: Annotated[str, typer.Option(help="Memory tokens, comma-separated.")] = "64,128,256,384",
    sequences: SequencesOption = None,
    year: YearOption = 2016,
    prompt: PromptOption = "mask",
    variant: VariantOption = "tiny",
    backend: BackendOption = "auto",
    scale: ScaleOption = None,
    threads: ThreadsOption = None,
    model: ModelOption = None,
    workers: WorkersOption = 1,
    overwrite: OverwriteOption = False,
    json_file: JsonOption = None,
) -> None:
    """Compare memory policies at several budgets; every cell of the table is an evaluation of its own."""
    from sam2lite_core.datasets.davis import Davis
    from sam2lite_core.evaluation.policies import anything_finished, evaluate_policies
    from sam2lite_core.evaluation.runs.team import launched_team

    team = launched_team()
    team.main_does(lambda: check_json_path(json_file))
    options = tracker_options(variant, backend, scale, None, DEFAULT_POLICY, threads, model, workers)
    dataset = Davis(root, year, split(sequences))
    chosen, tokens = split(policies) or (), whole_numbers(budgets, "--budgets")
    console = Console(stderr=True, quiet=not team.is_main)
    total = len(dataset.names()) * len(chosen) * len(tokens)
    with (
        resumable(out, lambda: anything_finished(out, chosen, tokens), team.is_main),
        show_progress("policies and budgets", total, team.is_main) as advance,
    ):
        content = evaluate_policies(
            dataset,
            options,
            out,
            chosen,
            tokens,
            prompt,
            workers=workers,
            overwrite=overwrite,
            progress=lambda *_: advance(),
            finished=lambda cell: console.print(f"{cell.policy} {cell.budget}: J&F {100 * cell.jf:.1f}"),
            team=team,
        )
    team.main_does(lambda: write_json(json_file, content))
    if team.is_main:
        print((out / "policies.md").read_text(encoding="utf-8"))


def eval_long(
    root: Annotated[Path, typer.Option(help="Folder in DAVIS's layout.")],
    out: Annotated[Path, typer.Option(help="Folder for the table; a killed run goes on there.")],
    sequences: SequencesOption = None,
    minutes: Annotated[int, typer.Option(help="Length of each video.")] = 5,
    fps: Annotated[float, typer.Option(help="Frames a second of the data; DAVIS has 24.")] = 24.0,
    policies: Annotated[
        str, typer.Option(help="Memory policies, comma-separated.")
    ] = "learned,fifo,random,uniform",
    year: YearOption = 2016,
    prompt: PromptOption = "mask",
    variant: VariantOption = "tiny",
    backend: BackendOption = "auto",
    scale: ScaleOption = None,
    budget: BudgetOption = None,
    threads: ThreadsOption = None,
    model: ModelOption = None,
    workers: WorkersOption = 1,
    overwrite: OverwriteOption = False,
    json_file: JsonOption = None,
    markdown_file: Annotated[Path | None, typer.Option("--markdown", help="Write the tables there.")] = None,
    figure_file: Annotated[
        Path | None, typer.Option("--figure", help="Draw J&F by minute there, PNG.")
    ] = None,
) -> None:
    """Play sequences forward and backward for minutes, and tell J&F minute by minute and memory policy.

    OUT/POLICY-BUDGET holds every frame's scores.
    """
    from sam2lite_core.datasets.davis import Davis
    from sam2lite_core.datasets.looped import Looped
    from sam2lite_core.evaluation import long_videos
    from sam2lite_core.evaluation.policies import anything_finished, evaluate_policies
    from sam2lite_core.evaluation.runs.team import launched_team
    from sam2lite_core.report.figures import controller
    from sam2lite_core.report.figures.long_videos import draw
    from sam2lite_core.variants import get_variant

    team = launched_team()
    for path in (json_file, markdown_file, figure_file):
        team.main_does(partial(check_json_path, path))
    if figure_file is not None:
        controller.check_drawing()
    options = tracker_options(variant, backend, scale, None, DEFAULT_POLICY, threads, model, workers)
    dataset = Looped(Davis(root, year, split(sequences)), long_videos.frames_of(minutes, fps))
    chosen, tokens = split(policies) or (), budget or get_variant(variant).memory_budget
    names = dataset.names()
    with (
        resumable(out, lambda: anything_finished(out, chosen, (tokens,)), team.is_main),
        show_progress("policies", len(names) * len(chosen), team.is_main) as advance,
    ):
        evaluate_policies(
            dataset, options, out, chosen, (tokens,), prompt, workers=workers, overwrite=overwrite,
            progress=lambda *_: advance(), team=team,
        )  # fmt: skip
    summary = long_videos.summarise(dataset, long_videos.read_cells(dataset, out, chosen, tokens), fps)
    content = {
        "title": dataset.title, "data": dataset.describe(), "fps": fps, "variant": variant, "scale": scale,
        "budget": tokens, "prompt": prompt, "sequences": names, "policies": summary,
    }  # fmt: skip
    table = long_videos.markdown(content)
    if team.is_main:
        write_json(json_file, content)
        if markdown_file is not None:
            write_atomically(markdown_file, table.encode())
        if figure_file is not None:
            write_atomically(figure_file, controller.png(draw(content)))
        print(table)
