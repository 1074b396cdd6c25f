"""Render composed scenes as batched torch operations, on the device of their tensors.

The result is that of `render_clip` up to rounding, but for JPEG compression and for the flow, which is the true one
with noise, since DIS runs on CPUs only.
"""

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from sam2lite_core.variants import PATCH
from training.data.clip import SynthesisConfig
from training.data.synthesis.layers import Scene

ITERATIONS = 3
"""Fixed-point steps that invert a deformation."""

NOISE = 0.002
"""Standard deviation of the flow's noise, shares of the frame: DIS's error inside layers."""


def scene_tensors(scene: Scene) -> dict[str, Tensor]:
    """Turn a scene of L layers into tensors, padded to a common h x w.

    Returns:
        pictures (L, 4, h, w) uint8 RGBA, numbers (L, h, w) uint8, sizes (L, 2) float (w, h), inverses (L, T, 2, 3),
        bends (L, T, 5, 5, 2), zoom (L,), table (256,) uint8 from numbers to labels, count ().
    """
    layers = scene.layers
    return {
        "pictures": _stack_padded([torch.from_numpy(layer.picture).permute(2, 0, 1) for layer in layers]),
        "numbers": _stack_padded([torch.from_numpy(layer.labels) for layer in layers]),
        "sizes": torch.tensor([layer.labels.shape[::-1] for layer in layers], dtype=torch.float32),
        "inverses": torch.from_numpy(np.stack([layer.inverses for layer in layers])),
        "bends": torch.from_numpy(np.stack([layer.bends for layer in layers])),
        "zoom": torch.tensor([float(layer.zoom) for layer in layers]),
        "table": torch.from_numpy(scene.table),
        "count": torch.tensor(len(scene.followed)),
    }


def stack_scenes(scenes: list[dict[str, Tensor]]) -> dict[str, Tensor]:
    """Stack a batch of scenes, padded to the most layers and the largest picture; added layers are invisible."""
    return {name: _stack_padded([scene[name] for scene in scenes]) for name in scenes[0]}


def _stack_padded(tensors: Sequence[Tensor]) -> Tensor:
    """Stack tensors, padded with zeros to the largest of every side."""
    shape = [max(sides) for sides in zip(*(tensor.shape for tensor in tensors), strict=True)]
    out = torch.zeros(len(tensors), *shape, dtype=tensors[0].dtype)
    for row, tensor in zip(out, tensors, strict=True):
        row[tuple(map(slice, tensor.shape))] = tensor
    return out


def render_scenes(
    scenes: dict[str, Tensor], config: SynthesisConfig, generator: torch.Generator | None = None
) -> dict[str, Tensor]:
    """Render a batch of `stack_scenes` with a photograph as background, on its device, to the fields of `Clip`.

    The generator, on the CPU, draws the camera's effects and the flow's noise; None leaves both out.
    """
    frames = [_frame(scenes, t, config) for t in range(config.frames)]
    images, numbers, owner, places = (torch.stack(part, dim=1) for part in zip(*frames, strict=True))
    labels = torch.gather(scenes["table"], 1, numbers.long().flatten(1)).reshape(numbers.shape)
    flow = _flow(scenes, owner, config)
    if generator is not None:
        images = _camera(images, generator)
        flow = _noisy(flow, generator)
    return {
        "images": images.round().clamp(0, 255).byte().permute(0, 1, 3, 4, 2).contiguous(),
        "labels": labels,
        "count": scenes["count"],
        "flow": flow,
        "motion": _motion(flow, config),
        "places": places,
    }


def _source(scenes: dict[str, Tensor], layer: int, t: int, points: Tensor, config: SynthesisConfig) -> Tensor:
    """Map points (N, h, w, 2) px of frame t into a layer's picture, px."""
    inverse = scenes["inverses"][:, layer, t]
    moved = points @ inverse[:, :, :2].transpose(1, 2).unsqueeze(1) + inverse[:, None, None, :, 2]
    return moved + _bend(scenes, layer, t, points, config)


