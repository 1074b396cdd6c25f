"""Hold the results of an evaluation, and turn them to JSON and back."""

from dataclasses import asdict, dataclass
from typing import Any

from sam2lite_core.evaluation.davis_protocol import (
    ObjectScores,
    SequenceScores,
    Statistic,
    mean_statistic,
    sequence_scores,
)
from sam2lite_core.evaluation.stability import Stability, mean_drift

_STABILITY = ("drift", "consistency", "flicker", "flicker_of_truth")


@dataclass(frozen=True)
class SequenceResult:
    """The result of one sequence.

    Attributes:
        scores: J and F, by object and averaged; None where the dataset keeps its truth to itself.
        stability: drift (None on short sequences), consistency and flicker; None likewise.
        timing: frames, mean_ms, p50_ms, p95_ms, max_ms and fps of the steps without reading, and the process's
            peak_resident_mb so far. Empty for masks from elsewhere.
        frames: lists by frame: `names`, and from a tracker `step_ms`, `scale`, `memory_tokens`, `lost` (ids called
            LOST) and `true_area` (pixels of every object in the truth).
    """

    name: str
    scores: SequenceScores | None
    stability: Stability | None
    timing: dict[str, Any]
    frames: dict[str, Any]

    def to_json(self) -> dict[str, Any]:
        """Return plain numbers and strings; scores 0..1, times in ms."""
        scores = self.scores
        return {
            "name": self.name,
            "jf": None if scores is None else scores.jf,
            "j": None if scores is None else asdict(scores.j),
            "f": None if scores is None else asdict(scores.f),
            "stability": None if self.stability is None else asdict(self.stability),
            "timing": self.timing,
            "objects": [] if scores is None else [asdict(entry) for entry in scores.objects],
            "frames": self.frames,
        }

    @classmethod
    def from_json(cls, document: dict[str, Any]) -> "SequenceResult":
        """Rebuild a result from the output of `to_json`."""
        objects = [
            ObjectScores(
                entry["object_id"],
                Statistic(**entry["j"]),
                Statistic(**entry["f"]),
                *(tuple(entry[name]) for name in ("frames_j", "frames_f", "frames")),
            )
            for entry in document["objects"]
        ]
        stability = document["stability"]
        return cls(
            name=document["name"],
            scores=sequence_scores(objects) if objects else None,
            # Earlier versions wrote a slope of every sequence, however short.
            stability=None if stability is None else Stability(**{**stability, "drift": mean_drift(objects)}),
            timing=document["timing"],
            frames=document["frames"],
        )


@dataclass(frozen=True)
class Evaluation:
    """The result of an evaluation: the dataset's title, settings, a result per sequence, and the machine's facts."""

    protocol: str
    settings: dict[str, Any]
    sequences: tuple[SequenceResult, ...]
    machine: dict[str, Any]

    @property
    def objects(self) -> tuple[ObjectScores, ...]:
        """The scores of every object of every sequence."""
        scored = [entry.scores for entry in self.sequences if entry.scores is not None]
        return tuple(entry for scores in scored for entry in scores.objects)

    @property
    def j(self) -> Statistic | None:
        """Region similarity, averaged over objects; None where nothing could be scored."""
        return mean_statistic([entry.j for entry in self.objects]) if self.objects else None

    @property
    def f(self) -> Statistic | None:
        """Boundary accuracy, averaged over objects; None where nothing could be scored."""
        return mean_statistic([entry.f for entry in self.objects]) if self.objects else None

    @property
    def jf(self) -> float | None:
        """J&F: the mean of the two means, 0..1; None where nothing could be scored."""
        return None if self.j is None or self.f is None else (self.j.mean + self.f.mean) / 2

    def mean_stability(self, name: str) -> float | None:
        """Average a field of `Stability` over sequences; None where nothing is known of it."""
        steady = [entry.stability for entry in self.sequences if entry.stability is not None]
        return mean_known([getattr(entry, name) for entry in steady])

    def set_jf(self, name: str) -> float | None:
        """Average J&F over the sequences `NAME-NN` of a set; None where nothing could be scored."""
        found = (entry.scores for entry in self.sequences if entry.name.rsplit("-", 1)[0] == name)
        return mean_known([None if scores is None else scores.jf for scores in found])

    @property
    def mean_ms(self) -> float | None:
        """Mean time of a step, ms; None when no time was measured."""
        timed = [entry.timing for entry in self.sequences if entry.timing]
        frames = sum(timing["frames"] for timing in timed)
        return sum(timing["frames"] * timing["mean_ms"] for timing in timed) / frames if frames else None

    @property
    def fps(self) -> float | None:
        """Frames over the time of all steps; None when no time was measured."""
        return 1000 / self.mean_ms if self.mean_ms else None

    def to_json(self) -> dict[str, Any]:
        """Return plain numbers and strings, ready for `json.dumps`; scores 0..1, times in ms."""
        return {
            "protocol": self.protocol,
            "settings": self.settings,
            "jf": self.jf,
            "j": None if self.j is None else asdict(self.j),
            "f": None if self.f is None else asdict(self.f),
            "stability": {name: self.mean_stability(name) for name in _STABILITY},
            "mean_ms": self.mean_ms,
            "fps": self.fps,
            "machine": self.machine,
            "sequences": [entry.to_json() for entry in self.sequences],
        }

    @classmethod
    def from_json(cls, document: dict[str, Any]) -> "Evaluation":
        """Rebuild an evaluation from the output of `to_json`."""
        sequences = tuple(SequenceResult.from_json(entry) for entry in document["sequences"])
        return cls(document["protocol"], document["settings"], sequences, document["machine"])


def mean_known(values: list[float | None]) -> float | None:
    """Average the values that are not None; None without any."""
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None
