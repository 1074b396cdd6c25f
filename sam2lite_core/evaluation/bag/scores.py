"""Score the masks of a replay, and those of the tracker without a deadline."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from sam2lite_core.evaluation.bag.request import ReplaySettings
from sam2lite_core.evaluation.bag.session import Recording
from sam2lite_core.evaluation.davis_protocol import SequenceScorer, SequenceScores
from sam2lite_core.evaluation.prompts import prompts_from_masks
from sam2lite_core.media.bags.reader import BagFrames
from sam2lite_core.media.label_map import LabelMap, read_label_map

FULL_SCALE = 1.0


@dataclass(frozen=True)
class Scored:
    """The score of a run.

    Attributes:
        scores: by the DAVIS protocol: the bag's first and last frame do not count. None when no frame counts.
        frames: number of frames that count.
    """

    scores: SequenceScores | None
    frames: int

    @property
    def jf(self) -> float | None:
        """J&F, 0..1."""
        return None if self.scores is None else self.scores.jf


@dataclass(frozen=True)
class OfflineRun:
    """The tracker on the frames that the node processed, without a deadline.

    Attributes:
        scored: its score on those frames.
        identical: number of them on which its mask is the node's to the pixel.
    """

    scored: Scored
    identical: int


class _Scoring:
    """Takes the bag's frames one after the other."""

    def __init__(self, settings: ReplaySettings) -> None:
        self._plan = settings
        self._scorer = SequenceScorer(settings.object_ids)
        self._blank = np.zeros(settings.size, np.uint8)
        self._index = 0
        self._counted = 0

    def add(self, prediction: LabelMap | None) -> None:
        """Add the next frame's mask; None where there is none to score."""
        truth = None if prediction is None else self._plan.true_label_map(self._index)
        self._counted += truth is not None and 0 < self._index < len(self._plan.recorded_ns) - 1
        self._scorer.add(self._blank if prediction is None else prediction, truth)
        self._index += 1

    def result(self) -> Scored:
        return Scored(self._scorer.result() if self._counted else None, self._counted)


def score_processed(settings: ReplaySettings, recording: Recording) -> Scored:
    """Score the frames whose mask the node published.

    Raises:
        SourceError: a mask differs in size from its truth, or cannot be read.
    """
    scoring = _Scoring(settings)
    for index in range(len(settings.recorded_ns)):
        scoring.add(_recorded_mask(recording, index))
    return scoring.result()


def score_all(settings: ReplaySettings, recording: Recording) -> Scored:
    """Score every frame of the bag: one that was dropped has the last mask before it, as a robot would have.

    Raises:
        SourceError: as `score_processed`.
    """
    scoring = _Scoring(settings)
    latest: LabelMap | None = None
    for index in range(len(settings.recorded_ns)):
        mask = _recorded_mask(recording, index)
        latest = latest if mask is None else mask
        scoring.add(latest)
    return scoring.result()


def run_offline(
    settings: ReplaySettings,
    recording: Recording,
    *,
    as_played: bool,
    on_frame: Callable[[], None] | None = None,
) -> OfflineRun:
    """Track the frames that the node processed, without node and deadline.

    Args:
        settings: of the replay.
        recording: the frames that were processed.
        as_played: take each frame's resolution and window from the node; otherwise they are those of an
            evaluation without a deadline.
        on_frame: told of every frame that was tracked.

    Raises:
        SourceError: a frame or mask cannot be read.
        BackendError: the runtime failed.
    """
    tracker = settings.request.tracker.build_one()
    scoring, identical, last = _Scoring(settings), 0, -1
    with BagFrames(settings.request.bag, settings.topic, limit=len(settings.recorded_ns)) as bag:
        for frame in bag:
            online = _recorded_mask(recording, frame.index)
            if online is None:
                scoring.add(None)
                continue
            status = recording.statuses.get(frame.index)
            if as_played and status is not None:
                window = int(status["window"])
                tracker.configure(scale=played_scale(status), min_window=window, max_window=window)
            prompts = prompts_from_masks(settings.mask) if last < 0 else ()
            result = tracker.step(frame.image, prompts, elapsed=max(1, frame.index - last))
            last = frame.index
            identical += np.array_equal(online, result.label_map)
            scoring.add(result.label_map)
            if on_frame is not None:
                on_frame()
    return OfflineRun(scoring.result(), int(identical))


def chose_otherwise(settings: ReplaySettings, recording: Recording, window: int) -> bool:
    """Return whether any frame was processed at another scale or window than without a deadline."""
    wanted = settings.request.tracker.scale or FULL_SCALE, window
    return any((played_scale(s), int(s["window"])) != wanted for s in recording.statuses.values())


def played_scale(status: dict[str, float]) -> float:
    """Return the resolution scale of a status, without float32's error."""
    return round(float(status["scale"]), 4)


def _recorded_mask(recording: Recording, index: int) -> LabelMap | None:
    path = recording.masks.get(index)
    return None if path is None else read_label_map(path, keep_ids=True)
