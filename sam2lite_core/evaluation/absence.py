"""Objects that vanish and return: does the tracker say so, and does it find them again?

An absence is a run of at least 10 frames on which the truth shows nothing of an object that was there before. Three
shares sum up what happened:

- lost_within_10: absences in whose first 10 frames the tracker called the object LOST.
- found_within_15: absences after which it was TRACKED with J above 0.5 within 15 frames of its return. It is back on
  the first frame that shows at least a quarter of what the first frame showed of it: a sliver at an edge is no return.
- false_lost: of the frames that show at least that much of an object, those on which it was called LOST, the 15 after
  a return left out.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from sam2lite_core.evaluation.davis_protocol import RECALL_THRESHOLD
from sam2lite_core.evaluation.results import SequenceResult

MIN_ABSENCE = 10
LOST_WITHIN = 10
FOUND_WITHIN = 15
VISIBLE_SHARE = 0.25


@dataclass(frozen=True)
class AbsenceSummary:
    """What became of absences.

    Attributes:
        absences: how many there were.
        returns: how many of them ended with a return at least 15 frames before the clip's end.
        lost_within_10: share of absences; None without any.
        found_within_15: share of returns; None without any.
        false_lost: share of frames with a visible object; None without any.
    """

    absences: int
    returns: int
    lost_within_10: float | None
    found_within_15: float | None
    false_lost: float | None


@dataclass(frozen=True)
class _ObjectHistory:
    """One object by frame: area in the truth (px), whether it was called LOST, and J (NaN where it does not count)."""

    area: Sequence[int]
    lost: Sequence[bool]
    j: dict[int, float]
    shown: int


def summarise_absences(sequences: Sequence[SequenceResult]) -> AbsenceSummary:
    """What became of the absences of all objects of all sequences that have a truth and states."""
    lost_in_time, found_in_time = [], []
    false_lost = visible_frames = 0
    for history in (entry for sequence in sequences for entry in _histories(sequence)):
        enough = VISIBLE_SHARE * history.area[history.shown]
        settling: set[int] = set()
        for start, end in _absences(history):
            lost_in_time.append(any(history.lost[start : start + LOST_WITHIN]))
            back = next((i for i in range(end, len(history.area)) if history.area[i] >= enough), None)
            if back is not None:
                settling.update(range(end, back + FOUND_WITHIN))
                if back + FOUND_WITHIN < len(history.area):
                    tries = range(back, back + FOUND_WITHIN)
                    found_in_time.append(
                        any(not history.lost[i] and history.j.get(i, 0.0) > RECALL_THRESHOLD for i in tries)
                    )
        for index in range(history.shown + 1, len(history.area)):
            if history.area[index] >= enough and index not in settling:
                visible_frames += 1
                false_lost += history.lost[index]
    return AbsenceSummary(
        absences=len(lost_in_time),
        returns=len(found_in_time),
        lost_within_10=_share(lost_in_time),
        found_within_15=_share(found_in_time),
        false_lost=false_lost / visible_frames if visible_frames else None,
    )


def _share(outcomes: Sequence[bool]) -> float | None:
    return sum(outcomes) / len(outcomes) if outcomes else None


def _histories(sequence: SequenceResult) -> Iterator[_ObjectHistory]:
    """What is known of each object; nothing where masks from elsewhere were scored."""
    frames: dict[str, Any] = sequence.frames
    if sequence.scores is None or "true_area" not in frames:
        return
    for entry in sequence.scores.objects:
        area = [areas.get(str(entry.object_id), 0) for areas in frames["true_area"]]
        lost = [entry.object_id in ids for ids in frames["lost"]]
        shown = next((index for index, value in enumerate(area) if value > 0), None)
        if shown is not None:
            yield _ObjectHistory(area, lost, dict(zip(entry.frames, entry.frames_j, strict=True)), shown)


def _absences(history: _ObjectHistory) -> Iterator[tuple[int, int]]:
    """Start and end (exclusive) of every absence after the object was shown."""
    start = None
    for index in range(history.shown, len(history.area) + 1):
        gone = index < len(history.area) and history.area[index] == 0
        if gone and start is None:
            start = index
        if not gone and start is not None:
            if index - start >= MIN_ABSENCE:
                yield start, index
            start = None
