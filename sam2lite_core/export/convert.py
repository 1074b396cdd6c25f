"""Convert a model's folder to another precision, and export a student to a checked folder: `export_checked`."""

import json
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import safetensors.numpy

from sam2lite_core.backends.base import BackendSettings
from sam2lite_core.backends.model_files import FORMAT, INFO_KEY, PROMPT_FILE, STEP_FILE, WEIGHTS_FILE, read_weights_info
from sam2lite_core.backends.onnxruntime import OnnxRuntimeBackend
from sam2lite_core.backends.torch import TorchBackend
from sam2lite_core.errors import ConfigurationError
from sam2lite_core.export import int8, parity
from sam2lite_core.export.calibration import record
from sam2lite_core.export.clips import Clip
from sam2lite_core.export.float_layers import KEEP
from sam2lite_core.export.fp16 import to_half
from sam2lite_core.export.onnx import export_student
from sam2lite_core.export.package import check_folder, describe, replace_files, stamp
from sam2lite_core.export.part_errors import PartError, part_errors
from sam2lite_core.frame.resolution import RUNGS
from sam2lite_core.model.deploy import fold_batch_norms
from sam2lite_core.model.student import Student

PRECISIONS = tuple(parity.BOUNDS)
FORMATS = ("onnx", "tensorrt", "coreml")
CALIBRATION_SCALES = (RUNGS[0], RUNGS[-1])
"""The activations of a large picture are not those of a small one: calibration sees the first and the last rung."""

COMPARED = 8
"""Frames whose parts are compared with floating point."""


@dataclass(frozen=True)
class ExportSettings:
    """Settings of an export and of its check.

    Attributes:
        precision: fp32, fp16 or int8.
        check: the clip that the export and the student track, at `scale`.
        bound: what they may differ by.
        scheme: how INT8 is written, a key of `int8.SCHEMES`.
        note: where the weights come from.
        max_objects: objects that the graphs hold at once; the variant's own when None.
        calibration: clips that INT8 ranges are measured on.
    """

    precision: str
    check: Clip
    bound: parity.Bound
    scheme: str = "onnx"
    note: str = ""
    max_objects: int | None = None
    calibration: tuple[Clip, ...] = ()
    scale: float = 1.0
    threads: int | None = None


@dataclass(frozen=True)
class Conversion:
    """A model in another precision: its files by name; of the step graph, errors by part and layers by precision."""

    contents: dict[str, bytes]
    errors: list[PartError] = field(default_factory=list)
    int8_layers: list[str] = field(default_factory=list)
    float_layers: list[str] = field(default_factory=list)


def export_checked(
    student: Student, folder: Path, settings: ExportSettings, say: Callable[[str], object] = lambda _: None
) -> dict[str, Any]:
    """Export a student in evaluation mode, keep it if it tracks a clip as the student does, and return the report.

    Args:
        folder: created or replaced as a whole; left as it was when anything fails.
        say: told what is going on.

    Raises:
        ConfigurationError: INT8 without calibration clips, or with clips too short to fill the memory.
        ModelFileError: the folder holds something else.
        ParityError: the export differs from the student by more than settings.bound.
    """
    check_folder(folder)
    if settings.precision == "int8" and not settings.calibration:
        raise ConfigurationError(
            "int8 is calibrated on real frames: give --calibration FOLDER and --calibration-mask PNG"
        )
    with tempfile.TemporaryDirectory() as work:
        plain = Path(work) / "fp32"
        say("tracing both graphs")
        export_student(student, plain, settings.note, settings.max_objects)
        ready = plain
        conversion = Conversion({})
        if settings.precision != "fp32":
            say(f"converting to {settings.precision}")
            conversion = convert(plain, settings)
            ready = Path(work) / settings.precision
            replace_files(ready, conversion.contents)
        check = settings.check
        say(f"tracking {len(check.frames)} frames of {check.name} with the student and with the export")
        found = measure(student, ready, settings)
        parity.check(found, settings.bound)
        replace_files(folder, {path.name: path.read_bytes() for path in sorted(ready.iterdir())})
    return {
        "variant": student.variant.name,
        "precision": settings.precision,
        "bound": asdict(settings.bound),
        "parity": found.document(),
        "error_by_part": [asdict(entry) for entry in conversion.errors],
        "int8_layers": conversion.int8_layers,
        "float_layers": conversion.float_layers,
        "calibration": [{"clip": clip.name, "frames": len(clip.frames)} for clip in settings.calibration],
        "files": {path.name: path.stat().st_size for path in sorted(folder.iterdir()) if path.is_file()},
    }


