"""`python -m training`: run, evaluate, ablate, transplant, cache-teacher, label-films, show-data.

What a command needs is imported when it runs, so that `--help` answers at once.
"""

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sam2lite_core.errors import ConfigurationError, Sam2LiteError

if TYPE_CHECKING:
    from training.config.run import RunConfig

app = typer.Typer(
    help="Train SAM2-Lite students.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

CONFIGS = Path(__file__).parent / "configs"

ConfigOption = Annotated[
    Path, typer.Option("--config", help="YAML file, or the name of one in training/configs.")
]
SetOption = Annotated[
    list[str] | None,
    typer.Option(
        "--set", metavar="KEY=VALUE", help="Change a value, as in unroll.weights.edge=0. Repeatable."
    ),
]
JsonOption = Annotated[Path | None, typer.Option("--json", help="Also write the result to this file.")]


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line; an error that we raise on purpose becomes one line on stderr and exit code 2.

    Args:
        arguments: without the program's name; those of the process when None.
    """
    # Decoders print their own complaints beside ours; a user's setting wins.
    os.environ.setdefault("OPENCV_LOG_LEVEL", "ERROR")
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")
    try:
        app(args=list(sys.argv[1:] if arguments is None else arguments), prog_name="python -m training")
    except Sam2LiteError as error:
        print(f"training: {' '.join(str(error).split())}", file=sys.stderr)
        raise SystemExit(2) from None


def read_config(path: Path, changes: Sequence[str] | None) -> "RunConfig":
    """The configuration of a file, or of a name in `training/configs`, with changes.

    Raises:
        ConfigurationError: there is no such file, or it says something that is not allowed.
    """
    from training.config import loading
    from training.config.run import RunConfig

    return loading.load(RunConfig, find_config(path), changes or ())


def find_config(path: Path) -> Path:
    """The file of a path, or of a name in `training/configs`.

    Raises:
        ConfigurationError: there is none.
    """
    named = CONFIGS / f"{path}.yaml"
    if not path.exists() and named.is_file():
        path = named
    if not path.is_file():
        names = sorted(str(p.relative_to(CONFIGS).with_suffix("")) for p in CONFIGS.rglob("*.yaml"))
        raise ConfigurationError(f"{path}: no such file; training/configs has {', '.join(names)}")
    return path


@app.command()
def run(
    config: ConfigOption,
    stage: Annotated[str, typer.Option(help="1, 2, 3 or all.")] = "all",
    max_minutes: Annotated[
        float | None, typer.Option(help="Stop cleanly, with a checkpoint, before they are over.")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the newest checkpoint.")] = False,
    changes: SetOption = None,
) -> None:
    """Train in the configuration's folder."""
    from training.loop.trainer import Runner

    read = read_config(config, changes)
    if stage == "all":
        stages = tuple(read.stages.numbered())
    elif stage in ("1", "2", "3"):
        stages = (int(stage),)
    else:
        raise ConfigurationError(f"--stage {stage}: choose 1, 2, 3 or all")
    raise SystemExit(Runner(read, stages, resume=resume, max_minutes=max_minutes).run())


@app.command()
def evaluate(
    checkpoint: Annotated[Path, typer.Option(help="Checkpoint whose averaged weights are scored.")],
    root: Annotated[
        Path | None, typer.Option(help="Folder in DAVIS's layout; that of the configuration by default.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Folder to write masks/ and davis.json to.")] = None,
    backend: Annotated[
        str, typer.Option(help="onnxruntime runs a fresh export, torch the student itself.")
    ] = "onnxruntime",
    sequences: Annotated[str | None, typer.Option(help="Names, with commas between them.")] = None,
    year: Annotated[int | None, typer.Option(help="2016 or 2017.")] = None,
    scale: Annotated[float | None, typer.Option(help="Resolution scale, 0.5..1.")] = None,
    policy: Annotated[
        str | None, typer.Option(help="What memory keeps: learned, fifo, random or uniform.")
    ] = None,
    budget: Annotated[int | None, typer.Option(help="Memory tokens, 64..1024.")] = None,
    threads: Annotated[int | None, typer.Option(help="CPU threads of the runtime.")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an earlier result.")] = False,
    json_file: JsonOption = None,
) -> None:
    """Score a checkpoint by the DAVIS protocol; what is not given comes from the run's configuration."""
    from rich.console import Console

    from sam2lite_core.evaluation.evaluate import result_document
    from sam2lite_core.evaluation.tables import score_table
    from sam2lite_core.files import check_json_path, write_json
    from training.students.evaluate import Request, evaluate_checkpoint

    check_json_path(json_file)
    names = (
        None if sequences is None else tuple(name.strip() for name in sequences.split(",") if name.strip())
    )
    request = Request(root, year, scale, policy, budget, names)
    result = evaluate_checkpoint(
        checkpoint, request, backend=backend, threads=threads, out=out, overwrite=overwrite
    )
    write_json(json_file, result_document(result))
    Console().print(score_table(result))


@app.command()
def ablate(
    config: ConfigOption,
    out: Annotated[
        Path, typer.Option(help="Folder for the runs and the table; a killed command goes on there.")
    ],
    rows: Annotated[str | None, typer.Option(help="Rows, with commas between them; all by default.")] = None,
    seeds: Annotated[str, typer.Option(help="Seeds of each row, with commas between them.")] = "0,1",
    clips: Annotated[int, typer.Option(min=1, help="Rendered clips with a long occlusion.")] = 10,
    threads: Annotated[int | None, typer.Option(help="CPU threads of the scored tracker.")] = None,
    changes: SetOption = None,
) -> None:
    """Fork stage 2 from one checkpoint (`--set init=FILE`) into the paper's ablations, score them, make the table."""
    from sam2lite_core.cli.eval_datasets import split
    from sam2lite_core.cli.eval_policies import whole_numbers
    from sam2lite_core.files import write_atomically, write_json
    from training.ablation.run import make_forks, row_names, run_forks
    from training.ablation.table import markdown, read_scores, summarise
    from training.config import loading

    path = find_config(config)
    document = loading.read_document(path, changes or ())
    chosen, numbers = split(rows) or row_names(), whole_numbers(seeds, "--seeds")
    try:
        forks = make_forks(document, chosen, numbers, out)
    except ConfigurationError as error:
        raise ConfigurationError(f"{path}: {error}") from None
    if not run_forks(forks, clips, threads=threads, tell=lambda line: print(line, flush=True)):
        print("stopped; the same command goes on")
        raise SystemExit(130)
    content = summarise(read_scores(out))
    write_json(out / "ablations.json", content)
    table = markdown(content)
    write_atomically(out / "ablations.md", table.encode())
    print(table)


@app.command("cache-teacher")
def cache_teacher(
    config: ConfigOption,
    out: Annotated[Path, typer.Option(help="Folder to write the cache to.")],
    batches: Annotated[int, typer.Option(min=1, help="Batches of each phase.")] = 100,
    stage: Annotated[str, typer.Option(help="1, 2, 3 or all.")] = "all",
    device: Annotated[str, typer.Option(help="Where the teacher runs: auto, cpu or cuda.")] = "auto",
    changes: SetOption = None,
) -> None:
    """Run the teacher once over clips and keep both, for `teacher.cache`."""
    from training.teachers.cache import fill_cache

    read = read_config(config, changes)
    numbered = read.stages.numbered()
    if stage != "all" and stage not in [str(number) for number in numbered]:
        raise ConfigurationError(f"--stage {stage}: choose {', '.join(map(str, numbered))} or all")
    stages = tuple(numbered) if stage == "all" else (int(stage),)
    written = fill_cache(read, stages, batches, out, device)
    print(f"{written} batches in {out}; train with --set teacher.cache={out}")


@app.command("label-films")
def label_films(
    root: Annotated[Path, typer.Option(help="Folder of videos, or of folders of images, without labels.")],
    out: Annotated[Path, typer.Option(help="Folder to write, in MOSE's layout.")],
    variant: Annotated[str, typer.Option(help="Student that labels.")] = "small",
    model: Annotated[
        Path | None, typer.Option(help="Folder of an exported model instead of the shipped one.")
    ] = None,
    scale: Annotated[float, typer.Option(help="Resolution scale, 0.5..1.")] = 1.0,
    frames: Annotated[int | None, typer.Option(help="Of a stretch of film.")] = None,
    stretches: Annotated[int | None, typer.Option(help="Stretches of each film, at most.")] = None,
    agreement: Annotated[
        float | None, typer.Option(help="Least IoU of an object's masks with those on the way back.")
    ] = None,
    threads: Annotated[int | None, typer.Option(help="CPU threads of the runtime.")] = None,
    skip_bad: Annotated[
        bool, typer.Option("--skip-bad", help="Leave out what cannot be read, rather than stop.")
    ] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an earlier result.")] = False,
) -> None:
    """Label films by what a student finds in them and finds again on the way back."""
    from sam2lite_core.tracker import Tracker
    from training.labelling import pseudo_labels

    given = {"frames": frames, "stretches": stretches, "agreement": agreement}
    trust = pseudo_labels.Trust(**{name: value for name, value in given.items() if value is not None})  # type: ignore[arg-type]  # each by its name
    tracker = Tracker(variant, scale=scale, model_path=model, threads=threads)
    count = pseudo_labels.label_films(
        root,
        out,
        tracker,
        trust,
        lambda line: print(line, flush=True),
        skip_bad=skip_bad,
        overwrite=overwrite,
        labelled_by={"variant": variant, "model": None if model is None else str(model), "scale": scale},
    )
    print(f"{count} objects in {out}; train with a source {{kind: mose, root: {out}}}")


@app.command("show-data")
def show_data(
    config: ConfigOption,
    out: Annotated[Path, typer.Option(help="PNG file to draw.")],
    stage: Annotated[int, typer.Option(help="1, 2 or 3.")] = 1,
    phase: Annotated[int, typer.Option(help="Phase within the stage, from 1 on.")] = 1,
    clips: Annotated[int, typer.Option(min=1, max=32, help="Clips to draw.")] = 6,
    changes: SetOption = None,
) -> None:
    """Draw training samples: images, labels and flow, a clip per row."""
    from training.data.preview import draw_samples

    count = draw_samples(read_config(config, changes), stage, phase, clips, out)
    print(f"{count} clips drawn to {out}")


@app.command()
def transplant(
    checkpoint: Annotated[Path, typer.Option(help="Of the student to start from.")],
    variant: Annotated[str, typer.Option(help="Of the student to make.")],
    pictures: Annotated[Path, typer.Option(help="Folder of JPEG or PNG pictures to fit the layers on.")],
    out: Annotated[Path, typer.Option(help="Checkpoint to write, for `init` of a run.")],
    count: Annotated[int, typer.Option(min=1, help="Pictures to look at.")] = 300,
) -> None:
    """Begin a student of another variant where one stands: what both have, the rest fitted to say the same."""
    from sam2lite_core.files import check_json_path
    from training import checkpoint as files
    from training.students.load import load_average
    from training.students.transplant import read_pictures
    from training.students.transplant import transplant as begin

    check_json_path(out)
    content = begin(load_average(checkpoint)[1], variant, read_pictures(pictures, count))
    files.save(out, content)
    shares = ", ".join(f"{name} {share:.2f}" for name, share in content["fit"].items())
    print(f"{out}: {variant}; variance explained: {shares}")


if __name__ == "__main__":
    main()
