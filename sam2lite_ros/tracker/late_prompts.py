"""Move prompts on old frames to the present: an operator clicks on a picture that is some frames old."""

from dataclasses import replace

import cv2
import numpy as np

from sam2lite_core.types import Prompt
from sam2lite_ros.tracker.frame_ring import HeldFrame

CATCH_UP_STEPS = 4
"""Most frames stepped from an old prompted frame to the present; each costs a step of delay."""


def spread(frames: list[HeldFrame], at_most: int) -> list[HeldFrame]:
    """Choose at most so many frames, evenly spaced, always with the last one."""
    if len(frames) <= at_most:
        return frames
    positions = np.linspace(0, len(frames), at_most + 1)[1:]
    return [frames[round(float(position)) - 1] for position in positions]


def scale_prompt(prompt: Prompt, source: tuple[int, int], target: tuple[int, int]) -> Prompt:
    """Move a prompt from an image of one (height, width) to the same image at another.

    A mask keeps at least one pixel, however small it was.
    """
    if source == target:
        return prompt
    factor = np.array([target[1] / source[1], target[0] / source[0]], np.float32)
    mask = None
    if prompt.mask is not None:
        share = cv2.resize(prompt.mask.astype(np.float32), (target[1], target[0]), interpolation=cv2.INTER_AREA)
        mask = share >= min(0.5, float(share.max()))
    return replace(
        prompt,
        points=None if prompt.points is None else prompt.points * factor,
        box=None if prompt.box is None else prompt.box * np.tile(factor, 2),
        mask=mask,
    )
