"""Check the request for an evaluation of a bag before anything is started."""

from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sam2lite_core.control.base import ControllerConfig
from sam2lite_core.control.registry import DEFAULT_CONTROLLER, check_controller
from sam2lite_core.errors import ConfigurationError, InvalidPromptError, SourceError
from sam2lite_core.evaluation.tracker_options import TrackerOptions
from sam2lite_core.media.bags.reader import BagFrames
from sam2lite_core.media.label_map import LabelMap, read_label_map
from sam2lite_core.types import Prompt
from sam2lite_core.variants import get_variant

NOMINAL_PERIOD_MS = 100 / 3
"""Period of a bag whose times do not give one."""


@dataclass(frozen=True)
class Request:
    """The options of `sam2lite eval bag`."""

    bag: Path
    truth: Path
    topic: str | None = None
    mask: Path | None = None
    rate: float = 1.0
    deadline_ms: float | None = None
    controller: str = DEFAULT_CONTROLLER
    frames: int | None = None
    tracker: TrackerOptions = field(default_factory=TrackerOptions)


@dataclass(frozen=True)
class ReplaySettings:
    """A request that was checked, with the facts of its bag.

    Attributes:
        frame_id: that of the first image.
        recorded_ns, stamps_ns: times of recording and header stamps of the frames, nanoseconds.
        stamps_back: number of stamps that are earlier than the one before.
        size: (height, width) of the first frame, pixels.
        period_ms: between frames as they are played, the median.
        deadline_ms: the tracker's deadline, milliseconds; 0 = none.
        mask: (H, W) label map of the first frame: the prompt.
        object_ids: the ids that are followed and scored.
        truth: file of the true label map, by number of the frame.
    """

    request: Request
    topic: str
    frame_id: str
    recorded_ns: tuple[int, ...]
    stamps_ns: tuple[int, ...]
    stamps_back: int
    size: tuple[int, int]
    period_ms: float
    deadline_ms: float
    controller: str
    mask: LabelMap
    object_ids: tuple[int, ...]
    truth: dict[int, Path]

    def true_label_map(self, index: int) -> LabelMap | None:
        """Read the truth of a frame, or raise SourceError; None where there is none."""
        path = self.truth.get(index)
        return None if path is None else read_label_map(path)

    def tracker_parameters(self, mask_file: Path) -> dict[str, Any]:
        """Return the node's parameters, of which `mask_file` holds the prompt."""
        options = self.request.tracker
        parameters: dict[str, Any] = {
            "variant": options.variant,
            "backend": options.backend,
            "model_path": "" if options.model_path is None else str(Path(options.model_path).resolve()),
            "memory_budget": options.memory_budget or 0,
            "memory_policy": options.memory_policy,
            "threads": options.threads or 0,
            "frame_deadline_ms": float(self.deadline_ms),
            "controller": self.controller,
            "mask_encoding": "mono16" if max(self.object_ids) > 255 else "mono8",
            "initial_prompt.mask_file": str(mask_file.resolve()),
            "initial_prompt.object_id": 0,
        }
        if options.scale is not None:
            parameters.update(min_scale=float(options.scale), max_scale=float(options.scale))
        return parameters

    def player_parameters(self) -> dict[str, Any]:
        """Return the player's parameters."""
        return {
            "source": str(self.request.bag.resolve()),
            "topic": self.topic,
            "speed": float(self.request.rate),
            "max_frames": len(self.recorded_ns),
        }


def check_request(request: Request) -> ReplaySettings:
    """Check a request against its bag and its truth; raise Sam2LiteError naming the file or value."""
    _check_options(request)
    with BagFrames(request.bag, request.topic, limit=request.frames) as bag:
        truth = _find_truth(request.truth, bag)
        mask = _first_mask(request, truth, bag)
        gaps = [(later - earlier) / 1e6 for earlier, later in pairwise(bag.recorded_ns)]
        period = ((median(gaps) if gaps else 0.0) or NOMINAL_PERIOD_MS) / request.rate
        deadline = period if request.deadline_ms is None else request.deadline_ms
        return ReplaySettings(
            request=request,
            topic=bag.topic.name,
            frame_id=bag.frame_id,
            recorded_ns=bag.recorded_ns,
            stamps_ns=bag.stamps_ns,
            stamps_back=bag.stamps_back,
            size=bag.size,
            period_ms=period,
            deadline_ms=deadline,
            controller="off" if request.tracker.scale is not None or not deadline else request.controller,
            mask=mask,
            object_ids=tuple(int(value) for value in np.unique(mask) if value),
            truth=truth,
        )


