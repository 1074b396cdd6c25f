"""Commands that train: run, validate, ablate."""

from pathlib import Path
from typing import Annotated

import typer

from sam2lite_core.errors import ConfigurationError
from training.cli import options


def run(
    config: options.ConfigOption,
    stage: options.StageOption = "all",
    max_minutes: Annotated[float | None, typer.Option(help="Stop with a checkpoint before they are over.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the newest checkpoint.")] = False,
    changes: options.SetOption = None,
) -> None:
    """Train in the configuration's folder."""
    from training.loop.trainer import Trainer

    read = options.read_config(config, changes)
    stages = options.chosen_stages(read, stage)
    raise SystemExit(Trainer(read, stages, resume=resume, max_minutes=max_minutes).run())


def validate(config: options.ConfigOption, changes: options.SetOption = None) -> None:
    """Check a configuration without training, and list the files that it names and that are not there."""
    read = options.read_config(config, changes)
    named = {f"data.sources[{index}].root": source.root for index, source in enumerate(read.data.sources)}
    named |= {f"data.sources[{index}].stills": source.stills for index, source in enumerate(read.data.sources)}
    named |= {"init": read.init, "teacher.path": read.teacher.path, "evaluation.root": read.evaluation.root}
    numbers = ", ".join(map(str, read.stages.numbered()))
    print(f"{options.find_config(config)}: valid; variant {read.variant}, stages {numbers}")
    for key, path in named.items():
        if path is not None and not path.exists():
            print(f"{key}: {path} is not there")


def ablate(
    config: options.ConfigOption,
    out: Annotated[Path, typer.Option(help="Folder for the runs and the table; a killed command goes on there.")],
    rows: Annotated[str | None, typer.Option(help="Rows, with commas between them; all by default.")] = None,
    seeds: Annotated[str, typer.Option(help="Seeds of each row, with commas between them.")] = "0,1",
    clips: Annotated[int, typer.Option(min=1, help="Rendered clips with a long occlusion.")] = 10,
    threads: options.ThreadsOption = None,
    changes: options.SetOption = None,
) -> None:
    """Fork stage 2 from one checkpoint (`--set init=FILE`) into the paper's ablations, score them, make the table."""
    from sam2lite_core.cli.options import whole_numbers
    from sam2lite_core.files import write_atomically, write_json
    from training.ablation.run import make_forks, row_names, run_forks
    from training.ablation.table import markdown, read_scores, summarise
    from training.config import loading

    path = options.find_config(config)
    document = loading.read_document(path, changes or ())
    chosen, numbers = options.split_names(rows) or row_names(), whole_numbers(seeds, "--seeds")
    try:
        forks = make_forks(document, chosen, numbers, out)
    except ConfigurationError as error:
        raise ConfigurationError(f"{path}: {error}") from None
    if not run_forks(forks, clips, threads=threads, tell=options.say):
        print("stopped; the same command goes on")
        raise SystemExit(130)
    content = summarise(read_scores(out))
    write_json(out / "ablations.json", content)
    table = markdown(content)
    write_atomically(out / "ablations.md", table.encode())
    print(table)