def _bend(scenes: dict[str, Tensor], layer: int, t: int, points: Tensor, config: SynthesisConfig) -> Tensor:
    """Interpolate the deformation's 5x5 nodes at points (N, h, w, 2) px of frame t."""
    field = scenes["bends"][:, layer, t].permute(0, 3, 1, 2)
    size = torch.tensor([config.width, config.height], device=points.device)
    # Node i stands in the middle of the i-th fifth of the frame.
    grid = (points + 0.5) / size * 2.0 - 1.0
    found = F.grid_sample(field, grid, mode="bicubic", padding_mode="border", align_corners=False)
    return found.permute(0, 2, 3, 1)


def _points(config: SynthesisConfig, like: Tensor, step: int = 1, first: int = 0) -> Tensor:
    """Return (1, h, w, 2) pixel coordinates of every step-th pixel."""
    sides = (config.width, config.height)
    axes = [torch.arange(first, side, step, device=like.device, dtype=torch.float32) for side in sides]
    return torch.stack(torch.meshgrid(*axes, indexing="xy"), dim=-1).unsqueeze(0)


def _frame(scenes: dict[str, Tensor], t: int, config: SynthesisConfig) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Render frame t: image (N, 3, H, W) 0..255, numbers and owning layer (N, H, W), places (N, H/16, W/16, 3)."""
    batch, count = scenes["pictures"].shape[:2]
    points = _points(config, scenes["zoom"]).expand(batch, -1, -1, -1)
    half = PATCH // 2
    image = numbers = owner = places = points.new_zeros(0)
    for layer in range(count):
        source = _source(scenes, layer, t, points, config)
        shown, found = _sample(scenes, layer, source)
        centres = source[:, half::PATCH, half::PATCH] * scenes["zoom"][:, layer].view(-1, 1, 1, 1)
        place = F.pad(centres, (1, 0), value=float(layer))
        if layer == 0:
            image, numbers, places = shown[:, :3], found, place
            owner = torch.zeros_like(found)
            continue
        alpha = shown[:, 3:]
        image = image + (alpha / 255.0) * (shown[:, :3] - image)
        covered = alpha[:, 0] > 127.5
        numbers = torch.where(covered, found, numbers)
        owner = torch.where(covered, torch.full_like(owner, float(layer)), owner)
        places = torch.where(covered[:, half::PATCH, half::PATCH].unsqueeze(-1), place, places)
    return image, numbers, owner, places


def _sample(scenes: dict[str, Tensor], layer: int, source: Tensor) -> tuple[Tensor, Tensor]:
    """Sample a layer's RGBA (N, 4, H, W) and numbers (N, H, W) at source px; the background is reflected."""
    pictures, numbers = scenes["pictures"][:, layer].float(), scenes["numbers"][:, layer].float()
    if layer == 0:
        last = (scenes["sizes"][:, 0] - 1.0).view(-1, 1, 1, 2)
        folded = torch.remainder(source, 2.0 * last)
        source = torch.minimum(folded, 2.0 * last - folded)
    height, width = pictures.shape[-2:]
    grid = source / torch.tensor([width - 1.0, height - 1.0], device=source.device) * 2.0 - 1.0
    shown = F.grid_sample(pictures, grid, padding_mode="zeros", align_corners=True)
    found = F.grid_sample(numbers.unsqueeze(1), grid, mode="nearest", padding_mode="zeros", align_corners=True)
    return shown, found[:, 0]


def _flow(scenes: dict[str, Tensor], owner: Tensor, config: SynthesisConfig) -> Tensor:
    """Compute the true backward flow (N, T, H/4, W/4, 2) in shares of the frame."""
    batch, count = scenes["pictures"].shape[:2]
    points = _points(config, scenes["zoom"], step=4, first=2).expand(batch, -1, -1, -1)
    size = torch.tensor([config.width, config.height], device=points.device)
    flow = torch.zeros(batch, config.frames, *points.shape[1:], device=points.device)
    for t in range(1, config.frames):
        for layer in range(count):
            source = _source(scenes, layer, t, points, config)
            before = scenes["inverses"][:, layer, t - 1]
            # Layers that pad a batch have no map.
            visible = scenes["zoom"][:, layer] > 0
            linear = torch.where(visible.view(-1, 1, 1), before[:, :, :2], torch.eye(2, device=points.device))
            back = torch.linalg.inv(linear).transpose(1, 2).unsqueeze(1)
            place = points
            for _ in range(ITERATIONS):
                bend = _bend(scenes, layer, t - 1, place, config)
                place = (source - before[:, None, None, :, 2] - bend) @ back
            mine = (owner[:, t, 2::4, 2::4] == layer).unsqueeze(-1)
            flow[:, t] = torch.where(mine, (place - points) / size, flow[:, t])
    # Hidden objects lie far away.
    return flow.clamp(-1.0, 1.0)


