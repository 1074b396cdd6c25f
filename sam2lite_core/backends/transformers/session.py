"""SAM 2.1 and EdgeTAM video models of transformers: loading them from a folder, and sessions that forget.

The backend `transformers` and the teachers stand on this. transformers' own sessions keep everything, 12.6 MB a frame
for SAM 2.1; `forget` leaves what a later frame can read.
"""

import contextlib
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from sam2lite_core.errors import BackendError, ModelFileError
from sam2lite_core.model.encoder import MEAN, STD
from sam2lite_core.types import Prompt

MODEL_TYPES = {"sam2": "sam2_video", "edgetam": "edgetam_video"}
"""model_type in config.json, by the model's short name."""

_CLASSES = {"sam2_video": "Sam2VideoModel", "edgetam_video": "EdgeTamVideoModel"}

PROMPT_FRAMES = 4
"""Frames with prompts that a session keeps of an object, the newest. The models would read every one there ever was."""

KEPT = ("object_pointer", "maskmem_features", "maskmem_pos_enc")
"""What a frame's entry is still read for; the rest are its answers."""

_BOX_CORNERS = (2, 3)
"""Labels of a box's corners among point labels."""


def load_model(
    folder: Path,
    device: torch.device | str,
    types: Sequence[str] = tuple(MODEL_TYPES.values()),
    attention: str | None = None,
) -> Any:
    """A video model from a folder in Hugging Face's layout, fp32, in evaluation mode. Nothing is downloaded.

    Args:
        folder: with config.json and the weights, as `save_pretrained` writes it.
        device: to put it on.
        types: what config.json may say of model_type.
        attention: transformers' name of the implementation; None for its choice.

    Raises:
        ModelFileError: the folder is missing, of another model, or incomplete.
        BackendError: transformers, or a package that this model's parts need, is not installed.
    """
    if not folder.is_dir():
        raise ModelFileError(f"{folder} is not a folder; give one with config.json and the weights")
    found = _model_type(folder / "config.json", types)
    try:
        import transformers
    except ImportError as error:
        raise BackendError(
            f"{folder} needs the package transformers: python -m pip install 'sam2lite[transformers]'"
        ) from error
    try:
        with quiet():
            model, info = getattr(transformers, _CLASSES[found]).from_pretrained(
                folder,
                local_files_only=True,
                dtype=torch.float32,
                output_loading_info=True,
                **({} if attention is None else {"attn_implementation": attention}),
            )
    except ImportError as error:
        raise BackendError(
            f"{folder} needs a package that is not installed ({_first_line(error)}): "
            "python -m pip install 'sam2lite[edgetam]'"
        ) from error
    except Exception as error:  # transformers raises whatever its many parts raise
        raise ModelFileError(f"{folder} cannot be loaded by transformers: {error}") from error
    if info["missing_keys"]:
        some = ", ".join(sorted(info["missing_keys"])[:3])
        raise ModelFileError(f"{folder} lacks {len(info['missing_keys'])} of the model's tensors ({some}, …)")
    return model.eval().requires_grad_(False).to(device)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Without transformers' progress bars, which would stand in a node's log."""
    from transformers.utils import logging

    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()


def _first_line(error: Exception) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)


def _model_type(file: Path, types: Sequence[str]) -> str:
    """The model_type of a configuration, one of `types`.

    Raises:
        ModelFileError: there is no such file, or it says something else.
    """
    if not file.is_file():
        raise ModelFileError(f"{file.parent} has no config.json; give the folder of a model for transformers")
    try:
        found = json.loads(file.read_text(encoding="utf-8")).get("model_type")
    except (ValueError, AttributeError) as error:
        raise ModelFileError(f"{file} is not a model's configuration: {error}") from error
    if found not in types:
        raise ModelFileError(f"{file} describes a model of type {found!r}; supported: {', '.join(types)}")
    return str(found)


def new_session(model: Any, height: int, width: int, device: torch.device) -> Any:
    """A streaming session of the model's own kind for a video of this size, px."""
    import transformers

    edge = model.config.model_type == MODEL_TYPES["edgetam"]
    kind = transformers.EdgeTamVideoInferenceSession if edge else transformers.Sam2VideoInferenceSession
    return kind(
        video_height=height,
        video_width=width,
        inference_device=device,
        inference_state_device=device,
        video_storage_device=device,
        dtype=torch.float32,
    )


