"""The student as it is shipped: batch norms folded, large tensors as fp16 stores them."""

import copy

import torch
from torch import nn

from sam2lite_core.model.student import Student
from sam2lite_core.variants import Variant

SHARED_BYTES = 1024
"""Tensors of this many fp32 bytes and more are stored as fp16; smaller ones would save nothing."""


def fold_batch_norms(student: Student) -> Student:
    """A copy in evaluation mode whose stem holds convolutions with folded batch norms."""
    folded = copy.deepcopy(student).eval()
    for stem in _stems(folded):
        convolution, norm = stem[0], stem[1]
        if isinstance(norm, nn.Identity):
            continue  # loaded from shipped weights, which are folded
        assert isinstance(convolution, nn.Conv2d)
        assert isinstance(norm, nn.BatchNorm2d)
        stem[0] = nn.utils.fuse_conv_bn_eval(convolution, norm)
        stem[1] = nn.Identity()
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


def _stems(student: Student) -> tuple[nn.Sequential, ...]:
    encoder = student.encoder
    return encoder.stem2, encoder.stem4, encoder.stem8, encoder.stem16
