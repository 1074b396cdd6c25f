"""The `sam2lite` command.

What a command needs is imported when it runs, so that `--help` answers at once and OpenCV reads the
environment that `main` sets.
"""

import os
import signal
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from sam2lite_core import __version__
from sam2lite_core.cli_bag import bag_app, eval_bag
from sam2lite_core.cli_bench import app as bench_app
from sam2lite_core.cli_eval import eval_app
from sam2lite_core.cli_eval_policies import eval_long, eval_policies
from sam2lite_core.cli_export import export
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
    show_progress,
)
from sam2lite_core.cli_report import report
from sam2lite_core.errors import Sam2LiteError
from sam2lite_core.files import check_json_path, write_json
from sam2lite_core.variants import DEFAULT_POLICY

app = typer.Typer(
    help="Follow prompted objects through video with a bounded memory.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
eval_app.command("bag")(eval_bag)
eval_app.command("policies")(eval_policies)
eval_app.command("long")(eval_long)
app.add_typer(eval_app, name="eval")
app.add_typer(bench_app, name="bench")
app.add_typer(bag_app, name="bag")
app.command()(export)
app.command()(report)


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
    source: Annotated[str, typer.Argument(help="Folder of frames, video file, bag, or camera index.")],
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
        typer.Option(
            help="How the deadline is kept: plain, predictive or off; predictive by default, plain with --scale."
        ),
    ] = None,
    budget: BudgetOption = None,
    policy: PolicyOption = DEFAULT_POLICY,
    threads: ThreadsOption = None,
    model: ModelOption = None,
    topic: Annotated[
        str | None, typer.Option(help="Which images of a bag; by default the only topic that holds some.")
    ] = None,
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
    with open_source(source, limit=frames, topic=topic) as opened:
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
        header = {
            "source": source,
            "variant": tracker.backend.info.variant,
            "deadline_ms": deadline_ms,
            "version": __version__,
        }
        with show_progress(f"tracking {source}", opened.length) as advance:
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


def _flatten(value: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Nested entries as (dotted name, value)."""
    if isinstance(value, dict):
        for key, entry in value.items():
            yield from _flatten(entry, f"{prefix}.{key}" if prefix else str(key))
    else:
        yield prefix, value


if __name__ == "__main__":
    main()
