"""Stream through transformers' Sam2VideoModel or EdgeTamVideoModel, and record what its memory attention reads."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sam2lite_core.backends.transformers.session import forget
from training.teachers.attention_bins import grid_cells
from training.teachers.base import TeacherError

LAYERS = 2
"""Last layers that attention is averaged over (design section 4)."""

NOWHERE = -1
"""Source frame and cell of a key that has none."""


class Reading(NamedTuple):
    """Attention and readout of one object's queries on one frame; P queries, S keys.

    Attributes:
        attention: (P, S) mean over heads and the last layers, rows sum to 1.
        readout: (P, D) attention times values of the last layer, heads side by side (equation 6).
        source: (S,) int64, source frame of each key; NOWHERE for object pointers.
        cell: (S,) int64, its cell; NOWHERE for pointers and latents without a place.
    """

    attention: Tensor
    readout: Tensor
    source: Tensor
    cell: Tensor


def key_cells(model: Any) -> Tensor:
    """Return the cells of the keys of one remembered frame, (S',) int64.

    SAM 2 keeps every patch. EdgeTAM keeps latents: first those of the whole frame, then a grid of them.
    """
    config = model.config
    if hasattr(config, "perceiver_resampler_num_latents"):
        side = round(config.perceiver_resampler_num_latents_2d**0.5)
        anywhere = torch.full((config.perceiver_resampler_num_latents,), NOWHERE)
        return torch.cat([anywhere, grid_cells(side, side)])
    rows, columns = model.backbone_feature_sizes[-1]
    return grid_cells(int(rows), int(columns))


class Tap:
    """Hooks on a model's memory attention; every pass through it leaves one entry until `take`."""

    def __init__(self, model: Any) -> None:
        """Set the hooks; `rows` (P,) selects queries, all where None."""
        self.rows: Tensor | None = None
        self._weights: list[Tensor] = []
        self._readout: Tensor | None = None
        self._done: list[tuple[Tensor, Tensor, int]] = []
        attention = model.memory_attention
        layers = list(attention.layers)
        for layer in layers[-LAYERS:]:
            layer.cross_attn_image.register_forward_hook(self._on_attention)
        layers[-1].cross_attn_image.o_proj.register_forward_pre_hook(self._on_readout)
        attention.register_forward_hook(self._on_frame, with_kwargs=True)

    def _pick(self, queries: Tensor) -> Tensor:
        return queries if self.rows is None else queries[self.rows.to(queries.device)]

    def _on_attention(self, module: nn.Module, args: object, output: tuple[Tensor, Tensor | None]) -> None:
        if output[1] is None:
            raise TeacherError("the model returns no attention weights; load it with attn_implementation='eager'")
        self._weights.append(self._pick(output[1][0].float().mean(dim=0)))

    def _on_readout(self, module: nn.Module, args: tuple[Tensor, ...]) -> None:
        self._readout = self._pick(args[0].float().flatten(0, -3)[0])

    def _on_frame(self, module: nn.Module, args: object, kwargs: Mapping[str, Any], output: Tensor) -> None:
        assert self._readout is not None, "the last layer ran before its module ended"
        mean = torch.stack(self._weights).mean(dim=0)
        self._done.append((mean, self._readout, int(kwargs["num_object_pointer_tokens"])))
        self._weights, self._readout = [], None

    def take(self) -> list[tuple[Tensor, Tensor, int]]:
        """Return attention (P, S), readout (P, D) and number of pointer keys of every pass since the last call."""
        done, self._done = self._done, []
        return done


class Stream:
    """One video, frame by frame, with a session per object that shares the frame's features.

    In a common session EdgeTAM fails (transformers 5.23) when an object joins later, and SAM 2 hardens all masks.
    """

    def __init__(self, model: Any, new_session: Callable[[], Any], tap: Tap) -> None:
        """Start with a model in evaluation mode, its constructor of sessions without a video, and a tap on it."""
        self.sessions: dict[int, Any] = {}
        self._model, self._new_session, self._tap = model, new_session, tap
        self._cells = key_cells(model)

    def step(self, t: int, pixels: Tensor, new: Mapping[int, Tensor]) -> tuple[dict[int, Reading], dict[int, Tensor]]:
        """Run frame t; return readings of earlier objects, and mask logits (h, w) of all objects, by object id.

        Args:
            t: its index; one more than the last.
            pixels: (3, S, S) normalised.
            new: masks (S, S) 0 or 1 of new objects, by object id.

        Raises:
            TeacherError: the model's keys are not those of its session.
        """
        readings: dict[int, Reading] = {}
        masks: dict[int, Tensor] = {}
        features = None
        for number in [*self.sessions, *new]:
            if number in new:
                session = self.sessions[number] = self._new_session()
                session.add_mask_inputs(session.obj_id_to_idx(number), t, new[number][None, None])
                session.obj_with_new_inputs.append(number)
                sources = []
            else:
                session = self.sessions[number]
                sources = self._sources(session, t)
            if features is not None:
                session.cache.cache_vision_features(t, features)
            self._tap.take()
            masks[number] = self._model(inference_session=session, frame=pixels, frame_idx=t).pred_masks[0, 0]
            features = session.cache.get_vision_features(t)
            for attention, readout, pointers in self._tap.take():
                readings[number] = self._reading(sources, attention, readout, pointers)
            forget(session, self._model, t)
        return readings, masks

    def _sources(self, session: Any, t: int) -> list[int]:
        """Return the frames whose memories a session's object will read on frame t, in the order of its keys."""
        stored = session.output_dict_per_obj[0]
        frame_of = {
            id(entry): frame
            for kind in ("cond_frame_outputs", "non_cond_frame_outputs")
            for frame, entry in stored[kind].items()
        }
        # The model's own choice, for the order of its keys.
        gathered = self._model._gather_memory_frame_outputs(session, 0, t)
        return [frame_of[id(entry)] for _, entry in gathered if entry is not None]

    def _reading(self, sources: list[int], attention: Tensor, readout: Tensor, pointers: int) -> Reading:
        """Name the keys: every frame's in turn, then the pointers."""
        frames = torch.tensor(sources).repeat_interleave(len(self._cells))
        cells = self._cells.repeat(len(sources))
        source, cell = (F.pad(part, (0, pointers), value=NOWHERE).to(attention.device) for part in (frames, cells))
        if len(source) != attention.shape[1]:
            raise TeacherError(
                f"the model attends to {attention.shape[1]} keys where its session holds {len(source)}; "
                "this version of transformers builds its memory in another way"
            )
        return Reading(attention, readout, source, cell)
