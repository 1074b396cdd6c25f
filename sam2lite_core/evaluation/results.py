"""What an evaluation found, in the dataclasses that code reads and the JSON that files hold."""

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


@dataclass(frozen=True)
class SequenceResult:
    """One sequence's outcome.

    Attributes:
        name: the sequence's name.
        scores: J and F, by object and averaged; None where the dataset keeps its truth to itself.
        stability: drift (None on short clips), consistency and flicker; None likewise.
        timing: frames, mean_ms, p50_ms, p95_ms, max_ms and fps of the tracker's steps, reading files not counted,
            and peak_resident_mb, the most memory that the process has held so far. Empty when masks from elsewhere
            were scored.
        frames: by frame, in order: `names`, and from a tracker `step_ms`, `scale`, `memory_tokens`, `lost`, the ids of
            the objects that it called LOST, and `true_area`, the pixels of every object in the truth.
    """

    name: str
    scores: SequenceScores | None
    stability: Stability | None
    timing: dict[str, Any]
    frames: dict[str, Any]

    def to_json(self) -> dict[str, Any]:
        """Plain numbers and strings; scores 0..1, times in ms."""
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
        """The same from what `to_json` made."""
        objects = [
            ObjectScores(
                object_id=entry["object_id"],
                j=Statistic(**entry["j"]),
                f=Statistic(**entry["f"]),
                frames_j=tuple(entry["frames_j"]),
                frames_f=tuple(entry["frames_f"]),
                frames=tuple(entry["frames"]),
            )
            for entry in document["objects"]
        ]
        stability = document["stability"]
        return cls(
            name=document["name"],
            scores=sequence_scores(objects) if objects else None,
            # Earlier versions wrote a slope of every clip, however short.
            stability=None if stability is None else Stability(**{**stability, "drift": mean_drift(objects)}),
            timing=document["timing"],
            frames=document["frames"],
        )


@dataclass(frozen=True)
class Evaluation:
    """The outcome of an evaluation.

    Attributes:
        protocol: the dataset's title.
        settings: what was evaluated and how: the data, the prompt, the tracker's options.
        sequences: one entry per sequence.
        machine: what it ran on; empty when masks from elsewhere were scored.
    """

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
        """Mean over sequences of a field of `Stability`; None where nothing is known of it."""
        steady = [getattr(entry.stability, name) for entry in self.sequences if entry.stability is not None]
        known = [value for value in steady if value is not None]
        return sum(known) / len(known) if known else None

    def set_jf(self, name: str) -> float | None:
        """Mean J&F over the sequences of a set, which are called `NAME-NN`; None where nothing could be scored."""
        found = [
            entry.scores.jf
            for entry in self.sequences
            if entry.scores is not None and entry.name.rsplit("-", 1)[0] == name
        ]
        return sum(found) / len(found) if found else None

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
        """Plain numbers and strings, ready for `json.dumps`; scores 0..1, times in ms."""
        return {
            "protocol": self.protocol,
            "settings": self.settings,
            "jf": self.jf,
            "j": None if self.j is None else asdict(self.j),
            "f": None if self.f is None else asdict(self.f),
            "stability": {
                name: self.mean_stability(name)
                for name in ("drift", "consistency", "flicker", "flicker_of_truth")
            },
            "mean_ms": self.mean_ms,
            "fps": self.fps,
            "machine": self.machine,
            "sequences": [entry.to_json() for entry in self.sequences],
        }

    @classmethod
    def from_json(cls, document: dict[str, Any]) -> "Evaluation":
        """The same from what `to_json` made."""
        return cls(
            protocol=document["protocol"],
            settings=document["settings"],
            sequences=tuple(SequenceResult.from_json(entry) for entry in document["sequences"]),
            machine=document["machine"],
        )
