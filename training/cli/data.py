"""Commands that make or show training data: show-data, label-films, cache-teacher."""

from pathlib import Path
from typing import Annotated

import typer

from training.cli import options


def show_data(
    config: options.ConfigOption,
    out: Annotated[Path, typer.Option(help="PNG file to draw.")],
    stage: Annotated[int, typer.Option(help="1, 2 or 3.")] = 1,
    phase: Annotated[int, typer.Option(help="Phase within the stage, from 1 on.")] = 1,
    clips: Annotated[int, typer.Option(min=1, max=32, help="Clips to draw.")] = 6,
    changes: options.SetOption = None,
) -> None:
    """Draw training samples: images, labels and flow, a clip per row."""
    from training.data.preview import draw_samples

    count = draw_samples(options.read_config(config, changes), stage, phase, clips, out)
    print(f"{count} clips drawn to {out}")


def cache_teacher(
    config: options.ConfigOption,
    out: Annotated[Path, typer.Option(help="Folder to write the cache to.")],
    batches: Annotated[int, typer.Option(min=1, help="Batches of each phase.")] = 100,
    stage: options.StageOption = "all",
    device: Annotated[str, typer.Option(help="Where the teacher runs: auto, cpu or cuda.")] = "auto",
    changes: options.SetOption = None,
) -> None:
    """Run the teacher once over clips and keep both, for `teacher.cache`."""
    from training.teachers.cache import fill_cache

    read = options.read_config(config, changes)
    written = fill_cache(read, options.chosen_stages(read, stage), batches, out, device)
    print(f"{written} batches in {out}; train with --set teacher.cache={out}")


def label_films(
    root: Annotated[Path, typer.Option(help="Folder of videos, or of folders of images, without labels.")],
    out: Annotated[Path, typer.Option(help="Folder to write, in MOSE's layout.")],
    variant: Annotated[str, typer.Option(help="Student that labels.")] = "small",
    model: Annotated[Path | None, typer.Option(help="Folder of an exported model instead of the shipped one.")] = None,
    scale: Annotated[float, typer.Option(help="Resolution scale, 0.5..1.")] = 1.0,
    frames: Annotated[int | None, typer.Option(help="Of a stretch of film.")] = None,
    stretches: Annotated[int | None, typer.Option(help="Stretches of each film, at most.")] = None,
    agreement: Annotated[float | None, typer.Option(help="Least IoU of masks on the way there and back.")] = None,
    threads: options.ThreadsOption = None,
    skip_bad: Annotated[bool, typer.Option("--skip-bad", help="Leave out films that cannot be read.")] = False,
    overwrite: options.OverwriteOption = False,
) -> None:
    """Label films by what a student finds in them and finds again on the way back."""
    from sam2lite_core.tracker import Tracker
    from training.config import loading
    from training.labelling import pseudo_labels

    given = {"frames": frames, "stretches": stretches, "agreement": agreement}
    trust = loading.build(pseudo_labels.Trust, {name: value for name, value in given.items() if value is not None})
    tracker = Tracker(variant, scale=scale, model_path=model, threads=threads)
    source = {"variant": variant, "model": None if model is None else str(model), "scale": scale}
    count = pseudo_labels.label_films(
        root, out, tracker, trust, options.say, skip_bad=skip_bad, overwrite=overwrite, labelled_by=source
    )
    print(f"{count} objects in {out}; train with a source {{kind: mose, root: {out}}}")
