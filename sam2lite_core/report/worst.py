"""Draw the frames that went worst: prediction beside ground truth."""

import base64
from collections.abc import Iterator
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from sam2lite_core.datasets.registry import find_dataset
from sam2lite_core.errors import SourceError
from sam2lite_core.media.label_map import read_label_map
from sam2lite_core.media.overlay import draw_overlay
from sam2lite_core.report.inputs import Run

WORST_FRAMES = 6
PICTURE_WIDTH = 420


@dataclass(frozen=True)
class WorstFrame:
    """A frame to show: its sequence, name and index there, and the J&F (0..1) and id of its worst object."""

    sequence: str
    frame: str
    score: float
    object_id: int
    index: int


def worst_frames(run: Run) -> list[WorstFrame]:
    """Return the frames with the lowest J&F of any object, worst first, one a sequence at most."""
    candidates = []
    for sequence in run.evaluation.sequences:
        entries = () if sequence.scores is None else sequence.scores.objects
        scored = [
            WorstFrame(sequence.name, sequence.frames["names"][index], score, entry.object_id, index)
            for entry in entries
            for index, score in zip(entry.frames, entry.frames_jf, strict=True)
        ]
        candidates += sorted(scored, key=lambda frame: frame.score)[:1]
    return sorted(candidates, key=lambda frame: frame.score)[:WORST_FRAMES]


def draw_worst(run: Run) -> Iterator[tuple[WorstFrame, str]]:
    """Draw the worst frames, prediction left and truth right, as data URIs.

    Raises:
        SourceError: the data or the masks are no longer where they were.
    """
    if run.masks is None:
        raise SourceError(f"{run.name}: this run wrote no masks")
    dataset = find_dataset(run.evaluation.settings["data"])
    for worst in worst_frames(run):
        sequence = dataset.open(worst.sequence)
        frame = next(entry for entry in sequence.frames() if entry.index == worst.index)
        target, truth = sequence.mask_file(frame), sequence.truth(frame)
        if target is None or truth is None:
            raise SourceError(f"{worst.sequence}: frame {worst.frame} has no mask")
        prediction = read_label_map(run.masks / target)
        pair = np.hstack([draw_overlay(frame.image, prediction), draw_overlay(frame.image, truth)])
        yield worst, _jpeg(pair)


def _jpeg(image: NDArray[np.uint8]) -> str:
    """Encode an RGB picture as a data URI, scaled to the page."""
    factor = 2 * PICTURE_WIDTH / image.shape[1]
    small = cv2.resize(image, None, fx=factor, fy=factor, interpolation=cv2.INTER_AREA)
    _, data = cv2.imencode(".jpg", small[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 82])
    return "data:image/jpeg;base64," + base64.b64encode(data.tobytes()).decode()
