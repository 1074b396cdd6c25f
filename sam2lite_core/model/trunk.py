"""A convolutional trunk of inverted residuals, in the shape of EfficientNet-Lite up to its sixth stage.

EfficientNet-Lite (Liu, Google, 2020) was trained on ImageNet. Its features find an object again that pasted photographs
alone could not teach to find (training/RESULTS.md), so a trunk of its shape can start from its weights; the seventh
stage, whose features find less, and the classifier are left out, of Lite0 also the sixth stage's last repeat, for which
tiny has no room.
"""

import torch.nn.functional as F
from torch import Tensor, nn

STEM = 32
"""Channels of the first convolution, stride 2."""

STAGES = ((3, 1, 1, 16), (3, 2, 6, 24), (5, 2, 6, 40), (3, 2, 6, 80), (5, 1, 6, 112), (5, 2, 6, 192))
"""Kernel, stride of the first repeat, expansion and channels of every stage (Tan and Le, 2019, table 1)."""

SHAPES = {"lite0": (1, 2, 2, 3, 3, 3), "lite1": (1, 3, 3, 4, 4, 5)}
"""Repeats of every stage."""

LATE = 5
"""The first stage of stride 32; those before it see the frame at strides 2 to 16."""

BN_EPSILON = 1e-3
"""As the published weights were trained with."""


class Same(nn.Module):
    """Zeros around a map, so that a strided convolution gives half of its side, rounded up.

    More of them after than before, as the published weights saw it: centred, every patch would speak of a place half a
    patch away from its own.
    """

    def __init__(self, kernel: int) -> None:
        super().__init__()
        before = (kernel - 2) // 2
        # One more than an even side needs, which the convolution then leaves out.
        after = kernel - 1 - before
        self.sides = (before, after, before, after)

    def forward(self, grid: Tensor) -> Tensor:
        """Pad (N, C, h, w)."""
        return F.pad(grid, self.sides)


def _convolution(inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1) -> nn.Sequential:
    """Convolution and batch norm, which is folded into it at export."""
    padding = kernel // 2 if stride == 1 else 0
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, kernel, stride, padding, groups=groups, bias=False),
        nn.BatchNorm2d(outputs, eps=BN_EPSILON),
    )


class InvertedResidual(nn.Module):
    """Widen, convolve each channel by itself, narrow; plus the input where shapes allow (Sandler et al., 2018)."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int, expansion: int) -> None:
        super().__init__()
        hidden = inputs * expansion
        self.expand = _convolution(inputs, hidden, 1) if expansion > 1 else None
        self.pad = Same(kernel) if stride > 1 else None
        self.depthwise = _convolution(hidden, hidden, kernel, stride, hidden)
        self.project = _convolution(hidden, outputs, 1)
        self.residual = stride == 1 and inputs == outputs

    def forward(self, grid: Tensor) -> Tensor:
        """Map (N, C, h, w) to (N, C', h / stride, w / stride), rounded up."""
        hidden = grid if self.expand is None else F.relu6(self.expand(grid))
        if self.pad is not None:
            hidden = self.pad(hidden)
        narrowed: Tensor = self.project(F.relu6(self.depthwise(hidden)))
        return grid + narrowed if self.residual else narrowed


class Trunk(nn.Module):
    """Frames to maps at strides 4, 8, 16 and 32.

    Its batch norms never look at a batch: a few clips of neighbouring frames say less about pictures than what they
    came with.
    """

    widths = tuple(stage[3] for stage in STAGES)

    def __init__(self, shape: str) -> None:
        """Random weights. shape: one of `SHAPES`."""
        super().__init__()
        self.pad = Same(3)
        self.stem = _convolution(3, STEM, 3, 2)
        stages, inputs = [], STEM
        for repeats, (kernel, stride, expansion, outputs) in zip(SHAPES[shape], STAGES, strict=True):
            blocks = []
            for index in range(repeats):
                blocks.append(InvertedResidual(inputs, outputs, kernel, stride if index == 0 else 1, expansion))
                inputs = outputs
            stages.append(nn.Sequential(*blocks))
        self.early, self.late = nn.ModuleList(stages[:LATE]), nn.ModuleList(stages[LATE:])
        # Norms that do not look at batches leave it to the weights to keep values of one size (He et al., 2015).
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")

    def train(self, mode: bool = True) -> "Trunk":
        """Switch to training, but for the batch norms."""
        super().train(mode)
        for module in self.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.eval()
        return self

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Look at frames.

        Args:
            image: (N, 3, H, W) float, about -1..1, sides multiples of 16.

        Returns:
            Maps of 24, 40, 112 and 192 channels, of sides H / s and W / s, rounded up, s = 4, 8, 16 and 32.
        """
        grid = F.relu6(self.stem(self.pad(image)))
        maps = []
        for stage in (*self.early, *self.late):
            grid = stage(grid)
            maps.append(grid)
        return maps[1], maps[2], maps[4], maps[5]
