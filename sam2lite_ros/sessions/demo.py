"""Play a source to the tracker over DDS; record, draw and score what comes back."""

import signal
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from sam2lite_core.control.registry import DEFAULT_CONTROLLER
from sam2lite_core.errors import Sam2LiteError
from sam2lite_core.files import output_folder
from sam2lite_ros.sessions.demo_report import result_table, write_report
from sam2lite_ros.sessions.demo_settings import RESULT_FILE, DemoRequest, check_request
from sam2lite_ros.sessions.processes import ProcessError, isolate
from sam2lite_ros.sessions.tracker_session import record

application = typer.Typer(add_completion=False, rich_markup_mode=None)


@application.command()
def demo(
    source: Annotated[
        str | None, typer.Argument(help="Folder of frames, video file, bag or camera index; default: a rendered clip.")
    ] = None,
    mask: Annotated[Path | None, typer.Option(help="PNG of the first frame's size; follow its labels.")] = None,
    point: Annotated[str | None, typer.Option(metavar="X,Y", help="Follow what is at this pixel.")] = None,
    box: Annotated[str | None, typer.Option(metavar="X0,Y0,X1,Y1", help="Follow what is in this box.")] = None,
    truth: Annotated[Path | None, typer.Option(help="Folder of true masks, named like the frames.")] = None,
    out: Annotated[Path, typer.Option(help="Folder to write.")] = Path("demo_out"),
    rate: Annotated[float | None, typer.Option(help="Frames per second; default: the source's.")] = None,
    deadline_ms: Annotated[float | None, typer.Option(help="Default: one period; 0 = none.")] = None,
    controller: Annotated[
        str, typer.Option(help="How the deadline is kept: plain, predictive or off.")
    ] = DEFAULT_CONTROLLER,
    scale: Annotated[float | None, typer.Option(help="Fixed resolution scale, 0.5 to 1.")] = None,
    variant: Annotated[str, typer.Option(help="tiny, small or base.")] = "tiny",
    model: Annotated[Path | None, typer.Option(help="Weights to use instead of those shipped.")] = None,
    frames: Annotated[int | None, typer.Option(help="Play no more than so many frames.")] = None,
    topic: Annotated[
        str | None, typer.Option(help="Which images of a bag; default: the only topic that holds some.")
    ] = None,
) -> None:
    """Follow what the mask, point or box shows through SOURCE, with player and tracker as processes over DDS."""
    request = DemoRequest(
        source, mask, point, box, truth, out, rate, deadline_ms, scale, variant, model, frames, controller, topic
    )
    try:
        result = play(request)
    except Sam2LiteError as error:
        print(f"demo: {error}", file=sys.stderr)
        raise typer.Exit(1 if isinstance(error, ProcessError) else 2) from None
    console = Console()
    console.print(result_table(result))
    console.print(f"written to {out}", highlight=False)


def play(request: DemoRequest) -> dict[str, Any]:
    """Run the demo; return the content of result.json.

    Raises:
        Sam2LiteError: bad input, before anything was started; or a process that failed. The output folder is then as
            it was.
    """
    settings = check_request(request)
    isolate()
    with (
        tempfile.TemporaryDirectory(prefix="sam2lite_demo_", ignore_cleanup_errors=True) as temporary,
        output_folder(request.out, marker=RESULT_FILE, overwrite=True) as folder,
    ):
        work, masks = Path(temporary), folder / "masks"
        masks.mkdir()
        recording = record(settings.tracker_parameters(work), settings.player_parameters(), work, masks)
        return write_report(settings, recording, work, folder)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the demo; return 0 with output, 2 for bad input, 1 when a process failed or Ctrl-C came too early."""
    # Without this, a plain `kill` would leave the two nodes behind.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        application(args=None if arguments is None else list(arguments))
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
