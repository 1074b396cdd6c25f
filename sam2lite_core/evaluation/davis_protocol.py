"""Score masks over a sequence by the protocol of the DAVIS benchmark (Perazzi et al. 2016, Pont-Tuset et al. 2017)."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from sam2lite_core.errors import SourceError
from sam2lite_core.evaluation.region_boundary import frame_scores
from sam2lite_core.media.label_map import LabelMap

RECALL_THRESHOLD = 0.5
"""A frame counts as found when its score is above this."""

DECAY_PARTS = 4
"""Parts of a sequence that decay compares; the first against the last."""

TOO_SHORT = "no frame to score: the protocol leaves out a sequence's first and last frame; give at least 3"


@dataclass(frozen=True)
class Statistic:
    """One measure over the frames of a sequence: mean 0..1, recall (share above 0.5), and decay.

    Decay is the mean of the first quarter of the frames minus that of the last; positive when tracking gets worse.
    """

    mean: float
    recall: float
    decay: float


class _JF:
    """The mean of region similarity and boundary accuracy."""

    j: Statistic
    f: Statistic

    @property
    def jf(self) -> float:
        """J&F: the mean of the two means."""
        return (self.j.mean + self.f.mean) / 2


@dataclass(frozen=True)
class ObjectScores(_JF):
    """Scores of one object: statistics of J and F, both on every scored frame, and the indexes of these frames."""

    object_id: int
    j: Statistic
    f: Statistic
    frames_j: tuple[float, ...]
    frames_f: tuple[float, ...]
    frames: tuple[int, ...]

    @property
    def frames_jf(self) -> tuple[float, ...]:
        """J&F of every scored frame, in order."""
        return tuple((j + f) / 2 for j, f in zip(self.frames_j, self.frames_f, strict=True))


@dataclass(frozen=True)
class SequenceScores(_JF):
    """Scores of a sequence: J and F averaged over its objects, and each object's own, in order of their ids."""

    j: Statistic
    f: Statistic
    objects: tuple[ObjectScores, ...]


def statistic(values: Sequence[float]) -> Statistic:
    """Sum up per-frame scores of 0..1 by mean, recall and decay; raise SourceError without any.

    Decay follows DAVIS: the bin borders are spread evenly over the frames and rounded, and neighbouring bins share the
    frame at their border.
    """
    if len(values) == 0:
        raise SourceError(TOO_SHORT)
    scores = np.asarray(values, np.float64)
    # The nudge makes halves round up, as the benchmark's own code does.
    borders = np.round(np.linspace(1, len(scores), DECAY_PARTS + 1) + 1e-10).astype(int) - 1
    first, last = scores[borders[0] : borders[1] + 1], scores[borders[-2] : borders[-1] + 1]
    return Statistic(
        mean=float(scores.mean()),
        recall=float((scores > RECALL_THRESHOLD).mean()),
        decay=float(first.mean() - last.mean()),
    )


def object_scores(
    object_id: int, frames_j: Sequence[float], frames_f: Sequence[float], frames: Sequence[int]
) -> ObjectScores:
    """Sum up J and F of an object on the frames that count; raise SourceError without any."""
    return ObjectScores(
        object_id, statistic(frames_j), statistic(frames_f), tuple(frames_j), tuple(frames_f), tuple(frames)
    )


def sequence_scores(objects: Sequence[ObjectScores]) -> SequenceScores:
    """Average the objects of a sequence, each with the same weight; raise SourceError without any."""
    if not objects:
        raise SourceError("no object to score: the truth's first frame is empty")
    return SequenceScores(
        j=mean_statistic([scores.j for scores in objects]),
        f=mean_statistic([scores.f for scores in objects]),
        objects=tuple(sorted(objects, key=lambda scores: scores.object_id)),
    )


def mean_statistic(statistics: Sequence[Statistic]) -> Statistic:
    """Average one or more statistics entry by entry."""
    mean, recall, decay = np.mean([(entry.mean, entry.recall, entry.decay) for entry in statistics], axis=0)
    return Statistic(float(mean), float(recall), float(decay))


def score_sequence(
    predictions: Iterable[LabelMap], truths: Iterable[LabelMap], object_ids: Sequence[int] | None = None
) -> SequenceScores:
    """Score the label maps of one sequence, leaving out its first and last frame; both iterables are read in step.

    Args:
        predictions: (H, W) label maps in frame order, first and last frame included.
        truths: (H, W) true label maps of the same frames.
        object_ids: ids to score; by default those in the truth's first frame.

    Raises:
        SourceError: fewer than 3 frames, other numbers or sizes of masks, or no object in the truth's first frame.
    """
    scorer = SequenceScorer(object_ids)
    try:
        for prediction, truth in zip(predictions, truths, strict=True):
            scorer.add(prediction, truth)
    except ValueError as error:
        raise SourceError(f"predictions and truth differ in number of frames: {error}") from None
    return scorer.result()


class SequenceScorer:
    """Scores a sequence while its frames arrive; see `score_sequence`."""

    def __init__(self, object_ids: Sequence[int] | None = None) -> None:
        """Start a sequence; ids to score from the second frame on are by default those in the truth's first frame."""
        self._since: dict[int, int] | None = None if object_ids is None else dict.fromkeys(object_ids, 0)
        self._scores: dict[int, list[tuple[int, float, float]]] = {}
        self._frames = 0

    def show(self, object_ids: Iterable[int]) -> None:
        """Score these objects from the frame after the next on, which shows them."""
        self._since = {**dict.fromkeys(object_ids, self._frames), **(self._since or {})}

    def add(self, prediction: LabelMap, truth: LabelMap | None) -> None:
        """Add the next frame's (H, W) label maps; the frame that shows an object does not count for it.

        A frame without annotation (None) counts for no object. Raises SourceError when the two maps differ in size.
        """
        if self._since is None:
            self._since = {} if truth is None else {int(value): 0 for value in np.unique(truth) if value != 0}
        if truth is not None:
            for object_id, since in self._since.items():
                if self._frames > since:
                    scores = frame_scores(prediction == object_id, truth == object_id)
                    self._scores.setdefault(object_id, []).append((self._frames, *scores))
        self._frames += 1

    def result(self) -> SequenceScores:
        """Score the frames so far but the last, and the objects that a frame counts for, or raise SourceError."""
        objects = []
        for object_id, entries in self._scores.items():
            counted = [entry for entry in entries if entry[0] < self._frames - 1]
            if counted:
                frames, frames_j, frames_f = zip(*counted, strict=True)
                objects.append(object_scores(object_id, frames_j, frames_f, frames))
        if not objects and self._since:
            raise SourceError(TOO_SHORT)
        return sequence_scores(objects)
