"""`sam2lite export`: model files from a checkpoint, or from the shipped weights with other options."""

from pathlib import Path
from typing import Annotated

import typer

from sam2lite_core.errors import ConfigurationError


def export(
    out: Annotated[Path, typer.Option(help="Folder to write the model to; created, or replaced as a whole.")],
    checkpoint: Annotated[
        Path | None, typer.Option(help="What the trainer wrote; the shipped weights when not given.")
    ] = None,
    variant: Annotated[str, typer.Option(help="Whose shipped weights: tiny, small or base.")] = "tiny",
    objects: Annotated[int | None, typer.Option(help="Objects that the graphs hold at once, 1..255.")] = None,
    note: Annotated[str, typer.Option(help="Where the weights come from; kept in the files.")] = "",
) -> None:
    """Write the ONNX graphs and weights that the tracker loads with --model."""
    try:
        from sam2lite_core.backends.torch import load_shipped
        from sam2lite_core.export.checkpoint import load_checkpoint
        from sam2lite_core.export.onnx import export_student
    except ImportError as error:
        raise ConfigurationError(
            f"exporting needs {error.name}: python -m pip install 'sam2lite[export]'"
        ) from None
    from sam2lite_core.backends.files import WEIGHTS_FILE, find_model
    from sam2lite_core.variants import get_variant

    if checkpoint is not None:
        student = load_checkpoint(checkpoint)
    else:
        student, info = load_shipped(find_model(get_variant(variant), None) / WEIGHTS_FILE)
        note = note or info.note
    export_student(student, out, note, objects)
    files = sorted(path for path in out.iterdir() if path.is_file())
    for path in files:
        print(f"{path}: {path.stat().st_size / 1e6:.1f} MB")
