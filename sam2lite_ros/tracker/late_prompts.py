"""Find the frame that a prompt was made on, and the frames that lead from there to the present.

An operator clicks on a picture that is some frames old. The tracker is prompted on that frame and then catches up.
"""

from collections.abc import Collection
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from sam2lite_core.types import Prompt
from sam2lite_ros.tracker.frame_ring import FrameRing, HeldFrame
from sam2lite_ros.tracker.prompts import PromptRequest, resolve_id

CATCH_UP_STEPS = 4
"""Most frames stepped to get from an old prompted frame to the present; each costs a step of delay."""


@dataclass(frozen=True)
class LatePrompt:
    """A checked prompt with the frame that the operator saw.

    Attributes:
        prompt: in source pixels.
        sequence: position of the frame in the order of arrival, from 1.
        image: (H, W, 3) uint8 RGB of the frame, at no more than scale 1.
        size: (height, width) of the source, pixels.
    """

    prompt: Prompt
    sequence: int
    image: NDArray[np.uint8]
    size: tuple[int, int]

    @property
    def held_prompt(self) -> Prompt:
        """The prompt in pixels of `image`."""
        return scale_prompt(self.prompt, self.size, self.image.shape[:2])


def find_late_prompt(request: PromptRequest, ring: FrameRing, taken: Collection[int], mask_encoding: str) -> LatePrompt:
    """Read a request against the frame that it names.

    Args:
        request: what the operator asks.
        ring: the frames that are held.
        taken: ids in use, of which none is chosen for a new object.
        mask_encoding: encoding of the published mask, which has to hold the id.

    Raises:
        InvalidPromptError: the frame is not held, the id does not fit, or the prompt lies outside the frame.
        InvalidFrameError: the frame cannot be decoded.
    """
    held = ring.find(request.stamp_ns)
    prompt = request.prompt(resolve_id(request.object_id, taken, mask_encoding))
    image, size = held.load()
    prompt.check_inside(*size)
    return LatePrompt(prompt, held.sequence, image, size)


def frames_to_catch_up(ring: FrameRing, after: int, newest: int) -> list[HeldFrame]:
    """Choose at most `CATCH_UP_STEPS` held frames, evenly spaced, always with the newest.

    Catching up costs one step a frame while new frames arrive, so it must not take all of them.

    Args:
        ring: the frames that are held.
        after: sequence number of the prompted frame.
        newest: sequence number of the last frame to step to.
    """
    frames = [frame for frame in ring.since(after) if frame.sequence <= newest]
    return spread(frames, CATCH_UP_STEPS)


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
    return Prompt(
        object_id=prompt.object_id,
        points=None if prompt.points is None else prompt.points * factor,
        point_labels=prompt.point_labels,
        box=None if prompt.box is None else prompt.box * np.tile(factor, 2),
        mask=mask,
    )
