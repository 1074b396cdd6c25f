"""Layers written so that they export to operators that runtimes fuse, and so that they train fast."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Linear(nn.Linear):
    """A linear layer that exports as one Gemm.

    On more than two dimensions PyTorch's own becomes MatMul and Add, which ONNX Runtime runs one after the other: the
    biases alone cost a twentieth of a step.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Map (..., in) to (..., out)."""
        flat = x.reshape(-1, self.in_features)
        return F.linear(flat, self.weight, self.bias).reshape(*x.shape[:-1], self.out_features)


class Gelu(nn.Module):
    """The Gaussian error linear unit, in the order of operations that ONNX Runtime knows as one."""

    def forward(self, x: Tensor) -> Tensor:
        """Map any shape to the same."""
        if torch.onnx.is_in_onnx_export():
            return x * (torch.erf(x / math.sqrt(2.0)) + 1.0) * 0.5
        return F.gelu(x)


def pool2(tokens: Tensor) -> Tensor:
    """2x2 mean pooling of (N, C, h, w); an odd last row or column is averaged over what is there.

    Written as pad, pool, divide: runtimes disagree about AveragePool with ceil_mode at the border. One extra row
    and column are always padded; where the side is even, the pool drops them again.
    """
    total = F.avg_pool2d(F.pad(tokens, (0, 1, 0, 1)), 2)
    ones = F.pad(torch.ones_like(tokens[:1, :1]), (0, 1, 0, 1))
    return total / F.avg_pool2d(ones, 2)


def attend(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Softmax attention over (N, heads, tokens, width).

    Written out: it trains faster than the fused CPU kernel at these sizes (which took a quarter of a step) and exports
    to plain MatMul and Softmax.
    """
    weight = torch.softmax(query @ key.transpose(-2, -1) * query.shape[-1] ** -0.5, dim=-1)
    return weight.to(value.dtype) @ value


def conv_bn(inputs: int, outputs: int, stride: int) -> nn.Sequential:
    """3x3 convolution, batch norm (folded into the convolution at export) and ReLU."""
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU(inplace=True)
    )
