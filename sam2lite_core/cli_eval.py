"""`sam2lite eval`: score the tracker, or anybody's masks, by a dataset's protocol."""

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich import box
from rich.console import Console
from rich.table import Table

from sam2lite_core.cli_options import (
    BackendOption,
    BudgetOption,
    JsonOption,
    ModelOption,
    OverwriteOption,
    PolicyOption,
    ScaleOption,
    ThreadsOption,
    VariantOption,
    resumable,
    show_progress,
    tracker_options,
)
from sam2lite_core.errors import ConfigurationError
from sam2lite_core.files import check_json_path, write_json
from sam2lite_core.variants import DEFAULT_POLICY

if TYPE_CHECKING:
    from sam2lite_core.evaluation.evaluate import TrackerOptions
    from sam2lite_core.evaluation.layouts.base import Dataset
    from sam2lite_core.evaluation.metrics import Statistic
    from sam2lite_core.evaluation.results import Evaluation

eval_app = typer.Typer(help="Score masks by a dataset's protocol.", no_args_is_help=True)

OutOption = Annotated[
    Path, typer.Option(help="Folder for the result; a killed run goes on from OUT.unfinished.")
]
SequencesOption = Annotated[str | None, typer.Option(help="Names, with commas between them; all by default.")]
PromptOption = Annotated[str, typer.Option(help="How objects are shown: mask, box or point.")]
WorkersOption = Annotated[int, typer.Option(help="Processes; the scores do not depend on it, the times do.")]
YearOption = Annotated[int, typer.Option(help="2016: all objects as one; 2017: each by itself.")]


def split(names: str | None) -> tuple[str, ...] | None:
    """Comma-separated names of an option.

    Raises:
        ConfigurationError: a name that is given twice, which would count twice in every mean.
    """
    if names is None:
        return None
    found = tuple(name.strip() for name in names.split(",") if name.strip())
    for name in found:
        if found.count(name) > 1:
            raise ConfigurationError(f"--sequences names {name} twice; name each once")
    return found


def run_evaluation(
    dataset: "Dataset",
    options: "TrackerOptions",
    prompt: str,
    out: Path,
    workers: int,
    overwrite: bool,
    json_file: Path | None,
    more_tables: "Sequence[Callable[[Evaluation], Table]]" = (),
    note: str | None = None,
) -> None:
    """Evaluate with a progress bar, write the JSON, print tables of the result: of many processes, one does that.

    A note is said before the work starts, on stderr.
    """
    from sam2lite_core.evaluation.evaluate import evaluate, result_document
    from sam2lite_core.evaluation.resume import Unfinished, unfinished_folder
    from sam2lite_core.evaluation.team import launched_team

    team = launched_team()
    team.main_does(lambda: check_json_path(json_file))
    work = Unfinished(unfinished_folder(out))
    names = dataset.names()
    if note is not None and team.is_main:
        print(f"sam2lite: {note}", file=sys.stderr)
    with (
        resumable(work.folder, lambda: bool(work.finished()), team.is_main),
        show_progress(f"{len(names)} sequences", len(names), team.is_main) as advance,
    ):
        result = evaluate(
            dataset,
            options,
            prompt,
            out,
            workers=workers,
            overwrite=overwrite,
            progress=lambda *_: advance(),
            team=team,
        )
    team.main_does(lambda: write_json(json_file, result_document(result)))
    if team.is_main:
        for table in (score_table, *more_tables):
            Console().print(table(result))


@eval_app.command("davis")
def eval_davis(
    root: Annotated[Path, typer.Option(help="Folder that holds JPEGImages and Annotations.")],
    out: OutOption,
    sequences: SequencesOption = None,
    year: YearOption = 2016,
    prompt: PromptOption = "mask",
    variant: VariantOption = "tiny",
    backend: BackendOption = "auto",
    scale: ScaleOption = None,
    budget: BudgetOption = None,
    policy: PolicyOption = DEFAULT_POLICY,
    threads: ThreadsOption = None,
    model: ModelOption = None,
    workers: WorkersOption = 1,
    overwrite: OverwriteOption = False,
    json_file: JsonOption = None,
) -> None:
    """Score the tracker by the DAVIS protocol."""
    from sam2lite_core.evaluation.layouts.davis import Davis

    options = tracker_options(variant, backend, scale, budget, policy, threads, model, workers)
    dataset = Davis(root, year, split(sequences))
    run_evaluation(dataset, options, prompt, out, workers, overwrite, json_file)


