"""Load published weights of EfficientNet-Lite into the encoder's trunk."""

from functools import partial
from pathlib import Path

from torch import Tensor, nn

from sam2lite_core.errors import ConfigurationError
from sam2lite_core.model.student import Student
from sam2lite_core.model.trunk import InvertedResidual, Trunk
from training.teachers.image_features import load_published


def fill_trunk(student: Student, path: Path) -> None:
    """Give the encoder's trunk its published weights and batch statistics.

    Args:
        student: of a variant with a trunk; changed in place.
        path: of the trunk's weights, see `load_published`.

    Raises:
        ConfigurationError: the variant has no trunk.
        TeacherError: the file is missing or holds other weights.
    """
    shape = student.variant.trunk
    if shape is None:
        raise ConfigurationError(f"the encoder of {student.variant.name} has no trunk; choose tiny or small")
    trunk = student.encoder.trunk
    assert isinstance(trunk, Trunk)
    load_published(trunk, path, shape, partial(renamed, trunk))


def renamed(trunk: Trunk, published: dict[str, Tensor]) -> dict[str, Tensor]:
    """Give published weights the names that they have in the trunk."""
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
