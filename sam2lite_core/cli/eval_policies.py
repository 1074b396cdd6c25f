"""Compare memory policies by budget and by minute: `sam2lite eval policies` and `sam2lite eval long`."""

from functools import partial
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from sam2lite_core.cli.eval_datasets import Run, SequencesOption, YearOption
from sam2lite_core.cli.options import (
    BudgetOption,
    ModelChoice,
    ScaleOption,
    resumable,
    show_progress,
    split,
    spread_options,
    tracker_options,
    whole_numbers,
)
from sam2lite_core.files import check_json_path, write_atomically, write_json

FolderOption = Annotated[Path, typer.Option(help="Folder in DAVIS's layout.")]
TableFolderOption = Annotated[Path, typer.Option(help="Folder for the table; a killed run goes on there.")]
PoliciesOption = Annotated[str, typer.Option(help="Memory policies, comma-separated.")]
FigureOption = Annotated[Path | None, typer.Option("--figure", help="Draw J&F by minute there, PNG.")]
ALL_POLICIES = "learned,fifo,random,uniform"


@spread_options
def eval_policies(
    root: FolderOption,
    out: TableFolderOption,
    model: ModelChoice,
    run: Run,
    policies: PoliciesOption = ALL_POLICIES,
    budgets: Annotated[str, typer.Option(help="Memory tokens, comma-separated.")] = "64,128,256,384",
    sequences: SequencesOption = None,
    year: YearOption = 2016,
    scale: ScaleOption = None,
) -> None:
    """Compare memory policies at several budgets; every cell of the table is an evaluation of its own."""
    from sam2lite_core.datasets.davis import Davis
    from sam2lite_core.evaluation.policies import anything_finished, evaluate_policies
    from sam2lite_core.evaluation.runs.team import launched_team

    team = launched_team()
    team.main_does(lambda: check_json_path(run.json_file))
    options = tracker_options(model, scale, workers=run.workers)
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
            run.prompt,
            workers=run.workers,
            overwrite=run.overwrite,
            progress=lambda *_: advance(),
            finished=lambda cell: console.print(f"{cell.policy} {cell.budget}: J&F {100 * cell.jf:.1f}"),
            team=team,
        )
    team.main_does(lambda: write_json(run.json_file, content))
    if team.is_main:
        print((out / "policies.md").read_text(encoding="utf-8"))


@spread_options
def eval_long(
    root: FolderOption,
    out: TableFolderOption,
    model: ModelChoice,
    run: Run,
    sequences: SequencesOption = None,
    minutes: Annotated[int, typer.Option(help="Length of each video.")] = 5,
    fps: Annotated[float, typer.Option(help="Frames a second of the data; DAVIS has 24.")] = 24.0,
    policies: PoliciesOption = ALL_POLICIES,
    year: YearOption = 2016,
    scale: ScaleOption = None,
    budget: BudgetOption = None,
    markdown_file: Annotated[Path | None, typer.Option("--markdown", help="Write the tables there.")] = None,
    figure_file: FigureOption = None,
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
    for path in (run.json_file, markdown_file, figure_file):
        team.main_does(partial(check_json_path, path))
    if figure_file is not None:
        controller.check_drawing()
    options = tracker_options(model, scale, workers=run.workers)
    dataset = Looped(Davis(root, year, split(sequences)), long_videos.frames_of(minutes, fps))
    chosen, tokens = split(policies) or (), budget or get_variant(model.variant).memory_budget
    names = dataset.names()
    with (
        resumable(out, lambda: anything_finished(out, chosen, (tokens,)), team.is_main),
        show_progress("policies", len(names) * len(chosen), team.is_main) as advance,
    ):
        evaluate_policies(
            dataset, options, out, chosen, (tokens,), run.prompt, workers=run.workers, overwrite=run.overwrite,
            progress=lambda *_: advance(), team=team,
        )  # fmt: skip
    summary = long_videos.summarise(dataset, long_videos.read_cells(dataset, out, chosen, tokens), fps)
    content = {
        "title": dataset.title, "data": dataset.describe(), "fps": fps, "variant": model.variant, "scale": scale,
        "budget": tokens, "prompt": run.prompt, "sequences": names, "policies": summary,
    }  # fmt: skip
    table = long_videos.markdown(content)
    if team.is_main:
        write_json(run.json_file, content)
        if markdown_file is not None:
            write_atomically(markdown_file, table.encode())
        if figure_file is not None:
            write_atomically(figure_file, controller.png(draw(content)))
        print(table)
