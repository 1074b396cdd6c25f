"""SAM 2 and EdgeTAM as teachers, through transformers, from a local folder (design section 7)."""

from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from sam2lite_core.backends.transformers.session import (
    MODEL_TYPES,
    input_side,
    load_model,
    new_session,
    to_mask,
    to_pixels,
)
from sam2lite_core.errors import BackendError, ModelFileError
from training.data.tensors import one_hot
from training.teachers.attention_bins import CELLS, resample_queries
from training.teachers.base import TeacherError, TeacherTargets
from training.teachers.sam2_session import NOWHERE, Reading, Stream, Tap


def load(name: str, path: Path, device: torch.device | str) -> Any:
    """Load a video model, sam2 or edgetam, from a folder of `save_pretrained`, in evaluation mode.

    Raises:
        TeacherError: transformers is missing, or the folder is missing, of another model, or incomplete.
    """
    try:
        return load_model(path, device, (MODEL_TYPES[name],), attention="eager")
    except (BackendError, ModelFileError) as error:
        raise TeacherError(f"teacher {name}: {error}") from error


class Sam2Teacher:
    """Shows each object's true mask on its first frame, and tracks it from there.

    Attention is the mean over objects, heads and the last two layers; its share on object pointers, and on EdgeTAM's
    latents without a place, is lost. The readout is the mean over objects of the last layer's.
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
        device, (rows, columns) = images.device, clip["motion"].shape[-2:]
        patches, count = rows * columns, int(clip["count"].max())
        side = input_side(self._model)
        own_rows, own_columns = (int(cells) for cells in self._model.backbone_feature_sizes[-1])
        every = torch.arange(own_rows * own_columns, device=device).unsqueeze(0)
        self._tap.rows = resample_queries(every, (own_rows, own_columns), (rows, columns))[0]
        zeros = partial(torch.zeros, device=device)
        soft_masks = zeros(batch, frames, count, height // 4, width // 4)
        out = TeacherTargets(
            attention=zeros(batch, frames, patches, frames, CELLS),
            held=zeros(batch, frames, frames, CELLS, dtype=torch.bool),
            known=zeros(batch, frames, patches, dtype=torch.bool),
            lost=zeros(batch, frames, patches),
            readout=zeros(batch, frames, patches, self.readout_width),
            masks=soft_masks,
        )
        for n in range(batch):
            stream = Stream(self._model, partial(new_session, self._model, height, width, device), self._tap)
            masks = one_hot(clip["labels"][n], count)
            shown: set[int] = set()
            for t in range(frames):
                visible = (masks[t].flatten(1).sum(-1) > 0).nonzero().flatten().tolist()
                new = {k: to_mask(masks[t, k], side) for k in visible if k not in shown}
                shown |= set(new)
                readings, logits = stream.step(t, to_pixels(images[n, t], side), new)
                self._note(out, n, t, list(readings.values()))
                for k, logit in logits.items():
                    soft = torch.sigmoid(logit.float())[None, None]
                    soft_masks[n, t, k] = F.interpolate(soft, soft_masks.shape[-2:], mode="bilinear")[0, 0]
        return out

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
        # Queries that look at pointers alone know no place.
        out.known[n, t] = mass.squeeze(-1) > 1e-3
        share = flat / mass.clamp(min=1e-3) * out.known[n, t].unsqueeze(-1)
        out.attention[n, t] = share.unflatten(1, out.attention.shape[3:])
        if out.readout is not None:
            out.readout[n, t] = torch.stack([reading.readout for reading in readings]).mean(dim=0)