def measure(student: Student, folder: Path, settings: ExportSettings) -> parity.Parity:
    """Track the settings's clip with the student in PyTorch and with an exported folder on ONNX Runtime."""
    capacity = student.variant.memory_budget
    with tempfile.TemporaryDirectory() as work:
        write_reference(student, Path(work), settings.max_objects)
        reference = TorchBackend(BackendSettings(Path(work), capacity, device="cpu", threads=settings.threads))
    backend = OnnxRuntimeBackend(BackendSettings(folder, capacity, threads=settings.threads))
    ours, theirs = (parity.track(either, settings.check, settings.scale) for either in (reference, backend))
    return parity.compare(settings.check, ours, theirs, settings.scale)


def write_reference(student: Student, folder: Path, max_objects: int | None = None) -> None:
    """Write a student's weights for the torch backend, in fp32: nothing is lost that an export may lose."""
    folded = fold_batch_norms(student)
    info = json.dumps(describe(student, max_objects=max_objects))
    state = {name: tensor.numpy() for name, tensor in folded.state_dict().items()}
    (folder / WEIGHTS_FILE).write_bytes(safetensors.numpy.save(state, {INFO_KEY: info}))


def convert(plain: Path, settings: ExportSettings) -> Conversion:
    """Convert an fp32 export's folder to the settings's precision; raise ConfigurationError for too short clips."""
    info = read_weights_info(plain / WEIGHTS_FILE)
    backend = OnnxRuntimeBackend(BackendSettings(plain, info.memory_budget, threads=settings.threads))
    clips, scales = (settings.calibration or (settings.check,)), CALIBRATION_SCALES
    feeds = record(backend, clips, scales if settings.precision == "int8" else (settings.scale,))
    graphs = {name: int8.load_inline(plain / name) for name in (STEP_FILE, PROMPT_FILE)}
    if settings.precision == "int8":
        scheme = int8.SCHEMES[settings.scheme]
        seen = {STEP_FILE: feeds.step, PROMPT_FILE: feeds.prompt}
        models = {name: int8.quantise(graph, seen[name], scheme) for name, graph in graphs.items()}
        layers = int8.split_layers(graphs[STEP_FILE], (*KEEP, *scheme.keep))
    else:
        models = {name: to_half(graph) for name, graph in graphs.items()}
        layers = ({}, {})
    stride = max(1, len(feeds.step) // COMPARED)
    errors = part_errors(graphs[STEP_FILE], models[STEP_FILE], feeds.step[::stride])
    described = {**asdict(info), "format": FORMAT, "precision": settings.precision}
    del described["weights_sha256"]
    tensors = safetensors.numpy.load((plain / WEIGHTS_FILE).read_bytes())
    weights = safetensors.numpy.save(tensors, {INFO_KEY: json.dumps(described)})
    return Conversion(stamp(models, weights, described), errors, *(sorted(set(side.values())) for side in layers))


def markdown(report: dict[str, Any]) -> str:
    """Write the report as a few lines and, where there is one, the table of errors by part."""
    found = report["parity"]
    lines = [
        f"{report['variant']} {report['precision']} against the student in PyTorch, {found['clip']}, "
        f"{found['frames']} frames, scale {found['scale']:g}:",
        f"same label on {found['agreement']:.5f} of the pixels (at least {report['bound']['agreement']:g}), "
        f"J of the masks {found['overlap']:.4f}, "
        f"worst frame {found['worst_frame']} with {found['worst_agreement']:.5f}",
    ]
    if found["loss"] is not None:
        lines.append(
            f"J&F {found['student_jf']:.2f} of the student, {found['export_jf']:.2f} of the export: "
            f"a loss of {found['loss']:.2f} (at most {report['bound']['loss']:g})"
        )
    if report["error_by_part"]:
        lines += ["", "| part | relative error of what it hands on | tensors |", "|---|---|---|"]
        lines += [f"| {e['part']} | {e['error']:.4f} | {e['tensors']} |" for e in report["error_by_part"]]
    return "\n".join(lines)


def check_choice(name: str, value: str, choices: Sequence[str]) -> str:
    """Return an option's value, or raise ConfigurationError naming the choices."""
    if value not in choices:
        raise ConfigurationError(f"unknown {name} {value!r}; choose one of {', '.join(choices)}")
    return value