@eval_app.command("ytvos")
def eval_ytvos(
    root: Annotated[Path, typer.Option(help="Folder of one split, which holds JPEGImages and Annotations.")],
    out: OutOption,
    sequences: SequencesOption = None,
    prompt: PromptOption = "mask",
    variant: VariantOption = "tiny",
    backend: BackendOption = "auto",
    scale: ScaleOption = None,
    budget: BudgetOption = None,
    policy: PolicyOption = DEFAULT_POLICY,
    threads: ThreadsOption = None,
    model: ModelOption = None,
    workers: WorkersOption = 1,
    overwrite: OverwriteOption = False,
    json_file: JsonOption = None,
) -> None:
    """Follow YouTube-VOS's objects; masks/ is what its server wants, in a zip file."""
    from sam2lite_core.evaluation.layouts.vos import YouTubeVos

    options = tracker_options(variant, backend, scale, budget, policy, threads, model, workers)
    dataset = YouTubeVos(root, split(sequences))
    run_evaluation(dataset, options, prompt, out, workers, overwrite, json_file, note=dataset.assumption)


@eval_app.command("mose")
def eval_mose(
    root: Annotated[Path, typer.Option(help="Folder of one split, which holds JPEGImages and Annotations.")],
    out: OutOption,
    sequences: SequencesOption = None,
    prompt: PromptOption = "mask",
    variant: VariantOption = "tiny",
    backend: BackendOption = "auto",
    scale: ScaleOption = None,
    budget: BudgetOption = None,
    policy: PolicyOption = DEFAULT_POLICY,
    threads: ThreadsOption = None,
    model: ModelOption = None,
    workers: WorkersOption = 1,
    overwrite: OverwriteOption = False,
    json_file: JsonOption = None,
) -> None:
    """Follow MOSE's objects; masks/ is what its server wants, in a zip file."""
    from sam2lite_core.evaluation.layouts.vos import Mose

    options = tracker_options(variant, backend, scale, budget, policy, threads, model, workers)
    dataset = Mose(root, split(sequences))
    run_evaluation(dataset, options, prompt, out, workers, overwrite, json_file)


@eval_app.command("bdd100k")
def eval_bdd100k(
    root: Annotated[
        Path, typer.Option(help="Folder that holds images/seg_track_20 and labels/seg_track_20.")
    ],
    out: OutOption,
    sequences: SequencesOption = None,
    data_split: Annotated[str, typer.Option("--split", help="train, val or test.")] = "val",
    prompt: PromptOption = "mask",
    variant: VariantOption = "tiny",
    backend: BackendOption = "auto",
    scale: ScaleOption = None,
    budget: BudgetOption = None,
    policy: PolicyOption = DEFAULT_POLICY,
    threads: ThreadsOption = None,
    model: ModelOption = None,
    workers: WorkersOption = 1,
    overwrite: OverwriteOption = False,
    json_file: JsonOption = None,
) -> None:
    """Score the tracker on BDD100K's segmentation-tracking videos."""
    from sam2lite_core.evaluation.layouts.bdd100k import Bdd100k

    options = tracker_options(variant, backend, scale, budget, policy, threads, model, workers)
    dataset = Bdd100k(root, data_split, split(sequences))
    run_evaluation(dataset, options, prompt, out, workers, overwrite, json_file)


