"""Start a student where another one stands: all that both have, and what reads the encoder fitted to the new features.

The parts behind the encoder are alike in all variants, so that what a small student has learnt of masks, memory and
prompts is worth keeping when the encoder grows. Its transformer blocks begin as nothing, so that the trunk's features
come through; each layer that read the old encoder is fitted, by ridge regression over pictures, to say of the new
features what it said of the old ones.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from sam2lite_core.errors import ConfigurationError, SourceError
from sam2lite_core.media.pictures import list_images, read_image
from sam2lite_core.model.encoder import TrunkEncoder
from sam2lite_core.model.student import Student
from sam2lite_core.variants import get_variant
from training.config.run import PACKAGED
from training.students.pretrained import fill_trunk
from training.teachers.image_features import RIDGE

SIZE = (240, 432)
"""Pictures are cut to this height and width, px: scale 0.5's own."""

READERS = {
    16: ("key", "value", "pixel", "prompt.shared16"),
    8: ("head.shared8", "prompt.shared8"),
    4: ("head.shared4", "prompt.shared4"),
}
"""What reads the encoder's features, by stride."""


def transplant(donor: Student, variant: str, pictures: Sequence[Tensor], trunk: Path = PACKAGED) -> dict[str, Any]:
    """Make a student that has not learnt anything yet, but begins as the donor.

    Args:
        donor: a student whose encoder has a trunk, in evaluation mode.
        variant: of the new student; its encoder has one too.
        pictures: batches (N, 3, H, W) uint8 RGB, sides multiples of 16; looked at twice.
        trunk: weights of the new trunk, see `pretrained.fill_trunk`.

    Returns:
        The content of a checkpoint; `fit` holds the share of the variance that each fitted layer explains, 0..1.

    Raises:
        ConfigurationError: a variant without a trunk, or no picture.
        TeacherError: the trunk's weights cannot be read.
    """
    if get_variant(variant).trunk is None or donor.variant.trunk is None:
        raise ConfigurationError(f"{donor.variant.name} to {variant}: both need an encoder with a trunk")
    if not pictures:
        raise ConfigurationError("no picture to fit the layers on")
    torch.manual_seed(0)
    student = Student(get_variant(variant)).eval()
    fill_trunk(student, trunk)
    with torch.no_grad():
        _keep_what_both_have(donor, student)
        _silence_blocks(student)
        assert isinstance(student.encoder, TrunkEncoder)  # the variant has a trunk
        _let_through(student.encoder, pictures)
        fit = _fit_readers(donor, student, pictures)
    return {"variant": variant, "average": student.state_dict(), "fit": fit}


def _keep_what_both_have(donor: Student, student: Student) -> None:
    """Every weight behind the encoder that has the same shape in both."""
    theirs, ours = donor.state_dict(), student.state_dict()
    for name, value in theirs.items():
        if not name.startswith("encoder.") and name in ours and ours[name].shape == value.shape:
            ours[name] = value
    student.load_state_dict(ours)


def _silence_blocks(student: Student) -> None:
    """Let the transformer blocks add nothing; they learn from there."""
    for block in student.encoder.blocks:
        for name in ("attention.out", "mlp.2", "position"):
            for parameter in block.get_submodule(name).parameters():
                parameter.zero_()


def _let_through(encoder: TrunkEncoder, pictures: Sequence[Tensor]) -> None:
    """Set what joins strides 16 and 32 to the principal components of both, turned at random.

    Both strides count alike. Where there are more channels than components, none is lost, and all have a share.
    """
    total = near_width = 0
    sums: Tensor | float = 0.0
    products: Tensor | float = 0.0
    for batch in pictures:
        near, far = encoder.trunk((batch.float() - encoder.MIDDLE) / encoder.HALF_RANGE)[2:]
        far = F.interpolate(far, scale_factor=2.0, mode="bilinear", align_corners=False)
        near_width = near.shape[1]
        both = _rows(torch.cat([near, far[..., : near.shape[-2], : near.shape[-1]]], dim=1))
        sums, products, total = sums + both.sum(0), products + both.T @ both, total + len(both)
    mean = torch.as_tensor(sums) / total
    covariance = torch.as_tensor(products) / total - torch.outer(mean, mean)
    power = covariance.diagonal()
    scale = torch.cat([part.sum().sqrt().expand(len(part)) for part in (power[:near_width], power[near_width:])])
    values, vectors = torch.linalg.eigh(covariance / torch.outer(scale, scale))
    width = encoder.side16.out_channels
    kept = min(width, len(mean))
    turn = torch.linalg.qr(torch.randn(width, kept, dtype=torch.float64))[0].T
    # As much power as the norm behind it gives out.
    joined = vectors[:, -kept:] @ turn * (width / values[-kept:].sum()).sqrt() / scale[:, None]
    encoder.side16.weight.copy_(joined[:near_width].T[..., None, None])
    encoder.side32.weight.copy_(joined[near_width:].T[..., None, None])
    encoder.get_parameter("side16.bias").copy_(-mean @ joined)


