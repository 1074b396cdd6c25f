"""How good the masks of a replay are, and how good they would have been without a clock."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from sam2lite_core.evaluation.bag.plan import Plan
from sam2lite_core.evaluation.bag.session import Recording
from sam2lite_core.evaluation.davis_protocol import SequenceScorer, SequenceScores
from sam2lite_core.evaluation.prompts import prompts_from_masks
from sam2lite_core.media.bags.reader import BagFrames
from sam2lite_core.media.label_map import LabelMap, read_label_map
from sam2lite_core.tracker import Tracker

FULL_SCALE = 1.0


@dataclass(frozen=True)
class Scored:
    """The score of a run.

    Attributes:
        scores: by the DAVIS protocol: the bag's first and last frame do not count. None when no frame counts.
        frames: how many frames count.
    """

    scores: SequenceScores | None
    frames: int

    @property
    def jf(self) -> float | None:
        """J&F, 0..1."""
        return None if self.scores is None else self.scores.jf


@dataclass(frozen=True)
class OfflineRun:
    """The tracker led over the frames that the node processed, with all the time it wants.

    Attributes:
        scored: its score on those frames.
        identical: on how many of them its mask is the node's to the pixel.
    """

    scored: Scored
    identical: int


class _Scoring:
    """Takes the bag's frames one after the other."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._scorer = SequenceScorer(plan.object_ids)
        self._blank = np.zeros(plan.size, np.uint8)
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


def score_processed(plan: Plan, recording: Recording) -> Scored:
    """Score the frames whose mask the node published.

    Raises:
        SourceError: a mask differs in size from its truth, or cannot be read.
    """
    scoring = _Scoring(plan)
    for index in range(len(plan.recorded_ns)):
        scoring.add(_recorded_mask(recording, index))
    return scoring.result()


def score_all(plan: Plan, recording: Recording) -> Scored:
    """Score every frame of the bag: one that was dropped has the last mask before it, as a robot would have.

    Raises:
        SourceError: as `score_processed`.
    """
    scoring = _Scoring(plan)
    latest: LabelMap | None = None
    for index in range(len(plan.recorded_ns)):
        mask = _recorded_mask(recording, index)
        latest = latest if mask is None else mask
        scoring.add(latest)
    return scoring.result()


def run_offline(
    plan: Plan, recording: Recording, *, as_played: bool, on_frame: Callable[[], None] | None = None
) -> OfflineRun:
    """Track the frames that the node processed, without node and deadline.

    Args:
        plan: what was played.
        recording: which frames were processed, and how.
        as_played: take each frame's resolution and window from the node; otherwise they are those of an
            evaluation without a deadline.
        on_frame: told of every frame that was tracked.

    Raises:
        SourceError: a frame or mask cannot be read.
        BackendError: the runtime failed.
    """
    options = plan.request.tracker
    tracker = Tracker(
        options.variant,
        options.backend,
        scale=options.scale,
        memory_budget=options.memory_budget,
        memory_policy=options.memory_policy,
        threads=options.threads,
        model_path=options.model_path,
    )
    scoring, identical, last = _Scoring(plan), 0, -1
    with BagFrames(plan.request.bag, plan.topic, limit=len(plan.recorded_ns)) as bag:
        for frame in bag:
            online = _recorded_mask(recording, frame.index)
            if online is None:
                scoring.add(None)
                continue
            status = recording.statuses.get(frame.index)
            if as_played and status is not None:
                window = int(status["window"])
                tracker.configure(scale=played_scale(status), min_window=window, max_window=window)
            prompts = prompts_from_masks(plan.mask) if last < 0 else ()
            result = tracker.step(frame.image, prompts, elapsed=max(1, frame.index - last))
            last = frame.index
            identical += np.array_equal(online, result.label_map)
            scoring.add(result.label_map)
            if on_frame is not None:
                on_frame()
    return OfflineRun(scoring.result(), int(identical))


def chose_otherwise(plan: Plan, recording: Recording, window: int) -> bool:
    """Say whether the node processed any frame at a resolution or window that a run without a deadline has not."""
    wanted = plan.request.tracker.scale or FULL_SCALE, window
    return any((played_scale(s), int(s["window"])) != wanted for s in recording.statuses.values())


def played_scale(status: dict[str, float]) -> float:
    """The resolution scale of a status, without what float32 adds to it."""
    return round(float(status["scale"]), 4)


def _recorded_mask(recording: Recording, index: int) -> LabelMap | None:
    path = recording.masks.get(index)
    return None if path is None else read_label_map(path, keep_ids=True)
