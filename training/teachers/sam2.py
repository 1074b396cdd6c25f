"""SAM 2 and EdgeTAM as teachers, through transformers, from a local folder (design section 7)."""

import json
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from sam2lite_core.model.encoder import MEAN, STD
from training.attention_bins import CELLS, resample_queries
from training.clip_tensors import one_hot
from training.teachers.base import TeacherError, TeacherTargets, patch_grid
from training.teachers.sam2_session import NOWHERE, Reading, Stream, Tap

MODEL_TYPES = {"sam2": "sam2_video", "edgetam": "edgetam_video"}
"""model_type in the config.json of a teacher's folder."""


def load(name: str, path: Path, device: torch.device | str) -> Any:
    """A video model with eager attention, in evaluation mode.

    Args:
        name: sam2 or edgetam.
        path: folder with config.json and the weights, as `save_pretrained` writes it.
        device: to put it on.

    Raises:
        TeacherError: transformers is missing, or the folder is missing, of another model, or incomplete.
    """
    file = path / "config.json"
    if not file.is_file():
        raise TeacherError(f"{path} has no config.json; give the folder of a {name} model for transformers")
    try:
        found = json.loads(file.read_text()).get("model_type")
    except (ValueError, AttributeError) as error:
        raise TeacherError(f"{file} is not a model's configuration: {error}") from error
    if found != MODEL_TYPES[name]:
        raise TeacherError(f"{file} describes a model of type {found!r}, not {MODEL_TYPES[name]!r}")
    try:
        import transformers
    except ImportError as error:
        raise TeacherError(f"the teacher {name} needs transformers: pip install 'sam2lite[train]'") from error
    kind: Any = transformers.Sam2VideoModel if name == "sam2" else transformers.EdgeTamVideoModel
    try:
        model, info = kind.from_pretrained(
            path,
            attn_implementation="eager",
            local_files_only=True,
            dtype=torch.float32,
            output_loading_info=True,
        )
    except Exception as error:  # transformers raises whatever its many parts raise
        raise TeacherError(f"{path} cannot be loaded as a {name} model: {error}") from error
    if info["missing_keys"]:
        some = ", ".join(sorted(info["missing_keys"])[:3])
        raise TeacherError(f"{path} lacks {len(info['missing_keys'])} of the model's tensors ({some}, …)")
    return model.eval().requires_grad_(False).to(device)


def new_session(model: Any, height: int, width: int, device: torch.device) -> Any:
    """A streaming session of the model's own kind."""
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


class Sam2Teacher:
    """Shows each object's true mask once, on the frame where it first appears, and tracks it from there.

    Attention is the mean over objects, heads and the last two layers; what it pays to object pointers (and to EdgeTAM's
    latents without a place) is lost. The readout is the mean over objects of the last layer's.
    """

    def __init__(self, name: str, model: Any) -> None:
        """Take a model from `load`; its hooks stay on it."""
        self.name = name
        self._model = model
        self._tap = Tap(model)
        config = model.config
        self.readout_width = config.memory_attention_hidden_size // config.memory_attention_downsample_rate

    @torch.no_grad()
    def targets(self, clip: dict[str, Tensor]) -> TeacherTargets:
        """See `Teacher.targets`."""
        images = clip["images"]
        batch, frames, height, width = images.shape[:4]
        device, (rows, columns) = images.device, patch_grid(clip)
        patches, count = rows * columns, int(clip["count"].max())
        own = tuple(int(side) for side in self._model.backbone_feature_sizes[-1])
        every = torch.arange(own[0] * own[1], device=device).unsqueeze(0)
        self._tap.rows = resample_queries(every, (own[0], own[1]), (rows, columns))[0]
        out = TeacherTargets(
            torch.zeros(batch, frames, patches, frames, CELLS, device=device),
            torch.zeros(batch, frames, frames, CELLS, dtype=torch.bool, device=device),
            torch.zeros(batch, frames, patches, dtype=torch.bool, device=device),
            torch.zeros(batch, frames, patches, device=device),
            torch.zeros(batch, frames, patches, self.readout_width, device=device),
            torch.zeros(batch, frames, count, height // 4, width // 4, device=device),
        )
        for n in range(batch):
            sessions = partial(new_session, self._model, height, width, device)
            stream = Stream(self._model, sessions, self._tap)
            masks = one_hot(clip["labels"][n], count)
            shown: set[int] = set()
            for t in range(frames):
                visible = (masks[t].flatten(1).sum(-1) > 0).nonzero().flatten().tolist()
                new = {k: self._resized(masks[t, k]) for k in visible if k not in shown}
                shown |= set(new)
                readings, logits = stream.step(t, self._pixels(images[n, t]), new)
                self._note(out, n, t, list(readings.values()))
                for k, logit in logits.items():
                    soft = torch.sigmoid(logit.float())[None, None]
                    assert out.masks is not None
                    out.masks[n, t, k] = F.interpolate(soft, (height // 4, width // 4), mode="bilinear")[0, 0]
        return out

    def _side(self) -> tuple[int, int]:
        size = self._model.image_size
        return (size, size) if isinstance(size, int) else (int(size[0]), int(size[1]))

    def _pixels(self, image: Tensor) -> Tensor:
        """(H, W, 3) uint8 to the model's (3, S, S)."""
        mean, std = (torch.tensor(v, device=image.device).view(1, 3, 1, 1) for v in (MEAN, STD))
        pixels = (image.permute(2, 0, 1).unsqueeze(0).float() - mean) / std
        return F.interpolate(pixels, self._side(), mode="bilinear", antialias=True)[0]

    def _resized(self, mask: Tensor) -> Tensor:
        return (F.interpolate(mask[None, None], self._side(), mode="bilinear")[0, 0] > 0.5).float()

    @staticmethod
    def _note(out: TeacherTargets, n: int, t: int, readings: list[Reading]) -> None:
        """Write one frame's readings into the targets."""
        if not readings:
            return
        flat = out.attention[n, t].flatten(1)
        for reading in readings:
            placed = (reading.source != NOWHERE) & (reading.cell != NOWHERE)
            index = (reading.source * CELLS + reading.cell)[placed]
            flat.index_add_(1, index, reading.attention[:, placed] / len(readings))
            out.held[n, t].view(-1)[index] = True
        mass = flat.sum(-1, keepdim=True)
        out.lost[n, t] = (1.0 - mass.squeeze(-1)).clamp(0.0, 1.0)
        # A query that looks at pointers alone says nothing of places.
        out.known[n, t] = mass.squeeze(-1) > 1e-3
        share = flat / mass.clamp(min=1e-3) * out.known[n, t].unsqueeze(-1)
        out.attention[n, t] = share.unflatten(1, out.attention.shape[3:])
        if out.readout is not None:
            out.readout[n, t] = torch.stack([reading.readout for reading in readings]).mean(dim=0)
