"""Commands on the student of a checkpoint: evaluate, export, transplant, gate."""

import json
from pathlib import Path
from typing import Annotated

import typer

from training.cli.options import OverwriteOption, ThreadsOption, split_names


def evaluate(
    checkpoint: Annotated[Path, typer.Option(help="Checkpoint whose averaged weights are scored.")],
    root: Annotated[Path | None, typer.Option(help="Folder in DAVIS's layout; the configuration's by default.")] = None,
    out: Annotated[Path | None, typer.Option(help="Folder to write masks/ and davis.json to.")] = None,
    backend: Annotated[str, typer.Option(help="onnxruntime for a fresh export, or torch.")] = "onnxruntime",
    sequences: Annotated[str | None, typer.Option(help="Names, with commas between them.")] = None,
    year: Annotated[int | None, typer.Option(help="2016 or 2017.")] = None,
    scale: Annotated[float | None, typer.Option(help="Resolution scale, 0.5..1.")] = None,
    policy: Annotated[str | None, typer.Option(help="What memory keeps: learned, fifo, random or uniform.")] = None,
    budget: Annotated[int | None, typer.Option(help="Memory tokens, 64..1024.")] = None,
    threads: ThreadsOption = None,
    overwrite: OverwriteOption = False,
    json_file: Annotated[Path | None, typer.Option("--json", help="Also write the result to this file.")] = None,
) -> None:
    """Score a checkpoint by the DAVIS protocol; what is not given comes from the run's configuration."""
    from rich.console import Console

    from sam2lite_core.evaluation.evaluate import result_document
    from sam2lite_core.evaluation.tables import score_table
    from sam2lite_core.files import check_json_path, write_json
    from training.students.evaluate import evaluate_checkpoint

    check_json_path(json_file)
    request: dict[str, object] = {"root": root, "year": year, "scale": scale, "policy": policy, "budget": budget}
    request["sequences"] = split_names(sequences)
    result = evaluate_checkpoint(checkpoint, request, backend=backend, threads=threads, out=out, overwrite=overwrite)
    write_json(json_file, result_document(result))
    Console().print(score_table(result))


def export(
    checkpoint: Annotated[Path, typer.Option(help="Checkpoint whose averaged weights are exported.")],
    out: Annotated[Path, typer.Option(help="Folder to write the model to; created, or its files replaced.")],
    note: Annotated[str, typer.Option(help="Where the weights come from; kept in the files.")] = "",
) -> None:
    """Write the folder that the tracker loads: INT8 graphs for a checkpoint of stage 3, else floating point."""
    from training.students.export import export_checkpoint

    export_checkpoint(checkpoint, out, note)
    print(f"{out}: track with --model {out}")


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


def gate(
    stills: Annotated[Path, typer.Option(help="Folder of masked stills to render clips from.")],
    checkpoint: Annotated[Path, typer.Option(help="Of training, or a model's weights.safetensors.")],
    out: Annotated[Path, typer.Option(help="Checkpoint to write, or the model's new folder.")],
    minutes: Annotated[float, typer.Option(help="Of search; 0 takes the rule that it starts from.")] = 15.0,
    clips: Annotated[int, typer.Option(min=1, help="Clips that rules are tried on.")] = 24,
    frames: Annotated[int, typer.Option(min=2, help="Of a clip.")] = 14,
    passes: Annotated[int, typer.Option(min=1, help="Through a clip, forward and backward in turn.")] = 3,
    steps: Annotated[int, typer.Option(min=1, help="Of the gate's training.")] = 1500,
    threads: Annotated[int, typer.Option(min=1, help="CPU threads.")] = 2,
    seed: Annotated[int, typer.Option(min=0, help="Of everything drawn.")] = 0,
) -> None:
    """Search for the rule of what memory keeps, and teach it to the gate; the rest of the student stays."""
    import torch

    from training.gate_search.command import teach_gate

    torch.set_num_threads(threads)
    found = teach_gate(
        stills, checkpoint, out, minutes=minutes, clips=clips, frames=frames, passes=passes, steps=steps, seed=seed
    )  # fmt: skip
    print(json.dumps(found))
