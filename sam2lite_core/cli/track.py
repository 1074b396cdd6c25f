"""Follow objects through a source and write their masks: `sam2lite track`."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sam2lite_core import __version__
from sam2lite_core.cli.options import JsonOption, OverwriteOption, TrackerChoice, show_progress, spread_options
from sam2lite_core.files import check_json_path, write_json

if TYPE_CHECKING:
    from sam2lite_core.types import Prompt

ObjectOption = Annotated[
    list[str] | None,
    typer.Option("--object", metavar="ID", help="Id of the object that the options after it show. Repeatable."),
]
MaskOption = Annotated[
    list[str] | None,
    typer.Option(metavar="PNG", help="Mask on the first frame; without --object, every id in it is followed."),
]
PointOption = Annotated[
    list[str] | None,
    typer.Option(metavar="X,Y[,0]", help="Point on the object, in pixels; ',0' marks one beside it. Repeatable."),
]
BoxOption = Annotated[list[str] | None, typer.Option(metavar="X0,Y0,X1,Y1", help="Box around the object.")]
ControllerOption = Annotated[
    str | None,
    typer.Option(help="How the deadline is kept: plain, predictive or off; predictive by default, plain with --scale."),
]
TopicOption = Annotated[
    str | None, typer.Option(help="Which images of a bag; by default the only topic that holds some.")
]


@dataclass(frozen=True)
class FirstFrame:
    """Options of the prompts on the first frame, as they are typed."""

    objects: ObjectOption = None
    mask: MaskOption = None
    point: PointOption = None
    box: BoxOption = None

    def prompts(self, typed: Sequence[str]) -> "tuple[Prompt, ...]":
        """Return the prompts in the order in which they were typed on the command line."""
        from sam2lite_core.cli.prompts import build_prompts, in_typed_order

        given = {"object": self.objects, "mask": self.mask, "point": self.point, "box": self.box}
        return build_prompts(in_typed_order(typed, given))


@spread_options
def track(
    context: typer.Context,
    source: Annotated[str, typer.Argument(help="Folder of frames, video file, bag, or camera index.")],
    out: Annotated[Path, typer.Option(help="Folder to write masks/, overlay.mp4 and track.json to.")],
    first: FirstFrame,
    choice: TrackerChoice,
    deadline_ms: Annotated[float | None, typer.Option(help="Time that a frame may take.")] = None,
    controller: ControllerOption = None,
    topic: TopicOption = None,
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
    from sam2lite_core.media.open import open_source
    from sam2lite_core.tracker import Tracker
    from sam2lite_core.video import TRACK_MARKER, record_video

    prompts = first.prompts(context.obj)
    check_output_folder(out, marker=TRACK_MARKER, overwrite=overwrite)
    check_json_path(json_file)
    with open_source(source, limit=frames, topic=topic) as opened:
        tracker = Tracker(
            choice.variant,
            choice.backend,
            deadline_ms=deadline_ms,
            controller=controller,
            scale=choice.scale,
            memory_budget=choice.budget,
            memory_policy=choice.policy,
            threads=choice.threads,
            model_path=choice.model,
        )
        header = {
            "source": source,
            "variant": tracker.backend.info.variant,
            "deadline_ms": deadline_ms,
            "version": __version__,
        }
        with show_progress(f"tracking {source}", opened.length) as advance:
            document = record_video(
                tracker, opened, prompts, out, overwrite=overwrite, header=header, on_frame=lambda *_: advance()
            )
    write_json(json_file, document)
    summary = document["summary"]
    times = f"{summary['p50_ms']:.1f} ms at the median, {summary['p95_ms']:.1f} ms at p95"
    print(f"{summary['frames']} frames, {times}; written to {out}")
