"""Check what a demo is asked to do, before anything is started."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sam2lite_core.control.base import ControllerConfig
from sam2lite_core.control.registry import DEFAULT_CONTROLLER, check_controller
from sam2lite_core.errors import ConfigurationError, InvalidPromptError, SourceError
from sam2lite_core.files import check_output_folder
from sam2lite_core.media.label_map import LabelMap, read_label_map, write_label_map
from sam2lite_core.media.open import open_source
from sam2lite_core.media.source import NOMINAL_FPS
from sam2lite_core.types import Prompt
from sam2lite_core.variants import get_variant
from sam2lite_ros.player.sources import is_camera, rendered_clip

RESULT_FILE = "result.json"
"""File of a complete output folder; written last."""


@dataclass(frozen=True)
class DemoRequest:
    """Options of the command line, as typed; `sam2lite_ros.sessions.demo` describes each."""

    source: str | None = None
    mask: Path | None = None
    point: str | None = None
    box: str | None = None
    truth: Path | None = None
    out: Path = Path("demo_out")
    rate: float | None = None
    deadline_ms: float | None = None
    scale: float | None = None
    variant: str = "tiny"
    model: Path | None = None
    frames: int | None = None
    controller: str = DEFAULT_CONTROLLER
    topic: str | None = None


@dataclass(frozen=True)
class DemoSettings:
    """A checked request with the properties of its source.

    Attributes:
        request: the command line.
        source: folder, video, bag or camera index; empty for the rendered clip.
        size: (height, width) of the first frame, pixels.
        fps: frames per second to play.
        deadline_ms: the tracker's deadline, milliseconds; 0 = none.
        controller: name of the deadline controller.
        prompt: of the first frame.
        truth: folder of PNGs named like the frames, the rendered clip's label maps, or None.
    """

    request: DemoRequest
    source: str
    size: tuple[int, int]
    fps: float
    deadline_ms: float
    controller: str
    prompt: "DemoPrompt"
    truth: Path | NDArray[np.uint8] | None

    def true_label_map(self, name: str) -> LabelMap | None:
        """Return the truth of the frame with this name, or None; SourceError when its file cannot be read."""
        if self.truth is None:
            return None
        if isinstance(self.truth, Path):
            path = self.truth / f"{name}.png"
            return read_label_map(path) if path.is_file() else None
        label_map: LabelMap = self.truth[int(name)]
        return label_map

    def tracker_parameters(self, work: Path) -> dict[str, Any]:
        """Return the tracker's parameters; a mask to prompt with is written into `work`."""
        request, mask = self.request, self.prompt.mask
        parameters: dict[str, Any] = {
            "variant": request.variant,
            "model_path": "" if request.model is None else str(request.model.resolve()),
            "frame_deadline_ms": float(self.deadline_ms),
            "controller": self.controller if self.deadline_ms else "off",
            "mask_encoding": "mono16" if max(self.prompt.object_ids) > 255 else "mono8",
            **self.prompt.parameters,
        }
        if request.scale is not None:
            parameters.update(min_scale=float(request.scale), max_scale=float(request.scale))
        if mask is not None:
            file = (work / "prompt.png").resolve()
            write_label_map(file, mask)
            parameters.update({"initial_prompt.mask_file": str(file), "initial_prompt.object_id": 0})
        return parameters

    def player_parameters(self) -> dict[str, Any]:
        """Return the player's parameters."""
        return {
            "source": str(Path(self.source).resolve()) if self.source and Path(self.source).exists() else self.source,
            "topic": self.request.topic or "",
            "rate": float(self.fps),
            "max_frames": self.request.frames or 0,
        }


@dataclass(frozen=True)
class DemoPrompt:
    """The first frame's prompt.

    Attributes:
        described: in words.
        object_ids: the ids that are followed.
        parameters: the tracker's `initial_prompt.*` of a point or box.
        mask: (H, W) label map of a mask, or None.
    """

    described: str
    object_ids: tuple[int, ...]
    parameters: dict[str, Any] = field(default_factory=dict)
    mask: LabelMap | None = None


def check_request(request: DemoRequest) -> DemoSettings:
    """Check a request against its source.

    Raises:
        Sam2LiteError: a wrong value; the message names it and what is allowed.
    """
    kind = _check_options(request)
    truth: Path | NDArray[np.uint8] | None = request.truth
    if request.source is None:
        clip = rendered_clip()
        size, own_fps, truth = clip.frames.shape[1:3], clip.fps, clip.label_maps
        first_truth: LabelMap | None = clip.label_maps[0]
    else:
        with open_source(request.source, topic=request.topic) as opened:
            size, own_fps = opened.size, opened.fps or NOMINAL_FPS
            first_name = "" if is_camera(request.source) else next(iter(opened)).name
        first_truth = None if request.truth is None else _first_truth(request.truth, first_name, size)
    fps = request.rate or own_fps
    return DemoSettings(
        request=request,
        source=request.source or "",
        size=size,
        fps=fps,
        deadline_ms=1000.0 / fps if request.deadline_ms is None else request.deadline_ms,
        controller=request.controller if request.scale is None else "off",
        prompt=_prompt(request, kind, size, first_truth),
        truth=truth,
    )