@eval_app.command("stress")
def eval_stress(
    out: OutOption,
    sets: Annotated[str | None, typer.Option(help="Sets, with commas between them; all by default.")] = None,
    clips: Annotated[int, typer.Option(help="Clips of each set.")] = 3,
    prompt: PromptOption = "mask",
    variant: VariantOption = "tiny",
    backend: BackendOption = "auto",
    scale: ScaleOption = None,
    budget: BudgetOption = None,
    policy: PolicyOption = DEFAULT_POLICY,
    threads: ThreadsOption = None,
    model: ModelOption = None,
    workers: WorkersOption = 1,
    overwrite: OverwriteOption = False,
    json_file: JsonOption = None,
) -> None:
    """Score the tracker on rendered clips of what is hard.

    The sets: long_occlusion, exit_return, look_alikes, tiny_objects, fast_motion, light_change, sixteen_objects.

    The first two have absences: --sets long_occlusion,exit_return --clips 25 makes 50 of them.
    """
    from sam2lite_core.evaluation.layouts.stress import Stress

    options = tracker_options(variant, backend, scale, budget, policy, threads, model, workers)
    dataset = Stress(split(sets), clips)
    run_evaluation(dataset, options, prompt, out, workers, overwrite, json_file, [stress_table])


@eval_app.command("results")
def eval_results(
    prediction: Annotated[Path, typer.Argument(metavar="PRED", help="Masks: SEQUENCE/FRAME.png.")],
    truth: Annotated[Path, typer.Argument(metavar="GT", help="True masks, laid out likewise.")],
    as_one: Annotated[bool, typer.Option(help="Take all objects as one, as DAVIS 2016 does.")] = False,
    json_file: JsonOption = None,
) -> None:
    """Score masks that any tracker made, by the DAVIS protocol."""
    from sam2lite_core.evaluation.foreign import score_results

    check_json_path(json_file)
    result = score_results(prediction, truth, as_one=as_one)
    write_json(json_file, result.to_json())
    Console().print(score_table(result))


def score_table(result: "Evaluation") -> Table:
    """The scores of an evaluation, per cent, a row per sequence and one for all; `std` is consistency."""
    prompt = result.settings.get("prompt")
    title = result.protocol + (f", shown by {prompt}" if prompt else "")
    table = Table(title=title, box=box.SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
    table.add_column("sequence", overflow="fold")
    for name in ("J&F", "J", "F", "recall", "decay", "std", "flicker", "FPS"):
        table.add_column(name, justify="right", no_wrap=True)
    for entry in result.sequences:
        scores, steady = entry.scores, entry.stability
        row = [""] * 7
        if scores is not None and steady is not None:
            row = _score_cells(scores.j, scores.f, steady.consistency, steady.flicker)
        table.add_row(entry.name, *row, _rate(entry.timing.get("fps")))
    table.add_section()
    row = [""] * 7
    if result.j is not None and result.f is not None:
        steadiness = (result.mean_stability("consistency"), result.mean_stability("flicker"))
        row = _score_cells(result.j, result.f, *steadiness)
    table.add_row("all", *row, _rate(result.fps))
    return table


def stress_table(result: "Evaluation") -> Table:
    """J&F by set, and what became of absences, per cent."""
    from sam2lite_core.evaluation.absence import summarise_absences

    absence = summarise_absences(result.sequences)
    figures = {f"{name} J&F": result.set_jf(name) for name in result.settings["data"]["sets"]}
    figures[f"LOST within 10 frames, of {absence.absences} absences"] = absence.lost_within_10
    figures[f"found within 15 frames, of {absence.returns} returns"] = absence.found_within_15
    figures["false LOST"] = absence.false_lost
    table = Table(box=box.SIMPLE_HEAD)
    table.add_column("stress")
    table.add_column("", justify="right")
    for name, value in figures.items():
        table.add_row(name, "" if value is None else f"{100 * value:.1f}")
    return table


def _score_cells(j: "Statistic", f: "Statistic", std: float | None, flicker: float | None) -> list[str]:
    """J&F, J, F, recall and decay of J, consistency and flicker, per cent."""
    values = ((j.mean + f.mean) / 2, j.mean, f.mean, j.recall, j.decay, std, flicker)
    return ["" if value is None else f"{100 * value:.1f}" for value in values]


def _rate(value: float | None) -> str:
    return "" if value is None else f"{value:.1f}"
