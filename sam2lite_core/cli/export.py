"""Write checked model files of a checkpoint or of the shipped weights: `sam2lite export`."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from sam2lite_core.cli.options import JsonOption, ThreadsOption, spread_options
from sam2lite_core.errors import ConfigurationError

if TYPE_CHECKING:
    from sam2lite_core.export.clips import Clip
    from sam2lite_core.export.parity import Bound
    from sam2lite_core.model.student import Student

CheckpointOption = Annotated[
    Path | None, typer.Option(help="What the trainer wrote; the shipped weights when not given.")
]
FormatOption = Annotated[
    str,
    typer.Option(
        "--format", help="onnx; tensorrt (experimental): INT8 as it parses it; or coreml (experimental), fp32 only."
    ),
]


@dataclass(frozen=True)
class Calibration:
    """Options of the clips that INT8 ranges are measured on."""

    calibration: Annotated[
        list[Path] | None, typer.Option(help="Frames (folder or video) that INT8 ranges are measured on. Repeatable.")
    ] = None
    calibration_mask: Annotated[
        list[Path] | None,
        typer.Option(metavar="PNG", help="Mask on the first frame of each --calibration, in their order."),
    ] = None


@dataclass(frozen=True)
class Check:
    """Options of the comparison of student and export."""

    clip: Annotated[
        Path | None, typer.Option(help="Frames that student and export both track; a drawn clip when not given.")
    ] = None
    mask: Annotated[Path | None, typer.Option(metavar="PNG", help="Mask on the first frame of --clip.")] = None
    truth: Annotated[Path | None, typer.Option(help="Folder of true label maps of --clip, for the J&F difference.")] = (
        None
    )
    frames: Annotated[int, typer.Option(help="Frames of each clip to use.")] = 24
    scale: Annotated[float, typer.Option(help="Resolution scale of the comparison.")] = 1.0
    least_agreement: Annotated[
        float | None,
        typer.Option(help="Share of pixels that must keep their label; .999 fp32, .998 fp16, .99 int8 by default."),
    ] = None
    most_loss: Annotated[
        float | None, typer.Option(help="J&F points that may be lost; 0.1 fp32, 0.3 fp16, 1.0 int8 by default.")
    ] = None

    def bound(self, usual: "Bound") -> "Bound":
        """Return the precision's usual bound, with what was typed in place of it."""
        from sam2lite_core.export.parity import Bound

        return Bound(
            usual.agreement if self.least_agreement is None else self.least_agreement,
            usual.loss if self.most_loss is None else self.most_loss,
        )


@spread_options
def export(
    out: Annotated[Path, typer.Option(help="Folder to write the model to; created, or replaced as a whole.")],
    seen: Calibration,
    check: Check,
    checkpoint: CheckpointOption = None,
    variant: Annotated[str, typer.Option(help="Whose shipped weights: tiny, small or base.")] = "tiny",
    form: FormatOption = "onnx",
    precision: Annotated[str, typer.Option(help="fp32, fp16 or int8.")] = "fp32",
    objects: Annotated[int | None, typer.Option(help="Objects that the graphs hold at once, 1..255.")] = None,
    threads: ThreadsOption = None,
    note: Annotated[str, typer.Option(help="Where the weights come from; kept in the files.")] = "",
    json_file: JsonOption = None,
) -> None:
    """Write the graphs and weights that the tracker loads with --model, once they agree with the student.

    INT8 is calibrated on your frames: --precision int8 --calibration FOLDER --calibration-mask PNG.
    """
    try:
        from sam2lite_core.export import clips, convert
        from sam2lite_core.export.parity import BOUNDS
    except ImportError as error:
        raise ConfigurationError(f"exporting needs {error.name}: python -m pip install 'sam2lite[export]'") from None
    from sam2lite_core.export.package import check_folder
    from sam2lite_core.files import check_json_path, write_json

    convert.check_choice("format", form, convert.FORMATS)
    usual = BOUNDS[convert.check_choice("precision", precision, convert.PRECISIONS)]
    check_json_path(json_file)
    if form == "coreml":
        write_json(json_file, _coreml(checkpoint, variant, out, precision, check.scale, objects or 1))
        return
    check_folder(out)
    clips_seen = clips.pair_clips(seen.calibration or [], seen.calibration_mask or [], check.frames)
    student, note = _student(checkpoint, variant, note)
    settings = convert.ExportSettings(
        precision,
        _check_clip(check.clip, check.mask, check.truth, check.frames),
        check.bound(usual),
        scheme="tensorrt" if form == "tensorrt" else "onnx",
        max_objects=objects,
        calibration=tuple(clips_seen),
        scale=check.scale,
        threads=threads,
        note=note,
    )
    progress = Console(stderr=True)
    report = convert.export_checked(student, out, settings, progress.print)
    print(convert.markdown(report))
    for name, size in report["files"].items():
        print(f"{out / name}: {size / 1e6:.1f} MB")
    write_json(json_file, report)


def _coreml(
    checkpoint: Path | None, variant: str, out: Path, precision: str, scale: float, objects: int
) -> dict[str, Any]:
    """Export experimental Core ML packages and say what is in them."""
    from sam2lite_core.export.coreml import export_coreml, load_tools

    if precision != "fp32":
        raise ConfigurationError(f"Core ML packages have precision fp32 only, not {precision!r}")
    load_tools()
    student, _ = _student(checkpoint, variant, "")
    report = export_coreml(student, out, scale, objects)
    for name, sides in report["packages"].items():
        counts = f"{len(sides['inputs'])} inputs and {len(sides['outputs'])} outputs"
        print(f"{out / name}: {counts}, as the graph has them")
    print(f"no parity report: {report['parity_reason']}")
    return report


def _check_clip(clip: Path | None, mask: Path | None, truth: Path | None, frames: int) -> "Clip":
    """Return the clip to compare on: the caller's, or a drawn one."""
    from sam2lite_core.export.clips import drawn_clip, load_clip

    if frames < 3:
        raise ConfigurationError(f"--frames is {frames}; give at least 3")
    if clip is None and mask is None and truth is None:
        return drawn_clip(frames)
    if clip is None or mask is None:
        raise ConfigurationError("--clip, --mask and --truth belong together: give at least --clip and --mask")
    return load_clip(clip, mask, truth, frames)


def _student(checkpoint: Path | None, variant: str, note: str) -> "tuple[Student, str]":
    """Load the student to export, and its weights' note."""
    from sam2lite_core.backends.model_files import WEIGHTS_FILE, find_model
    from sam2lite_core.backends.torch import load_shipped
    from sam2lite_core.export.checkpoint import load_checkpoint
    from sam2lite_core.variants import get_variant

    if checkpoint is not None:
        return load_checkpoint(checkpoint), note
    student, info = load_shipped(find_model(get_variant(variant), None) / WEIGHTS_FILE)
    return student, note or info.note
