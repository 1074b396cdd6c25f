"""Start a student of one variant from a student of another.

Weights behind the encoder are kept. The new encoder's transformer blocks start at zero, so that the trunk's features
pass through. Layers that read the encoder are fitted to their old outputs by ridge regression over pictures.
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
from training.teachers.image_features import RidgeRegression, to_rows

SIZE = (240, 432)
"""Height and width of pictures, px: those of scale 0.5."""

READERS = {
    16: ("key", "value", "pixel", "prompt.shared16"),
    8: ("head.shared8", "prompt.shared8"),
    4: ("head.shared4", "prompt.shared4"),
}
"""Layers that read the encoder's features, by stride."""


def transplant(donor: Student, variant: str, pictures: Sequence[Tensor], trunk: Path = PACKAGED) -> dict[str, Any]:
    """Make the checkpoint of an untrained student that begins as the donor.

    Its `fit` holds the share of the variance that each fitted layer explains, 0..1.

    Args:
        donor: a student whose encoder has a trunk, in evaluation mode.
        variant: of the new student; its encoder has one too.
        pictures: batches (N, 3, H, W) uint8 RGB, sides multiples of 16; looked at twice.
        trunk: weights of the new trunk, see `pretrained.fill_trunk`.

    Raises:
        ConfigurationError, TeacherError: a variant without a trunk, no picture, or unreadable weights.
    """
    if get_variant(variant).trunk is None or donor.variant.trunk is None:
        raise ConfigurationError(f"{donor.variant.name} to {variant}: both need an encoder with a trunk")
    if not pictures:
        raise ConfigurationError("no picture to fit the layers on")
    torch.manual_seed(0)
    student = Student(get_variant(variant)).eval()
    fill_trunk(student, trunk)
    with torch.no_grad():
        _copy_shared(donor, student)
        assert isinstance(student.encoder, TrunkEncoder)  # the variant has a trunk
        for block in student.encoder.blocks:
            for name in ("attention.out", "mlp.2", "position"):
                for parameter in block.get_submodule(name).parameters():
                    parameter.zero_()
        _join_strides(student.encoder, pictures)
        fit = _fit_readers(donor, student, pictures)
    return {"variant": variant, "average": student.state_dict(), "fit": fit}


def _copy_shared(donor: Student, student: Student) -> None:
    """Copy every weight behind the encoder that has the same shape in both."""
    ours = student.state_dict()
    for name, value in donor.state_dict().items():
        if not name.startswith("encoder.") and name in ours and ours[name].shape == value.shape:
            ours[name] = value
    student.load_state_dict(ours)


def _join_strides(encoder: TrunkEncoder, pictures: Sequence[Tensor]) -> None:
    """Set the layers that join strides 16 and 32 to the principal components of both, randomly rotated."""
    products: Any = 0.0
    near_width, width = encoder.side16.in_channels, encoder.side16.out_channels
    for batch in pictures:
        near, far = encoder.trunk((batch.float() - encoder.MIDDLE) / encoder.HALF_RANGE)[2:]
        far = F.interpolate(far, scale_factor=2.0, mode="bilinear", align_corners=False)
        both = to_rows(torch.cat([near, far[..., : near.shape[-2], : near.shape[-1]]], dim=1))
        both = F.pad(both, (0, 1), value=1.0)
        products = products + both.T @ both
    mean = products[-1, :-1] / products[-1, -1]
    covariance = products[:-1, :-1] / products[-1, -1] - torch.outer(mean, mean)
    power = covariance.diagonal()
    # Both strides count alike.
    scale = torch.cat([part.sum().sqrt().expand(len(part)) for part in (power[:near_width], power[near_width:])])
    values, vectors = torch.linalg.eigh(covariance / torch.outer(scale, scale))
    kept = min(width, len(mean))
    rotation = torch.linalg.qr(torch.randn(width, kept, dtype=torch.float64))[0].T
    # As much power as the norm behind it gives out.
    joined = vectors[:, -kept:] @ rotation * (width / values[-kept:].sum()).sqrt() / scale[:, None]
    encoder.side16.weight.copy_(joined[:near_width].T[..., None, None])
    encoder.side32.weight.copy_(joined[near_width:].T[..., None, None])
    encoder.get_parameter("side16.bias").copy_(-mean @ joined)


def _fit_readers(donor: Student, student: Student, pictures: Sequence[Tensor]) -> dict[str, float]:
    """Fit every layer of `READERS` to the donor's output; return the shares of the variance explained."""
    regressions = {name: RidgeRegression() for names in READERS.values() for name in names}
    for batch in pictures:
        theirs, ours = donor.encoder(batch.float()), student.encoder(batch.float())
        for stride, names in READERS.items():
            # As many places as stride 16 has, at each stride.
            step = 16 // stride
            seen, new = (to_rows(getattr(maps, f"stride{stride}")[..., ::step, ::step]) for maps in (theirs, ours))
            for name in names:
                weight, bias = _read(donor, name, seen.shape[1])
                regressions[name].add(new, seen @ weight.T.double() + bias.double())
    fit = {}
    for name, regression in regressions.items():
        solution, fit[name] = regression.solve()
        weight, bias = _read(student, name, len(solution) - 1)
        weight.copy_(solution[:-1].T)
        bias.copy_(solution[-1])
        extra = student.get_parameter(f"{name}.weight").flatten(1)[:, weight.shape[1] :]
        theirs_extra = donor.get_parameter(f"{name}.weight").flatten(1)
        # `value` also reads the mask; that part stays.
        extra.copy_(theirs_extra[:, theirs_extra.shape[1] - extra.shape[1] :])
    return fit


def _read(student: Student, name: str, width: int) -> tuple[Tensor, Tensor]:
    """Return a reader's weights for the encoder's channels, (outputs, width), and its bias; views."""
    layer = student.get_submodule(name)
    assert isinstance(layer, nn.Linear | nn.Conv2d) and layer.bias is not None
    return layer.weight.flatten(1)[:, :width], layer.bias


def read_pictures(folder: Path, count: int, batch: int = 8) -> list[Tensor]:
    """Read pictures evenly spread over a folder, scaled and cropped to `SIZE`, in batches (N, 3, H, W) uint8 RGB.

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
    """Crop the middle of a picture to `SIZE`, as large as fits."""
    height, width = SIZE
    factor = max(height / image.shape[0], width / image.shape[1])
    size = max(width, round(image.shape[1] * factor)), max(height, round(image.shape[0] * factor))
    resized = cv2.resize(image, size, interpolation=cv2.INTER_AREA if factor < 1 else cv2.INTER_LINEAR)
    top, left = (resized.shape[0] - height) // 2, (resized.shape[1] - width) // 2
    return np.ascontiguousarray(resized[top : top + height, left : left + width], dtype=np.uint8)
