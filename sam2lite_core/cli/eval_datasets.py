"""Score the tracker, or anybody's masks, by a dataset's protocol: `sam2lite eval`."""

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table

from sam2lite_core.cli.options import (
    JsonOption,
    OverwriteOption,
    TrackerChoice,
    resumable,
    show_progress,
    split,
    spread_options,
)
from sam2lite_core.files import check_json_path, write_json

if TYPE_CHECKING:
    from sam2lite_core.datasets.base import Dataset
    from sam2lite_core.evaluation.results import Evaluation

eval_app = typer.Typer(help="Score masks by a dataset's protocol.", no_args_is_help=True)

OutOption = Annotated[Path, typer.Option(help="Folder for the result; a killed run goes on from OUT.unfinished.")]
SequencesOption = Annotated[str | None, typer.Option(help="Names, with commas between them; all by default.")]
PromptOption = Annotated[str, typer.Option(help="How objects are shown: mask, box or point.")]
WorkersOption = Annotated[int, typer.Option(help="Processes; the scores do not depend on it, the times do.")]
SplitRootOption = Annotated[Path, typer.Option(help="Folder of one split, which holds JPEGImages and Annotations.")]
YearOption = Annotated[int, typer.Option(help="2016: all objects as one; 2017: each by itself.")]


@dataclass(frozen=True)
class Run:
    """Options of an evaluation that goes on from where it was stopped."""

    prompt: PromptOption = "mask"
    workers: WorkersOption = 1
    overwrite: OverwriteOption = False
    json_file: JsonOption = None


def run_evaluation(
    dataset: "Dataset",
    tracker: TrackerChoice,
    run: Run,
    out: Path,
    more_tables: "Sequence[Callable[[Evaluation], Table]]" = (),
    note: str | None = None,
) -> None:
    """Evaluate with a progress bar, write the JSON, print tables of the result; a note is said first, on stderr."""
    from sam2lite_core.evaluation.evaluate import evaluate, result_document
    from sam2lite_core.evaluation.runs.resume import Unfinished, unfinished_folder
    from sam2lite_core.evaluation.runs.team import launched_team
    from sam2lite_core.evaluation.tables import score_table

    options = tracker.options(run.workers)
    team = launched_team()
    team.main_does(lambda: check_json_path(run.json_file))
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
            run.prompt,
            out,
            workers=run.workers,
            overwrite=run.overwrite,
            progress=lambda *_: advance(),
            team=team,
        )
    team.main_does(lambda: write_json(run.json_file, result_document(result)))
    if team.is_main:
        for table in (score_table, *more_tables):
            Console().print(table(result))


@eval_app.command("davis")
@spread_options
def eval_davis(
    root: Annotated[Path, typer.Option(help="Folder that holds JPEGImages and Annotations.")],
    out: OutOption,
    tracker: TrackerChoice,
    run: Run,
    sequences: SequencesOption = None,
    year: YearOption = 2016,
) -> None:
    """Score the tracker by the DAVIS protocol."""
    from sam2lite_core.datasets.davis import Davis

    run_evaluation(Davis(root, year, split(sequences)), tracker, run, out)


@eval_app.command("ytvos")
@spread_options
def eval_ytvos(
    root: SplitRootOption, out: OutOption, tracker: TrackerChoice, run: Run, sequences: SequencesOption = None
) -> None:
    """Follow YouTube-VOS's objects; masks/ is what its server wants, in a zip file."""
    from sam2lite_core.datasets.vos import YouTubeVos

    dataset = YouTubeVos(root, split(sequences))
    run_evaluation(dataset, tracker, run, out, note=dataset.assumption)


@eval_app.command("mose")
@spread_options
def eval_mose(
    root: SplitRootOption, out: OutOption, tracker: TrackerChoice, run: Run, sequences: SequencesOption = None
) -> None:
    """Follow MOSE's objects; masks/ is what its server wants, in a zip file."""
    from sam2lite_core.datasets.vos import Mose

    run_evaluation(Mose(root, split(sequences)), tracker, run, out)


@eval_app.command("bdd100k")
@spread_options
def eval_bdd100k(
    root: Annotated[Path, typer.Option(help="Folder that holds images/seg_track_20 and labels/seg_track_20.")],
    out: OutOption,
    tracker: TrackerChoice,
    run: Run,
    sequences: SequencesOption = None,
    data_split: Annotated[str, typer.Option("--split", help="train, val or test.")] = "val",
) -> None:
    """Score the tracker on BDD100K's segmentation-tracking videos."""
    from sam2lite_core.datasets.bdd100k import Bdd100k

    run_evaluation(Bdd100k(root, data_split, split(sequences)), tracker, run, out)


@eval_app.command("stress")
@spread_options
def eval_stress(
    out: OutOption,
    tracker: TrackerChoice,
    run: Run,
    sets: Annotated[str | None, typer.Option(help="Sets, with commas between them; all by default.")] = None,
    clips: Annotated[int, typer.Option(help="Clips of each set.")] = 3,
) -> None:
    """Score the tracker on rendered clips of what is hard.

    The sets: long_occlusion, exit_return, look_alikes, tiny_objects, fast_motion, light_change, sixteen_objects.

    The first two have absences: --sets long_occlusion,exit_return --clips 25 makes 50 of them.
    """
    from sam2lite_core.datasets.stress import Stress
    from sam2lite_core.evaluation.tables import stress_table

    run_evaluation(Stress(split(sets), clips), tracker, run, out, [stress_table])


@eval_app.command("results")
def eval_results(
    prediction: Annotated[Path, typer.Argument(metavar="PRED", help="Masks: SEQUENCE/FRAME.png.")],
    truth: Annotated[Path, typer.Argument(metavar="GT", help="True masks, laid out likewise.")],
    as_one: Annotated[bool, typer.Option(help="Take all objects as one, as DAVIS 2016 does.")] = False,
    json_file: JsonOption = None,
) -> None:
    """Score masks that any tracker made, by the DAVIS protocol."""
    from sam2lite_core.evaluation.given_masks import score_results
    from sam2lite_core.evaluation.tables import score_table

    check_json_path(json_file)
    result = score_results(prediction, truth, as_one=as_one)
    write_json(json_file, result.to_json())
    Console().print(score_table(result))