def _motion(flow: Tensor, config: SynthesisConfig) -> Tensor:
    """Compute the flow magnitude relative to the frame's median, patch widths a frame; (N, T, H/16, W/16)."""
    batch, frames = flow.shape[:2]
    rows, columns = config.height // PATCH, config.width // PATCH
    patches = F.avg_pool2d(flow.flatten(0, 1).permute(0, 3, 1, 2), PATCH // 4)
    patches = patches * torch.tensor([columns, rows], device=flow.device).view(1, 2, 1, 1)
    flat = patches.flatten(2)
    moved: Tensor = torch.linalg.vector_norm(flat - flat.median(dim=2, keepdim=True).values, dim=1)
    return moved.reshape(batch, frames, rows, columns)


def _noisy(flow: Tensor, generator: torch.Generator) -> Tensor:
    """Soften the flow's edges and add smooth noise; frame 0 has none."""
    rows, columns = flow.shape[2:4]
    maps = flow.flatten(0, 1).permute(0, 3, 1, 2)
    soft = F.avg_pool2d(maps, 3, 1, 1, count_include_pad=False)
    coarse = torch.randn(len(maps), 2, max(1, rows // 4), max(1, columns // 4), generator=generator)
    noise = F.interpolate(coarse.to(flow.device) * NOISE, size=(rows, columns), mode="bilinear", align_corners=False)
    out = (soft + noise).permute(0, 2, 3, 1).reshape(flow.shape).clone()
    out[:, 0] = 0.0
    return out


def _camera(images: Tensor, generator: torch.Generator) -> Tensor:
    """Add exposure drift, motion blur, grain and grey to (N, T, 3, H, W), 0..255, as often as `render_clip`."""
    batch, frames, _, height, width = images.shape

    def chance(probability: float) -> Tensor:
        return (torch.rand(batch, generator=generator) < probability).float().view(-1, 1, 1, 1, 1)

    drift = torch.randn(batch, frames, generator=generator).mul(0.03).cumsum(1).view(batch, frames, 1, 1, 1)
    gain = (1.0 + drift * chance(0.5)).clamp(0.6, 1.5)
    kernels = torch.stack([_blur_kernel(generator) for _ in range(batch)])
    # A kernel for every clip: clips become groups of one convolution.
    grouped = images.transpose(0, 1).reshape(frames, batch * 3, height, width)
    weight = kernels.repeat_interleave(3, dim=0).unsqueeze(1).to(images)
    padded = F.pad(grouped, (2, 2, 2, 2), mode="reflect")
    blurred = F.conv2d(padded, weight, groups=batch * 3).reshape(frames, batch, 3, height, width)
    grain = torch.rand(batch, 1, 1, 1, 1, generator=generator) * 6.0 + 2.0
    grain = (grain * chance(0.3)).to(images.device)
    grey = chance(0.03).to(images.device)
    out = blurred.transpose(0, 1) * gain.to(images.device)
    own = torch.Generator(images.device).manual_seed(int(torch.randint(2**31, (), generator=generator)))
    out = out + (torch.rand(out.shape, generator=own, device=out.device) * 2.0 - 1.0) * grain
    luma = (out * torch.tensor([0.299, 0.587, 0.114], device=out.device).view(1, 1, 3, 1, 1)).sum(2, True)
    return out + grey * (luma - out)


def _blur_kernel(generator: torch.Generator) -> Tensor:
    """Draw a (5, 5) kernel that sums to 1: a point for most clips, else a line of 3 or 5 px."""
    kernel = torch.zeros(5, 5)
    if float(torch.rand((), generator=generator)) >= 0.3:
        kernel[2, 2] = 1.0
        return kernel
    reach = 1 + int(torch.randint(2, (), generator=generator))
    slope = float(torch.rand((), generator=generator)) * 2.0 - 1.0
    for step in range(-reach, reach + 1):
        kernel[2 + round(slope * step), 2 + step] = 1.0
    return kernel / kernel.sum()
