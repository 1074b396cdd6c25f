"""Build SAM 2.1-tiny and EdgeTAM as published, with random weights: `sam2lite bench --peers` times them.

transformers takes EdgeTAM's backbone from timm, which needs a torchvision that matches torch. So it is built here:
RepViT-M1 (Wang et al., "RepViT: Revisiting Mobile CNN From ViT Perspective", CVPR 2024), under names of its own.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
import transformers
from torch import Tensor, nn
from transformers.modeling_outputs import BaseModelOutput

from sam2lite_core.backends.transformers.session import quiet
from sam2lite_core.errors import ConfigurationError

REPVIT_WIDTHS = (48, 96, 192, 384)
REPVIT_DEPTHS = (2, 2, 14, 2)
_STRIDES = (4, 8, 16)
_SQUEEZE = 8  # channels are rounded to multiples of it


@dataclass(frozen=True)
class Published:
    """A published tracker.

    Attributes:
        side: of the square that it was trained with, px.
        multiple: of which its sides are multiples, px.
        davis17, mose: J&F on DAVIS 2017 val and MOSE val, at `side`, where its authors give it.
        source: of those.
    """

    title: str
    side: int
    multiple: int
    davis17: float | None
    mose: float | None
    source: str

    def side_for(self, short_side: int) -> int:
        """Return the smallest side that it takes and that is no shorter than this, px."""
        return -(-short_side // self.multiple) * self.multiple


PUBLISHED = {
    # Hiera halves the patches, of 4 px, three times.
    "sam2": Published("SAM 2.1-tiny", 1024, 32, None, 71.8, "README of facebookresearch/sam2, SAM 2.1 checkpoints"),
    # Its latents with a place are 16 x 16 windows of the map at stride 16.
    "edgetam": Published("EdgeTAM", 1024, 256, 87.7, 70.0, "README of facebookresearch/EdgeTAM"),
}


class _ConvNorm(nn.Sequential):
    """Convolution without bias, then batch normalisation."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1) -> None:
        super().__init__(
            nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False), nn.BatchNorm2d(outputs)
        )


class _TokenMixer(nn.Module):
    """Depthwise 3x3 and 1x1 branches beside the identity, as trained: EdgeTAM runs them unfused in transformers."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.wide = _ConvNorm(width, width, 3, groups=width)
        self.point = _ConvNorm(width, width, 1, groups=width)

    def forward(self, image: Tensor) -> Tensor:
        return self.wide(image) + self.point(image) + image


class _SqueezeExcite(nn.Module):
    """Channels weighted by a gate on their means."""

    def __init__(self, width: int) -> None:
        super().__init__()
        inner = max(_SQUEEZE, int(width / 4 + _SQUEEZE / 2) // _SQUEEZE * _SQUEEZE)
        self.gate = nn.Sequential(nn.Conv2d(width, inner, 1), nn.ReLU(), nn.Conv2d(inner, width, 1), nn.Sigmoid())

    def forward(self, image: Tensor) -> Tensor:
        return image * self.gate(image.mean((2, 3), keepdim=True))


class _ChannelMixer(nn.Module):
    """Residual feed-forward of 1x1 convolutions, twice as wide inside."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(_ConvNorm(width, 2 * width, 1), nn.GELU(), _ConvNorm(2 * width, width, 1))

    def forward(self, image: Tensor) -> Tensor:
        return image + self.layers(image)


def _block(width: int, squeeze: bool) -> nn.Sequential:
    middle = [_SqueezeExcite(width)] if squeeze else []
    return nn.Sequential(_TokenMixer(width), *middle, _ChannelMixer(width))


def _downsample(width: int, wider: int) -> nn.Sequential:
    return nn.Sequential(
        _block(width, squeeze=False),
        _ConvNorm(width, width, 3, stride=2, groups=width),
        _ConvNorm(width, wider, 1),
        _ChannelMixer(wider),
    )


class RepVitConfig(transformers.PreTrainedConfig):
    """Names the backbone to transformers; it has nothing to choose."""

    model_type = "sam2lite_repvit_m1"


class RepVit(transformers.PreTrainedModel):
    """RepViT-M1 without its classifier."""

    config_class = RepVitConfig
    main_input_name = "pixel_values"

    def __init__(self, config: RepVitConfig) -> None:
        """Build the stem and the stages."""
        super().__init__(config)
        first = REPVIT_WIDTHS[0]
        self.stem = nn.Sequential(_ConvNorm(3, first // 2, 3, 2), nn.GELU(), _ConvNorm(first // 2, first, 3, 2))
        self.stages = nn.ModuleList()
        before = first
        for width, depth in zip(REPVIT_WIDTHS, REPVIT_DEPTHS, strict=True):
            start = [] if width == before else [_downsample(before, width)]
            self.stages.append(nn.Sequential(*start, *(_block(width, index % 2 == 0) for index in range(depth))))
            before = width
        self.post_init()  # type: ignore[no-untyped-call]  # transformers gives it no types

    def forward(self, pixel_values: Tensor, **_: Any) -> BaseModelOutput:
        """Encode (N, 3, H, W) into maps of 48, 96, 192 and 384 channels at strides 4, 8, 16 and 32."""
        maps: list[Tensor] = []
        image = self.stem(pixel_values)
        for stage in self.stages:
            image = stage(image)
            maps.append(image)
        # transformers wants the maps of a backbone there, whatever the field is declared as.
        return BaseModelOutput(last_hidden_state=cast(Any, maps))


transformers.AutoConfig.register(RepVitConfig.model_type, RepVitConfig)
transformers.AutoModel.register(RepVitConfig, RepVit)


def check_side(name: str, side: int) -> int:
    """Return the side of a published model's input, px; ConfigurationError if its architecture does not take it."""
    published = PUBLISHED[name]
    if side < published.multiple or side % published.multiple:
        raise ConfigurationError(f"{published.title} takes squares of multiples of {published.multiple} px, not {side}")
    return side


def save(name: str, side: int, folder: Path) -> None:
    """Write a published tracker with random weights, for an input of this side, px, in Hugging Face's layout.

    A folder of EdgeTAM opens only in a process that imported this module, which knows its backbone.
    """
    check_side(name, side)
    maps = [[side // stride, side // stride] for stride in _STRIDES]
    common: dict[str, Any] = {
        "image_size": side,
        "prompt_encoder_config": {"image_size": side},
        "memory_attention_rope_feat_sizes": maps[-1],
    }
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model: transformers.PreTrainedModel
        if name == "sam2":
            hiera = {"model_type": "sam2_hiera_det_model", "image_size": [side, side]}
            vision = {"model_type": "sam2_vision_model", "backbone_config": hiera, "backbone_feature_sizes": maps}
            model = transformers.Sam2VideoModel(transformers.Sam2VideoConfig(vision_config=vision, **common))
        else:
            eye = transformers.EdgeTamVisionConfig(backbone_config=RepVitConfig(), backbone_feature_sizes=maps)
            model = transformers.EdgeTamVideoModel(transformers.EdgeTamVideoConfig(vision_config=eye, **common))
    with quiet():
        model.save_pretrained(folder)
