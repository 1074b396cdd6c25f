"""The `sam2lite` command.

What a command needs is imported when it runs, so that `--help` answers at once and OpenCV reads the
environment that `main` sets.
"""

import contextlib
import os
import signal
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from sam2lite_core import __version__
from sam2lite_core.cli_bench import app as bench_app
from sam2lite_core.cli_export import export
from sam2lite_core.errors import Sam2LiteError
from sam2lite_core.files import check_json_path, write_json
from sam2lite_core.variants import DEFAULT_POLICY

if TYPE_CHECKING:
    from sam2lite_core.evaluation.davis import DavisResult
    from sam2lite_core.evaluation.metrics import Statistic

app = typer.Typer(
    help="Follow prompted objects through video with a bounded memory.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
eval_app = typer.Typer(help="Score masks by a dataset's protocol.", no_args_is_help=True)
app.add_typer(eval_app, name="eval")
app.add_typer(bench_app, name="bench")
app.command()(export)

VariantOption = Annotated[str, typer.Option(help="Model variant: tiny, small or base.")]
BackendOption = Annotated[str, typer.Option(help="Runtime; auto takes the best that is installed.")]
ScaleOption = Annotated[float | None, typer.Option(help="Fix the resolution scale, 0.5..1.")]
ThreadsOption = Annotated[int | None, typer.Option(help="CPU threads of the runtime.")]
ModelOption = Annotated[Path | None, typer.Option("--model", help="Folder of an exported model.")]
BudgetOption = Annotated[
    int | None, typer.Option(help="Memory tokens, 64..1024; the variant's own by default.")
]
PolicyOption = Annotated[str, typer.Option(help="What memory keeps: learned, fifo, random or uniform.")]
JsonOption = Annotated[Path | None, typer.Option("--json", help="Also write the result to this file.")]
OverwriteOption = Annotated[
    bool, typer.Option("--overwrite", help="Replace an earlier result in the output folder.")
]


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line; an error that we raise on purpose becomes one line on stderr and exit code 2.

    Args:
        arguments: without the program's name; those of the process when None.
    """
    # Decoders print their own complaints beside ours; a user's setting wins.
    os.environ.setdefault("OPENCV_LOG_LEVEL", "ERROR")
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")
    typed = list(sys.argv[1:] if arguments is None else arguments)
    # A stopped run must leave nothing half written: SIGTERM unwinds as Ctrl-C does.
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    try:
        app(args=typed, prog_name="sam2lite", obj=typed)
    except Sam2LiteError as error:
        print(f"sam2lite: {' '.join(str(error).split())}", file=sys.stderr)
        raise SystemExit(2) from None


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"sam2lite {__version__}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Follow prompted objects through video with a bounded memory."""


@app.command()
def track(
    context: typer.Context,
    source: Annotated[str, typer.Argument(help="Folder of frames, video file, or camera index.")],
    out: Annotated[Path, typer.Option(help="Folder to write masks/, overlay.mp4 and track.json to.")],
    objects: Annotated[
        list[str] | None,
        typer.Option(
            "--object", metavar="ID", help="Id of the object that the options after it show. Repeatable."
        ),
    ] = None,
    mask: Annotated[
        list[str] | None,
        typer.Option(
            metavar="PNG", help="Mask on the first frame; without --object, every id in it is followed."
        ),
    ] = None,
    point: Annotated[
        list[str] | None,
        typer.Option(
            metavar="X,Y[,0]", help="Point on the object, in pixels; ',0' marks one beside it. Repeatable."
        ),
    ] = None,
    box: Annotated[
        list[str] | None, typer.Option(metavar="X0,Y0,X1,Y1", help="Box around the object.")
    ] = None,
    variant: VariantOption = "tiny",
    backend: BackendOption = "auto",
    scale: ScaleOption = None,
    deadline_ms: Annotated[float | None, typer.Option(help="Time that a frame may take.")] = None,
    controller: Annotated[
        str | None,
        typer.Option(help="How the deadline is kept: plain, predictive or off; plain by default."),
    ] = None,
    budget: BudgetOption = None,
    policy: PolicyOption = DEFAULT_POLICY,
    threads: ThreadsOption = None,
    model: ModelOption = None,
    frames: Annotated[int | None, typer.Option(help="Stop after that many frames.")] = None,
    overwrite: OverwriteOption = False,
    json_file: JsonOption = None,
) -> None:
    """Follow objects through a video.

    The first frame's objects are shown by prompts, as in: --object 1 --point 120,80 --object 2 --box
    10,20,90,110.

    Without --object, points and boxes show object 1.
    """
    from sam2lite_core.files import check_output_folder
    from sam2lite_core.prompt_options import build_prompts, in_typed_order
    from sam2lite_core.tracker import Tracker
    from sam2lite_core.video import TRACK_MARKER, open_source, record_video

    given = {"object": objects, "mask": mask, "point": point, "box": box}
    prompts = build_prompts(in_typed_order(context.obj, given))
    check_output_folder(out, marker=TRACK_MARKER, overwrite=overwrite)
    check_json_path(json_file)
    with open_source(source, limit=frames) as opened:
        tracker = Tracker(
            variant,
            backend,
            deadline_ms=deadline_ms,
            controller=controller,
            scale=scale,
            memory_budget=budget,
            memory_policy=policy,
            threads=threads,
            model_path=model,
        )
        header = {"source": source, "variant": variant, "deadline_ms": deadline_ms, "version": __version__}
        with _progress(f"tracking {source}", opened.length) as advance:
            document = record_video(
                tracker,
                opened,
                prompts,
                out,
                overwrite=overwrite,
                header=header,
                on_frame=lambda *_: advance(),
            )
    write_json(json_file, document)
    summary = document["summary"]
    times = f"{summary['p50_ms']:.1f} ms at the median, {summary['p95_ms']:.1f} ms at p95"
    print(f"{summary['frames']} frames, {times}; written to {out}")


@eval_app.command("davis")
def eval_davis(
    root: Annotated[Path, typer.Option(help="Folder that holds JPEGImages and Annotations.")],
    out: Annotated[Path, typer.Option(help="Folder to write masks/ and davis.json to.")],
    sequences: Annotated[
        str | None, typer.Option(help="Names, with commas between them; all by default.")
    ] = None,
    year: Annotated[int, typer.Option(help="2016: all objects as one; 2017: each by itself.")] = 2016,
    prompt: Annotated[str, typer.Option(help="How objects are shown: mask, box or point.")] = "mask",
    variant: VariantOption = "tiny",
    backend: BackendOption = "auto",
    scale: ScaleOption = None,
    budget: BudgetOption = None,
    policy: PolicyOption = DEFAULT_POLICY,
    threads: ThreadsOption = None,
    model: ModelOption = None,
    overwrite: OverwriteOption = False,
    json_file: JsonOption = None,
) -> None:
    """Score the tracker by the DAVIS protocol."""
    from sam2lite_core.evaluation.davis import evaluate, list_sequences
    from sam2lite_core.tracker import Tracker

    names = None if sequences is None else [name.strip() for name in sequences.split(",") if name.strip()]
    names = list_sequences(root, names, year)
    check_json_path(json_file)

    def build() -> Tracker:
        return Tracker(
            variant,
            backend,
            scale=scale,
            memory_budget=budget,
            memory_policy=policy,
            threads=threads,
            model_path=model,
        )

    with _progress(f"{len(names)} sequences", len(names)) as advance:
        result = evaluate(
            root,
            build,
            names,
            year,
            prompt,
            out,
            overwrite=overwrite,
            progress=lambda _, done, total: advance() if done == total else None,
        )
    write_json(json_file, result.to_json())
    Console().print(davis_table(result))


@app.command()
def info(
    variant: VariantOption = "tiny",
    model: ModelOption = None,
    json_file: JsonOption = None,
) -> None:
    """Show what a model is: its numbers, parameters by part, memory, operations a frame, and files."""
    from sam2lite_core.model_info import describe_model

    check_json_path(json_file)
    document = describe_model(variant, model)
    write_json(json_file, document)
    console = Console()
    for title, rows in document.items():
        table = Table(title=title, title_justify="left", show_header=False)
        table.add_column(no_wrap=True)
        table.add_column(overflow="fold")
        if rows is None:
            rows = "unknown: these are counted when a model is exported, or where torch is installed"
        for name, value in _flatten(rows):
            table.add_row(name, f"{value:,}" if isinstance(value, int) else str(value))
        if table.row_count:
            console.print(table)


def davis_table(result: "DavisResult") -> Table:
    """The scores of an evaluation, per cent, a row per sequence and one for all."""
    table = Table(title=f"DAVIS {result.year}, shown by {result.prompt}")
    table.add_column("sequence")
    for name in ("J&F", "J", "F", "J recall", "J decay", "FPS"):
        table.add_column(name, justify="right")
    for entry in result.sequences:
        _add_scores(table, entry.name, entry.scores.j, entry.scores.f, entry.timing["fps"])
    table.add_section()
    _add_scores(table, "all", result.j, result.f, result.fps)
    return table


def _add_scores(table: Table, name: str, j: "Statistic", f: "Statistic", fps: float | None) -> None:
    """Append a row to the table of scores."""
    numbers = ((j.mean + f.mean) / 2, j.mean, f.mean, j.recall, j.decay)
    table.add_row(name, *(f"{100 * number:.1f}" for number in numbers), "" if fps is None else f"{fps:.1f}")


@contextlib.contextmanager
def _progress(title: str, total: int | None) -> Iterator[Any]:
    """A progress bar on stderr, so that stdout holds results only; yields a function that moves it by one."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    console = Console(stderr=True)
    # Without a terminal the bar would leave blank lines in a log.
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task(title, total=total)
        yield lambda: bar.advance(task)


def _flatten(value: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Nested entries as (dotted name, value)."""
    if isinstance(value, dict):
        for key, entry in value.items():
            yield from _flatten(entry, f"{prefix}.{key}" if prefix else str(key))
    else:
        yield prefix, value


if __name__ == "__main__":
    main()
