"""Measure how a tracker handles absences: at least 10 frames of truth without an object that was there before.

It is back on the first frame with a quarter of the area of its first frame: a sliver at an edge is no return.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from sam2lite_core.evaluation.davis_protocol import RECALL_THRESHOLD
from sam2lite_core.evaluation.results import SequenceResult

MIN_ABSENCE = 10
LOST_WITHIN = 10
FOUND_WITHIN = 15
VISIBLE_SHARE = 0.25


@dataclass(frozen=True)
class AbsenceSummary:
    """Outcomes of absences; a share is None without cases.

    Attributes:
        absences: number of them.
        returns: number of them that ended with a return at least 15 frames before the end.
        lost_within_10: share of absences in whose first 10 frames the object was called LOST.
        found_within_15: share of returns within 15 frames of which it was TRACKED with J above 0.5.
        false_lost: share of frames with a visible object that is called LOST, the 15 after a return left out.
    """

    absences: int
    returns: int
    lost_within_10: float | None
    found_within_15: float | None
    false_lost: float | None


@dataclass(frozen=True)
class _ObjectHistory:
    """One object by frame: area in the truth (px), whether it was called LOST, and J where it counts."""

    area: Sequence[int]
    lost: Sequence[bool]
    j: dict[int, float]
    shown: int

    def absences(self) -> Iterator[tuple[int, int]]:
        """Yield start and end (exclusive) of every absence after the object was shown."""
        start = self.shown
        for index, area in enumerate([*self.area, 1]):
            if area:
                if index - start >= MIN_ABSENCE:
                    yield start, index
                start = index + 1


def summarise_absences(sequences: Sequence[SequenceResult]) -> AbsenceSummary:
    """Sum up the absences of all objects of all sequences that have a truth and states."""
    lost_in_time: list[bool] = []
    found_in_time: list[bool] = []
    false_lost: list[bool] = []
    for history in (entry for sequence in sequences for entry in _histories(sequence)):
        area, lost = history.area, history.lost
        enough = VISIBLE_SHARE * area[history.shown]
        settling: set[int] = set()
        for start, end in history.absences():
            lost_in_time.append(any(lost[start : start + LOST_WITHIN]))
            back = next((i for i in range(end, len(area)) if area[i] >= enough), None)
            if back is not None:
                tries = range(back, back + FOUND_WITHIN)
                settling.update(range(end, tries.stop))
                if tries.stop < len(area):
                    found_in_time.append(any(not lost[i] and history.j.get(i, 0.0) > RECALL_THRESHOLD for i in tries))
        visible = (i for i in range(history.shown + 1, len(area)) if area[i] >= enough and i not in settling)
        false_lost += [lost[i] for i in visible]
    return AbsenceSummary(
        len(lost_in_time), len(found_in_time), _share(lost_in_time), _share(found_in_time), _share(false_lost)
    )


def _share(outcomes: Sequence[bool]) -> float | None:
    return sum(outcomes) / len(outcomes) if outcomes else None


def _histories(sequence: SequenceResult) -> Iterator[_ObjectHistory]:
    """Yield the history of each object; none where masks from elsewhere were scored."""
    frames = sequence.frames
    if sequence.scores is None or "true_area" not in frames:
        return
    for entry in sequence.scores.objects:
        area = [areas.get(str(entry.object_id), 0) for areas in frames["true_area"]]
        lost = [entry.object_id in ids for ids in frames["lost"]]
        shown = next((index for index, value in enumerate(area) if value > 0), None)
        if shown is not None:
            yield _ObjectHistory(area, lost, dict(zip(entry.frames, entry.frames_j, strict=True)), shown)
