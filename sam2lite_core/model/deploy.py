"""The student as it is shipped: batch norms folded, large tensors as fp16 stores them."""

import copy

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sam2lite_core.model.student import Student
from sam2lite_core.variants import Variant

SHARED_BYTES = 1024
"""Tensors of this many fp32 bytes and more are stored as fp16; smaller ones would save nothing."""


def fold_batch_norms(student: Student) -> Student:
    """A copy in evaluation mode whose convolutions hold the batch norms that followed them."""
    folded = copy.deepcopy(student).eval()
    for pair in folded.modules():
        # Shipped weights are folded already, and hold no batch norms.
        if not (isinstance(pair, nn.Sequential) and len(pair) > 1 and isinstance(pair[1], nn.BatchNorm2d)):
            continue
        convolution = pair[0]
        assert isinstance(convolution, nn.Conv2d)
        pair[0] = nn.utils.fuse_conv_bn_eval(convolution, pair[1])
        pair[1] = nn.Identity()
    return folded


class ToOneMap(nn.Module):
    """A 3x3 convolution to a single map, as one of each channel by itself and their sum.

    ONNX Runtime computes sixteen channels at once on a CPU, so that a convolution to one costs it as much as one to
    sixteen: with eight objects at scale .5, 1.1 ms instead of .2.
    """

    ones: Tensor

    def __init__(self, whole: nn.Conv2d) -> None:
        """Take over the weights of a convolution (1, C, 3, 3) with bias and a border of one."""
        super().__init__()
        assert whole.bias is not None
        self.weight = nn.Parameter(whole.weight.detach().transpose(0, 1).contiguous())
        self.bias = nn.Parameter(whole.bias.detach())
        self.register_buffer("ones", torch.ones_like(whole.weight[:, :, :1, :1]))

    def forward(self, grid: Tensor) -> Tensor:
        """(N, C, h, w) to (N, 1, h, w)."""
        apart = F.conv2d(grid, self.weight, padding=1, groups=len(self.weight))
        return F.conv2d(apart, self.ones, self.bias)


def split_last_convolution(student: Student) -> Student:
    """A copy to be traced, whose mask head ends in `ToOneMap`; it says the same."""
    split = copy.deepcopy(student)
    split.head.out = ToOneMap(student.head.out)  # type: ignore[assignment]  # what is traced needs no convolution
    return split


def round_to_half(student: Student) -> Student:
    """A copy whose large tensors hold only values that fp16 can store, as the weights file does."""
    rounded = copy.deepcopy(student)
    with torch.no_grad():
        for parameter in rounded.parameters():
            if parameter.numel() * 4 >= SHARED_BYTES:
                parameter.copy_(parameter.half().float())
    return rounded


def folded_student(variant: Variant) -> Student:
    """An untrained student of the shape that `fold_batch_norms` gives, to load shipped weights into."""
    return fold_batch_norms(Student(variant))