def _check_options(request: DemoRequest) -> str | None:
    """Check the options that need no source; return the name of the given prompt option."""
    given = [name for name in ("mask", "point", "box") if getattr(request, name) is not None]
    if len(given) > 1:
        raise ConfigurationError(f"--{' and --'.join(given)} exclude each other; give one")
    if request.source is None and request.truth is not None:
        raise ConfigurationError("--truth goes with a SOURCE; the rendered clip's truth is known")
    if request.source is None and request.topic is not None:
        raise ConfigurationError("--topic goes with a SOURCE that is a bag")
    if request.frames is not None and request.frames < 1:
        raise ConfigurationError(f"--frames is {request.frames}; give at least 1")
    if request.rate is not None and not 0 < request.rate <= 1000:
        raise ConfigurationError(f"--rate is {request.rate}; give frames per second, more than 0 and at most 1000")
    if request.deadline_ms is not None and not 0 <= request.deadline_ms <= 10_000:
        raise ConfigurationError(f"--deadline-ms is {request.deadline_ms}; give 0 (none) to 10000")
    if request.scale is not None:
        try:
            ControllerConfig(min_scale=request.scale, max_scale=request.scale)
        except ConfigurationError as error:
            raise ConfigurationError(f"--scale is {request.scale}: {error}") from None
    check_controller(request.controller)
    get_variant(request.variant)
    if request.model is not None and not request.model.exists():
        raise SourceError(f"--model {request.model}: no such file or folder")
    check_output_folder(request.out, marker=RESULT_FILE, overwrite=True)
    return given[0] if given else None


def _first_truth(truth: Path, first_name: str, size: tuple[int, int]) -> LabelMap:
    if not truth.is_dir():
        raise SourceError(f"--truth {truth}: no such folder")
    path = truth / f"{first_name}.png"
    if not path.is_file():
        raise SourceError(f"--truth {truth}: holds no {path.name}, the mask of the first frame")
    label_map = read_label_map(path)
    if label_map.shape != size:
        raise SourceError(f"{path}: is {label_map.shape[1]}x{label_map.shape[0]}, the first frame {size[1]}x{size[0]}")
    return label_map


def _prompt(request: DemoRequest, kind: str | None, size: tuple[int, int], truth: LabelMap | None) -> DemoPrompt:
    """Read the prompt, or take the rendered clip's truth where none is given."""
    if kind is None:
        if request.source is not None or truth is None:
            raise InvalidPromptError("what shall be followed? give --mask PNG, --point X,Y or --box X0,Y0,X1,Y1")
        return DemoPrompt("true masks of the first frame", _ids(truth), mask=truth)
    if kind == "mask" and request.mask is not None:
        mask = read_label_map(request.mask)
        if not mask.any():
            raise InvalidPromptError(f"--mask {request.mask}: is empty; mark at least one pixel")
        Prompt(object_id=1, mask=mask > 0).check_inside(*size)
        return DemoPrompt(f"mask {request.mask}", _ids(mask), mask=mask)
    text, example = str(getattr(request, kind)), "X,Y" if kind == "point" else "X0,Y0,X1,Y1"
    try:
        numbers = [float(part) for part in text.split(",")]
    except ValueError:
        numbers = []
    if len(numbers) != len(example.split(",")):
        raise InvalidPromptError(f"--{kind} is {text!r}; give {example} in pixels of the first frame")
    flat = np.array(numbers, np.float32)
    prompt = Prompt(object_id=1, points=flat[None]) if kind == "point" else Prompt(object_id=1, box=flat)
    prompt.check_inside(*size)
    object_id = _id_below(numbers, truth)
    name = "initial_prompt.points" if kind == "point" else "initial_prompt.box"
    parameters = {name: numbers, "initial_prompt.object_id": object_id}
    return DemoPrompt(f"{kind} {numbers}", (object_id,), parameters)


def _ids(label_map: LabelMap) -> tuple[int, ...]:
    return tuple(int(value) for value in np.unique(label_map) if value)


def _id_below(numbers: list[float], truth: LabelMap | None) -> int:
    """Return the true id under a point or most common in a box, so that scores compare like with like; else 1."""
    if truth is None:
        return 1
    x0, y0 = (max(0, int(value)) for value in numbers[:2])
    x1, y1 = (int(np.ceil(value)) for value in numbers[2:]) if len(numbers) == 4 else (x0 + 1, y0 + 1)
    counts = np.bincount(truth[y0:y1, x0:x1].ravel(), minlength=1)
    counts[0] = 0
    return int(counts.argmax()) or 1
