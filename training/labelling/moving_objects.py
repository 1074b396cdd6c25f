"""Find objects that move by themselves in unlabelled film, with boxes and clicks."""

import dataclasses
from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray
from pydantic import PositiveInt, model_validator
from pydantic.dataclasses import dataclass

from sam2lite_core.evaluation.prompts import prompts_from_masks
from sam2lite_core.evaluation.region_boundary import region_similarity
from sam2lite_core.frame.motion import MotionEstimator
from sam2lite_core.tracker import Tracker
from sam2lite_core.types import Prompt
from training.config.fields import STRICT, Share

MOVES = 0.006
"""Least displacement of a moving object from the first to the last frame, as a share of the frame's width."""

SAME = 0.8
"""IoU from which two masks are duplicates."""

LIMBS = 0.03
"""Largest gap in a moving region that is closed, as a share of the frame's width: a limb at rest."""

Mask = NDArray[np.bool_]
Images = Sequence[NDArray[np.uint8]]


@dataclass(frozen=True, config=STRICT)
class Search:
    """Search for objects.

    Attributes:
        rows, columns: of the grid of clicks.
        smallest, largest: share of the frame that an object covers.
        again: least IoU of a mask with the mask of its own box.
        apart: largest overlap of two objects, as a share of the smaller one.
        objects: most that are found.
    """

    rows: PositiveInt = 6
    columns: PositiveInt = 10
    smallest: Share = 0.008
    largest: Share = 0.4
    again: Share = 0.8
    apart: Share = 0.2
    objects: PositiveInt = 3

    @model_validator(mode="after")
    def _check(self) -> "Search":
        if not 0.0 < self.smallest < self.largest:
            raise ValueError(f"smallest is {self.smallest} and largest {self.largest}; expected 0 < smallest < largest")
        return self


@dataclasses.dataclass(frozen=True)
class Candidate:
    """A mask (H, W) that might be an object.

    Attributes:
        beyond: its displacement beyond that of the background, shares of the frame's width.
        again: its IoU with the mask of its own box.
    """

    mask: Mask
    beyond: float
    again: float


def own_motion(images: Images) -> NDArray[np.float32]:
    """Estimate the motion of the first frame's pixels until the last frame, without the camera's.

    The camera's motion is the affine map that most of the picture agrees with.

    Args:
        images: at least two frames (H, W, 3) uint8 RGB of one size.

    Returns:
        (H, W) float32 displacement, shares of the frame's width.
    """
    estimator = MotionEstimator()
    estimator.update(images[-1])
    motion = estimator.update(images[0])
    assert motion is not None  # of frames of one size
    height, width = images[0].shape[:2]
    flow = motion.flow * np.array([1.0, height / width], np.float32)
    rows, columns = flow.shape[:2]
    y, x = np.mgrid[0:rows, 0:columns].astype(np.float32)
    places = np.stack([(x + 0.5) / columns, (y + 0.5) / rows * height / width], axis=-1)
    start, end = (points[::4, ::4].reshape(-1, 2) for points in (places, places + flow))
    camera, _ = cv2.estimateAffine2D(start, end, method=cv2.RANSAC, ransacReprojThreshold=MOVES / 2)
    explained = places @ camera[:, :2].T + camera[:, 2] if camera is not None else places
    own = np.linalg.norm(places + flow - explained, axis=-1).astype(np.float32)
    return np.asarray(cv2.resize(own, (width, height), interpolation=cv2.INTER_LINEAR), np.float32)


def suggest(moves: NDArray[np.float32], search: Search) -> list[Prompt]:
    """Make prompts from (H, W) `own_motion`: boxes around moving regions, and clicks on a grid in them."""
    height, width = moves.shape
    side = max(3, round(LIMBS * width)) | 1
    moving = cv2.morphologyEx((moves > MOVES).astype(np.uint8), cv2.MORPH_CLOSE, np.ones((side, side), np.uint8))
    _, _, regions, _ = cv2.connectedComponentsWithStats(moving)
    prompts = [
        Prompt(object_id=1, box=np.array([x, y, x + w, y + h], np.float32))
        for x, y, w, h, area in regions[1:]
        if search.smallest <= area / moves.size <= search.largest
    ]
    for row in range(search.rows):
        for column in range(search.columns):
            x, y = (column + 0.5) / search.columns * width, (row + 0.5) / search.rows * height
            if moving[int(y), int(x)]:
                prompts.append(Prompt(object_id=1, points=np.array([[x, y]], np.float32)))
    return prompts


def choose(candidates: Sequence[Candidate], search: Search) -> list[Mask]:
    """Choose at most `search.objects` disjoint masks (H, W), large, whole and fast ones first."""
    found: list[Mask] = []
    good = [entry for entry in candidates if entry.beyond > MOVES / 2 and entry.again >= search.again]
    for entry in sorted(good, key=_rank, reverse=True):
        if len(found) == search.objects:
            break
        mask, size = entry.mask, entry.mask.sum()
        if all((mask & other).sum() / min(size, other.sum()) <= search.apart for other in found):
            # The first one keeps the overlap.
            rest = mask & ~np.any(found, axis=0) if found else mask
            if rest.mean() >= search.smallest:
                found.append(rest)
    return found


def _rank(candidate: Candidate) -> float:
    """Rank a candidate; high ones are taken first."""
    _, _, pieces, _ = cv2.connectedComponentsWithStats(candidate.mask.astype(np.uint8))
    # Two objects that one click asks for are in two pieces.
    whole = float(pieces[1:, cv2.CC_STAT_AREA].max() / candidate.mask.sum())
    return candidate.beyond * float(np.sqrt(candidate.mask.mean())) * whole


def find_objects(tracker: Tracker, images: Images, search: Search) -> list[Mask]:
    """Find masks (H, W) of the moving objects in the first of a few frames (H, W, 3) uint8 RGB; resets the tracker."""
    moves = own_motion(images)
    seen: list[Mask] = []
    candidates: list[Candidate] = []
    for prompt in suggest(moves, search):
        mask = _read(tracker, images[0], prompt)
        fits = search.smallest <= mask.mean() <= search.largest
        if not fits or any(region_similarity(mask, other) >= SAME for other in seen):
            continue
        seen.append(mask)
        (box,) = prompts_from_masks(mask.astype(np.uint8), "box")
        again = region_similarity(_read(tracker, images[0], box), mask)
        candidates.append(Candidate(mask, float(moves[mask].mean() - moves[~mask].mean()), again))
    return choose(candidates, search)


def _read(tracker: Tracker, image: NDArray[np.uint8], prompt: Prompt) -> Mask:
    tracker.reset()
    return np.asarray(tracker.step(image, [prompt]).label_map == prompt.object_id)
