"""Train SAM2-Lite students: `python -m training COMMAND`; commands import when they run, so `--help` is fast."""

import os
import sys
from collections.abc import Sequence

import typer

from sam2lite_core.errors import Sam2LiteError
from training.cli import data, runs, students

app = typer.Typer(
    help="Train SAM2-Lite students.", no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False
)
for _command in (
    runs.run, runs.validate, students.evaluate, students.export, students.gate, students.transplant, runs.ablate,
    data.show_data, data.label_films, data.cache_teacher,
):  # fmt: skip
    app.command()(_command)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line, or the process's own; typed errors become a line on stderr and exit code 2."""
    # Silence decoders; a user's setting wins.
    os.environ.setdefault("OPENCV_LOG_LEVEL", "ERROR")
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")
    try:
        app(args=list(sys.argv[1:] if arguments is None else arguments), prog_name="python -m training")
    except Sam2LiteError as error:
        print(f"training: {' '.join(str(error).split())}", file=sys.stderr)
        raise SystemExit(2) from None


if __name__ == "__main__":
    main()
