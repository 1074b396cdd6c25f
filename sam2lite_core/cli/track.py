"""`sam2lite track`: follow objects through a source and write their masks."""

from pathlib import Path
from typing import Annotated

import typer

from sam2lite_core import __version__
from sam2lite_core.cli.options import (
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
from sam2lite_core.files import check_json_path, write_json
from sam2lite_core.variants import DEFAULT_POLICY


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
    from sam2lite_core.cli.prompts import build_prompts, in_typed_order
    from sam2lite_core.files import check_output_folder
    from sam2lite_core.media.open import open_source
    from sam2lite_core.tracker import Tracker
    from sam2lite_core.video import TRACK_MARKER, record_video

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
