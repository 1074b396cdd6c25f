"""Play clips through a student's step: encode all frames together, then track frame by frame."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from sam2lite_core.graph_io import POLICIES, PromptTensors, StepTensors
from sam2lite_core.model import bank as memory_bank
from sam2lite_core.model.encoder import Features
from sam2lite_core.model.prompt_decoder import PROMPT_CHANNELS
from sam2lite_core.model.step import ROBOT, Memory, StepResult, step
from sam2lite_core.model.student import Student
from training.data.tensors import frame_features, one_hot, token_pool, warp

WINDOW = 8.0
"""Frames of the memory window in training."""


@dataclass(frozen=True)
class EncodedClips:
    """N clips of T frames with up to K objects, encoded.

    Attributes:
        features: of N * T frames.
        key: (N, T, 256, h, w).
        truth: (N, T, K, H, W) ground truth masks.
        exists: (N, K) 1 for objects that the clip has.
    """

    features: Features
    key: Tensor
    truth: Tensor
    exists: Tensor

    def frame(self, t: int) -> tuple[Features, Tensor]:
        """Return features and keys of frame t."""
        return frame_features(self.features, len(self.key), t), self.key[:, t]


def encode_clips(student: Student, clip: dict[str, Tensor]) -> EncodedClips:
    """Encode a batch of clips as `training.data` makes them, on its device."""
    images = clip["images"].permute(0, 1, 4, 2, 3).float()
    pixels = images.flatten(0, 1).contiguous(memory_format=torch.channels_last)
    features, key = student.encode(pixels)
    count = int(clip["count"].max())
    exists = (torch.arange(count, device=images.device) < clip["count"].unsqueeze(1)).float()
    return EncodedClips(
        features, key.reshape(*images.shape[:2], *key.shape[1:]), one_hot(clip["labels"], count), exists
    )


def step_inputs(
    warped: Tensor, active: Tensor, motion: Tensor, t: int, budget: int, policy: str,
    pool: tuple[Tensor, Tensor],
) -> StepTensors:  # fmt: skip
    """Make the inputs of a step on encoded frames; object k lives in slot k.

    Args:
        warped: (N, K, H/4, W/4) previous masks carried along the flow, -1..1, 0 = unknown.
        active: (N, K) 1 for objects that the clip has.
        motion: (N, h, w) relative flow magnitude, patch widths per frame.
        t: index of the frame.
        budget: B in tokens.
        policy: one of `POLICIES`.
        pool: as `token_pool` makes it.
    """
    batch, count = active.shape

    def full(value: float) -> Tensor:
        return torch.full((batch,), value, device=warped.device)

    one_of = F.one_hot(torch.tensor([POLICIES.index(policy)] * batch), len(POLICIES))
    rows, columns = (weights.unsqueeze(0) for weights in pool)
    return StepTensors(
        image=None, motion=motion.unsqueeze(1), warped=warped,
        slots=torch.eye(count, device=warped.device).expand(batch, -1, -1), active=active,
        window=full(WINDOW), budget=full(float(budget)), frame=full(float(t)),
        policy=one_of.to(warped.device, torch.float32), presence_threshold=full(0.5),
        token_rows=rows, token_columns=columns,
    )  # fmt: skip


def play(
    student: Student, clips: EncodedClips, flow: Tensor, motion: Tensor, budget: int, *,
    order: Sequence[int] | None = None, pooled: bool = True, memory: Memory = ROBOT, policy: str = "learned",
    ground_truth: bool = False, raw_readout: bool = False,
) -> Iterator[tuple[int, StepResult]]:  # fmt: skip
    """Track clips as a robot does, each object from its ground truth mask on the first frame.

    Args:
        student: the model.
        clips: encoded by it.
        flow: (N, T', h, w, 2) backward flow of the frames as they are played.
        motion: (N, T', h, w) of the same frames.
        budget: B in tokens.
        order: frames to play; all in turn when None.
        pooled: if tokens cover 2x2 patches.
        memory: how tokens are kept.
        policy: one of `POLICIES`.
        ground_truth: write ground truth masks to memory, which then has no anchors, instead of the student's own.
        raw_readout: as in `step`.

    Yields:
        The index of each frame in its clip, and its result.
    """
    order = range(clips.key.shape[1]) if order is None else order
    batch, count = clips.exists.shape
    device = clips.key.device
    pool = token_pool(clips.key.shape[-2], clips.key.shape[-1], pooled, device)
    capacity = 1 if memory.grows else budget
    bank = memory_bank.empty_bank(batch, capacity, student.variant.key_width, count, device)
    previous, present = torch.zeros(0), clips.exists
    for t, index in enumerate(order):
        truth = F.avg_pool2d(clips.truth[:, index], 4)
        seen = (truth.flatten(2).sum(-1) > 0).float()
        warped = torch.zeros_like(truth)
        if t > 0:
            warped = (warp(previous, flow[:, t]) * 2.0 - 1.0) * present[..., None, None]
        prompt = None
        if t == 0 and not ground_truth:
            rasters = torch.zeros(*truth.shape[:2], PROMPT_CHANNELS, *truth.shape[-2:], device=device)
            prompt = PromptTensors(rasters, truth, clips.exists, clips.exists)
        result = step(
            student, step_inputs(warped, clips.exists, motion[:, t], t, budget, policy, pool), bank, prompt,
            memory=memory, encoded=clips.frame(index), followed=clips.exists, raw_readout=raw_readout,
            remember=(lambda *_, masks=truth, seen=seen: (masks, seen)) if ground_truth else None,
        )  # fmt: skip
        yield index, result
        bank, previous, present = result.bank, result.carried(), result.present
        if ground_truth:
            previous, present = (truth if t == 0 else result.decoded.probability), clips.exists