def _check_options(request: Request) -> None:
    """Check what can be checked without looking at the bag."""
    if not 0 < request.rate <= 100:
        raise ConfigurationError(f"--rate is {request.rate:g}; give a factor above 0 and at most 100")
    if request.deadline_ms is not None and not 0 <= request.deadline_ms <= 10_000:
        raise ConfigurationError(f"--deadline-ms is {request.deadline_ms:g}; give 0 (none) to 10000")
    if request.frames is not None and request.frames < 1:
        raise ConfigurationError(f"--frames is {request.frames}; give at least 1")
    check_controller(request.controller)
    get_variant(request.tracker.variant)
    scale = request.tracker.scale
    if scale is not None:
        try:
            ControllerConfig(min_scale=scale, max_scale=scale)
        except ConfigurationError as error:
            raise ConfigurationError(f"--scale is {scale:g}: {error}") from None
    model = request.tracker.model_path
    if model is not None and not Path(model).exists():
        raise SourceError(f"--model {model}: no such file or folder")


def _find_truth(folder: Path, bag: BagFrames) -> dict[int, Path]:
    """Find the true masks by frame, named by its number as in 00012.png or by its stamp in nanoseconds."""
    if not folder.is_dir():
        raise SourceError(f"--truth {folder}: no such folder")
    numbers = {stamp: index for index, stamp in enumerate(bag.stamps_ns) if stamp}
    found: dict[int, Path] = {}
    for path in sorted(folder.glob("*.png")):
        index = _frame_number(path, numbers, bag)
        if index is None:
            continue
        if index in found:
            raise SourceError(f"{path}: shows frame {index}, as {found[index].name} does; leave one out")
        _check_size(read_label_map(path), path, bag.size)
        found[index] = path
    if not found:
        raise SourceError(
            f"--truth {folder}: no mask for any frame of the bag; masks are named by the frame's number, as in "
            "00000.png, or by its stamp in nanoseconds"
        )
    return found


def _frame_number(path: Path, numbers: dict[int, int], bag: BagFrames) -> int | None:
    """Return the number of a mask's frame; None for one beyond a limit."""
    if path.stem.isdecimal():
        number = numbers.get(int(path.stem), int(path.stem))
        if number < bag.recorded:
            return number if number < len(bag.recorded_ns) else None
    raise SourceError(
        f"{path}: belongs to none of the {bag.recorded} frames; masks are named by the frame's number, as in "
        "00000.png, or by its stamp in nanoseconds"
    )


def _first_mask(request: Request, truth: dict[int, Path], bag: BagFrames) -> LabelMap:
    """Read the prompt: the mask that was given, else the first frame's truth."""
    path = request.mask if request.mask is not None else truth.get(0)
    if path is None:
        raise InvalidPromptError(
            f"--truth {request.truth}: holds no 00000.png, the first image's mask, which shows what to follow; "
            "add it, or give --mask PNG"
        )
    mask = read_label_map(path)
    _check_size(mask, path, bag.size)
    if not mask.any():
        raise InvalidPromptError(f"{path}: shows no object; give a mask of the first frame with --mask PNG")
    Prompt(object_id=1, mask=mask > 0).check_inside(*bag.size)
    return mask


def _check_size(mask: NDArray[Any], path: Path, size: tuple[int, int]) -> None:
    if mask.shape != size:
        raise SourceError(f"{path}: is {mask.shape[1]}x{mask.shape[0]}, the bag's images {size[1]}x{size[0]}")