def forget(session: Any, model: Any, t: int, prompt_frames: int = PROMPT_FRAMES) -> None:
    """Drop what no frame after t can read, from a session that holds one object.

    Of frames without prompts the features of the last `num_maskmem` stay, and the pointers of the last
    `max_object_pointers_in_encoder`; of frames with prompts the newest `prompt_frames`.
    """
    session.cache.clear_all()
    session.processed_frames.clear()
    session.mask_inputs_per_obj[0].clear()
    session.point_inputs_per_obj[0].clear()
    session.frames_tracked_per_obj[0].clear()
    stored = session.output_dict_per_obj[0]
    recent, prompted = stored["non_cond_frame_outputs"], stored["cond_frame_outputs"]
    for frame in [f for f in recent if t + 1 - f >= model.config.max_object_pointers_in_encoder]:
        del recent[frame]
    for frame in sorted(prompted)[:-prompt_frames]:
        del prompted[frame]
    for frame, entry in recent.items():
        if t + 1 - frame >= model.num_maskmem:
            _keep(entry, KEPT[:1])
    for entry in (*recent.values(), *prompted.values()):
        _keep(entry, KEPT)


def _keep(entry: dict[str, Any], names: Sequence[str]) -> None:
    for name in [name for name in entry if name not in names]:
        del entry[name]


def input_side(model: Any) -> tuple[int, int]:
    """(height, width) in px that a model resizes frames to."""
    size = model.image_size
    return (size, size) if isinstance(size, int) else (int(size[0]), int(size[1]))


def to_pixels(image: Tensor, side: tuple[int, int]) -> Tensor:
    """(H, W, 3) uint8 to the model's normalised (3, *side) float32."""
    mean, std = (torch.tensor(v, device=image.device).view(1, 3, 1, 1) for v in (MEAN, STD))
    pixels = (image.permute(2, 0, 1).unsqueeze(0).float() - mean) / std
    return F.interpolate(pixels, side, mode="bilinear", antialias=True)[0]


def to_mask(mask: Tensor, side: tuple[int, int]) -> Tensor:
    """(H, W) of 0 and 1 to (*side) float32 of 0 and 1; a mask that is not empty keeps a pixel at least."""
    soft = F.interpolate(mask.float()[None, None], side, mode="bilinear", antialias=True)[0, 0]
    # Where a small object covers no pixel by half, the one that it covers most stands for it.
    least = soft.max().clamp(max=0.5)
    return ((soft >= least) & (soft > 0)).float()


def to_points(prompt: Prompt, source: tuple[int, int], side: tuple[int, int]) -> dict[str, Tensor]:
    """Box corners and points of a prompt as the model takes them.

    Args:
        prompt: without a mask.
        source: (height, width) of the frame, px.
        side: (height, width) of the model's input, px.

    Returns:
        point_coords (1, 1, P, 2) float32, x and y in the model's pixels; point_labels (1, 1, P) int32, 2 and 3 for
        a box's corners, which come first.
    """
    factor = np.array([side[1] / source[1], side[0] / source[0]], np.float32)
    places: list[NDArray[np.float32]] = []
    labels: list[int] = []
    if prompt.box is not None:
        places.extend(prompt.box.reshape(2, 2) * factor)
        labels.extend(_BOX_CORNERS)
    if prompt.points is not None and prompt.point_labels is not None:
        places.extend(prompt.points * factor)
        labels.extend(int(label) for label in prompt.point_labels)
    return {
        "point_coords": torch.from_numpy(np.stack(places).astype(np.float32))[None, None],
        "point_labels": torch.tensor(labels, dtype=torch.int32)[None, None],
    }
