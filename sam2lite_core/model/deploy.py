"""The student as it is shipped: batch norms folded, large tensors as fp16 stores them."""

import copy

import torch
from torch import nn

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