def _fit_readers(donor: Student, student: Student, pictures: Sequence[Tensor]) -> dict[str, float]:
    """Set every layer of `READERS` to what explains most of its namesake's output: ridge regression."""
    sums = {name: _Sums() for names in READERS.values() for name in names}
    for batch in pictures:
        theirs, ours = donor.encoder(batch.float()), student.encoder(batch.float())
        for stride, names in READERS.items():
            # As many places as stride 16 has, at each stride.
            step = 16 // stride
            seen, new = (_rows(getattr(maps, f"stride{stride}")[..., ::step, ::step]) for maps in (theirs, ours))
            for name in names:
                weight, bias = _read(donor, name, seen.shape[1])
                sums[name].add(new, seen @ weight.T.double() + bias.double())
    fit = {}
    for name, entry in sums.items():
        solution, fit[name] = entry.solve()
        weight, bias = _read(student, name, len(solution) - 1)
        weight.copy_(solution[:-1].T)
        bias.copy_(solution[-1])
        extra = student.get_parameter(f"{name}.weight").flatten(1)[:, weight.shape[1] :]
        theirs_extra = donor.get_parameter(f"{name}.weight").flatten(1)
        # `value` reads the mask beside the features: that part stays as it is.
        extra.copy_(theirs_extra[:, theirs_extra.shape[1] - extra.shape[1] :])
    return fit


def _read(student: Student, name: str, width: int) -> tuple[Tensor, Tensor]:
    """Return a reader's weights for the encoder's channels, (outputs, width), and its bias; views."""
    layer = student.get_submodule(name)
    assert isinstance(layer, nn.Linear | nn.Conv2d) and layer.bias is not None
    return layer.weight.flatten(1)[:, :width], layer.bias


class _Sums:
    """The sums over samples that a regression needs."""

    def __init__(self) -> None:
        self.gram: Tensor | float = 0.0
        self.cross: Tensor | float = 0.0
        self.power: Tensor | float = 0.0
        self.total: Tensor | float = 0.0
        self.count = 0

    def add(self, given: Tensor, wanted: Tensor) -> None:
        """Take in samples, (M, A) and (M, B), double."""
        given = torch.cat([given, torch.ones_like(given[:, :1])], dim=1)
        self.gram, self.cross = self.gram + given.T @ given, self.cross + given.T @ wanted
        self.power, self.total = self.power + wanted.pow(2).sum(0), self.total + wanted.sum(0)
        self.count += len(given)

    def solve(self) -> tuple[Tensor, float]:
        """Weights (A + 1, B), the last row the bias, and the share of the variance that they explain."""
        gram, cross = torch.as_tensor(self.gram), torch.as_tensor(self.cross)
        solution = torch.linalg.solve(gram + RIDGE * torch.eye(len(gram), dtype=gram.dtype), cross)
        variance = torch.as_tensor(self.power - torch.as_tensor(self.total).pow(2) / self.count).sum()
        # |Y - A W|^2 = |Y|^2 - 2 W.AY + W.AA W
        off = torch.as_tensor(self.power).sum() - 2 * (solution * cross).sum() + (solution * (gram @ solution)).sum()
        return solution, float(1.0 - off / variance)


def _rows(grid: Tensor) -> Tensor:
    """Flatten (N, C, h, w) to (N h w, C), double."""
    return grid.permute(0, 2, 3, 1).flatten(0, 2).double()


def read_pictures(folder: Path, count: int, batch: int = 8) -> list[Tensor]:
    """Pictures of a folder, evenly spread over it, enlarged or reduced and cut to `SIZE` around their middle.

    Returns:
        Batches (N, 3, H, W) uint8 RGB.

    Raises:
        SourceError: no such folder, no picture in it, or one that cannot be read.
    """
    if not folder.is_dir():
        raise SourceError(f"{folder}: no such folder")
    found = list_images(folder)
    if not found:
        raise SourceError(f"{folder}: no JPEG or PNG picture in this folder")
    number = min(count, len(found))
    chosen = [found[index * len(found) // number] for index in range(number)]
    pictures = [torch.from_numpy(_cut(read_image(path))).permute(2, 0, 1) for path in chosen]
    return [torch.stack(pictures[start : start + batch]) for start in range(0, len(pictures), batch)]


def _cut(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Cut the middle of a picture at `SIZE`, as large as fits."""
    height, width = SIZE
    factor = max(height / image.shape[0], width / image.shape[1])
    size = max(width, round(image.shape[1] * factor)), max(height, round(image.shape[0] * factor))
    resized = cv2.resize(image, size, interpolation=cv2.INTER_AREA if factor < 1 else cv2.INTER_LINEAR)
    top, left = (resized.shape[0] - height) // 2, (resized.shape[1] - width) // 2
    return np.ascontiguousarray(resized[top : top + height, left : left + width], dtype=np.uint8)
