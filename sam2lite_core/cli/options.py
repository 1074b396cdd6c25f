"""What the commands share: options, and the progress bar."""

import contextlib
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from sam2lite_core.errors import ConfigurationError

if TYPE_CHECKING:
    from sam2lite_core.evaluation.tracker_options import TrackerOptions

VariantOption = Annotated[str, typer.Option(help="Model variant: tiny, small or base.")]
BackendOption = Annotated[
    str,
    typer.Option(
        help="Runtime: onnxruntime, torch, or auto for the best that is installed; transformers for a SAM 2.1 or "
        "EdgeTAM of your own."
    ),
]
ScaleOption = Annotated[float | None, typer.Option(help="Fix the resolution scale, 0.5..1.")]
ThreadsOption = Annotated[int | None, typer.Option(help="CPU threads of the runtime.")]
ModelOption = Annotated[
    Path | None,
    typer.Option(
        "--model",
        "--model-path",
        help="Folder of an exported model; with --backend transformers, of SAM 2.1 or EdgeTAM.",
    ),
]
BudgetOption = Annotated[
    int | None, typer.Option(help="Memory tokens, 64..1024; the variant's own by default.")
]
PolicyOption = Annotated[str, typer.Option(help="What memory keeps: learned, fifo, random or uniform.")]
JsonOption = Annotated[Path | None, typer.Option("--json", help="Also write the result to this file.")]
OverwriteOption = Annotated[
    bool, typer.Option("--overwrite", help="Replace an earlier result in the output folder.")
]


@contextlib.contextmanager
def show_progress(title: str, total: int | None, shown: bool = True) -> Iterator[Any]:
    """A progress bar on stderr, so that stdout holds results only; yields a function that moves it by one."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    console = Console(stderr=True)
    # Without a terminal the bar would leave blank lines in a log.
    with Progress(
        *columns, console=console, transient=True, disable=not (shown and console.is_terminal)
    ) as bar:
        task = bar.add_task(title, total=total)
        yield lambda: bar.advance(task)


@contextlib.contextmanager
def resumable(kept: Path, anything_finished: Callable[[], bool], shown: bool = True) -> Iterator[None]:
    """Let Ctrl-C end work that can be taken up with one line that says so, and exit code 130.

    Args:
        kept: where finished work is kept.
        anything_finished: whether there is some; the folder alone does not say so.
        shown: whether this process speaks; of many, one does.

    Raises:
        typer.Exit: Ctrl-C came.
    """
    try:
        yield
    except KeyboardInterrupt:
        said = (
            f"the same command goes on from {kept}"
            if anything_finished()
            else "nothing was finished, so the same command starts over"
        )
        if shown:
            print(f"sam2lite: stopped; {said}", file=sys.stderr)
        raise typer.Exit(128 + signal.SIGINT) from None


def numbers(text: str, name: str) -> tuple[float, ...]:
    """Comma-separated numbers of an option.

    Raises:
        ConfigurationError: something else; the message names the option.
    """
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError:
        raise ConfigurationError(f"{name} {text!r} is not a list of numbers like 0.5,1") from None


def tracker_options(
    variant: str,
    backend: str,
    scale: float | None,
    budget: int | None,
    policy: str,
    threads: int | None,
    model: Path | None,
    workers: int = 1,
) -> "TrackerOptions":
    """The tracker that the options describe; processes share the machine's cores unless threads are given."""
    from sam2lite_core.evaluation.runs.machine import usable_cores
    from sam2lite_core.evaluation.runs.team import processes_here
    from sam2lite_core.evaluation.tracker_options import TrackerOptions

    processes = workers * processes_here()
    if threads is None and processes > 1:
        threads = max(1, usable_cores() // processes)
    path = None if model is None else str(model)
    return TrackerOptions(variant, backend, scale, budget, policy, threads, path)
