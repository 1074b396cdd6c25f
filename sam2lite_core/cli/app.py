"""Assemble the `sam2lite` command.

A command imports its own needs, so that `--help` answers at once and OpenCV reads the environment that `main` sets.
"""

import os
import signal
import sys
from collections.abc import Sequence
from typing import Annotated

import typer

from sam2lite_core import __version__
from sam2lite_core.cli.bag import bag_app, eval_bag
from sam2lite_core.cli.bench import app as bench_app
from sam2lite_core.cli.eval_datasets import eval_app
from sam2lite_core.cli.eval_policies import eval_long, eval_policies
from sam2lite_core.cli.export import export
from sam2lite_core.cli.info import info
from sam2lite_core.cli.report import report
from sam2lite_core.cli.track import track
from sam2lite_core.errors import Sam2LiteError

app = typer.Typer(
    help="Follow prompted objects through video with a bounded memory.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.command()(track)
app.command()(info)
eval_app.command("bag")(eval_bag)
eval_app.command("policies")(eval_policies)
eval_app.command("long")(eval_long)
app.add_typer(eval_app, name="eval")
app.add_typer(bench_app, name="bench")
app.add_typer(bag_app, name="bag")
app.command()(export)
app.command()(report)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line, by default this process's; our own errors become one line on stderr and exit code 2."""
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
