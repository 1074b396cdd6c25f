"""Score the masks of a replay, and those of the tracker without a deadline."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import accumulate

import numpy as np

from sam2lite_core.errors import SourceError
from sam2lite_core.evaluation.bag.request import ReplaySettings
from sam2lite_core.evaluation.bag.session import Recording
from sam2lite_core.evaluation.davis_protocol import SequenceScorer, SequenceScores
from sam2lite_core.evaluation.prompts import prompts_from_masks
from sam2lite_core.media.bags.reader import BagFrames
from sam2lite_core.media.label_map import LabelMap, read_label_map

FULL_SCALE = 1.0


@dataclass(frozen=True)
class Scored:
    """The score of a run: by the DAVIS protocol (None when no frame counts), and the number of frames that count."""

    scores: SequenceScores | None
    frames: int

    @property
    def jf(self) -> float | None:
        """J&F, 0..1."""
        return None if self.scores is None else self.scores.jf


@dataclass(frozen=True)
class OfflineRun:
    """The score of the tracker on the node's frames without a deadline, and its masks identical to the node's."""

    scored: Scored
    identical: int


def score_processed(settings: ReplaySettings, recording: Recording) -> Scored:
    """Score the frames whose mask the node published; raise SourceError for a bad mask."""
    frames = range(len(settings.recorded_ns))
    return _score(settings, (_recorded_mask(recording, index) for index in frames))


def score_all(settings: ReplaySettings, recording: Recording) -> Scored:
    """Score every frame of the bag: one that was dropped has the last mask before it, as a robot would have."""
    masks = (_recorded_mask(recording, index) for index in range(len(settings.recorded_ns)))
    return _score(settings, accumulate(masks, lambda latest, mask: latest if mask is None else mask))


def _score(settings: ReplaySettings, masks: Iterable[LabelMap | None]) -> Scored:
    """Score the bag's frames in order; None where there is no mask to score."""
    scorer, blank = SequenceScorer(settings.object_ids), np.zeros(settings.size, np.uint8)
    for index, mask in enumerate(masks):
        if mask is None:
            scorer.add(blank, None)
        else:
            scorer.add(mask, settings.true_label_map(index))
    try:
        scores = scorer.result()
    except SourceError:  # no frame counts
        return Scored(None, 0)
    return Scored(scores, len(scores.objects[0].frames))


def run_offline(
    settings: ReplaySettings, recording: Recording, *, as_played: bool, on_frame: Callable[[], None] = lambda: None
) -> OfflineRun:
    """Track the frames that the node processed, without node and deadline.

    Args:
        settings, recording: of the replay.
        as_played: take each frame's resolution and window from the node.
        on_frame: told of every frame that was tracked.

    Raises:
        SourceError: a frame or mask cannot be read.
        BackendError: the runtime failed.
    """
    tracker, last, identical = settings.request.tracker.build_one(), -1, 0

    def masks(bag: BagFrames) -> Iterator[LabelMap | None]:
        nonlocal last, identical
        for frame in bag:
            online = _recorded_mask(recording, frame.index)
            if online is None:
                yield None
                continue
            status = recording.statuses.get(frame.index)
            if as_played and status is not None:
                window = int(status["window"])
                tracker.configure(scale=played_scale(status), min_window=window, max_window=window)
            prompts = prompts_from_masks(settings.mask) if last < 0 else ()
            result = tracker.step(frame.image, prompts, elapsed=max(1, frame.index - last))
            last = frame.index
            identical += np.array_equal(online, result.label_map)
            yield result.label_map
            on_frame()

    with BagFrames(settings.request.bag, settings.topic, limit=len(settings.recorded_ns)) as bag:
        scored = _score(settings, masks(bag))
    return OfflineRun(scored, identical)


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
