"""Check that an exported model tracks as the student does, by their label maps of the same clip."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from sam2lite_core.backends.base import Backend
from sam2lite_core.errors import ParityError
from sam2lite_core.evaluation.davis_protocol import score_sequence
from sam2lite_core.evaluation.region_boundary import region_similarity
from sam2lite_core.export.clips import Clip
from sam2lite_core.media.label_map import LabelMap
from sam2lite_core.tracker import Tracker


@dataclass(frozen=True)
class Bound:
    """Largest difference that an export may have: least mean share of equal pixels, most J&F points lost."""

    agreement: float
    loss: float


BOUNDS = {"fp32": Bound(0.999, 0.1), "fp16": Bound(0.998, 0.3), "int8": Bound(0.99, 1.0)}
"""By precision."""


@dataclass(frozen=True)
class Parity:
    """Comparison of an exported model with the student on a clip.

    Attributes:
        agreement: share of pixels with the same label, mean over frames.
        overlap: J of the export's masks against the student's, mean over frames and objects.
        worst_frame, worst_agreement: index of the frame with the least agreement, and its agreement.
        student_jf, export_jf: J&F in points against the truth; None without truth.
    """

    clip: str
    frames: int
    scale: float
    agreement: float
    overlap: float
    worst_frame: int
    worst_agreement: float
    student_jf: float | None = None
    export_jf: float | None = None

    @property
    def loss(self) -> float | None:
        """Return the J&F points that the export is worse by; None without truth."""
        return None if self.student_jf is None or self.export_jf is None else self.student_jf - self.export_jf

    def document(self) -> dict[str, Any]:
        """Return the plain content for JSON."""
        return {**asdict(self), "loss": self.loss}


def track(backend: Backend, clip: Clip, scale: float) -> list[LabelMap]:
    """Track through a clip and return its label maps."""
    tracker = Tracker(backend.info.variant, backend, scale=scale)
    tracker.reset()
    return [
        tracker.step(image, clip.prompts if index == 0 else ()).label_map for index, image in enumerate(clip.frames)
    ]


def compare(clip: Clip, student: Sequence[LabelMap], export: Sequence[LabelMap], scale: float) -> Parity:
    """Compare the student's and the export's (H, W) label maps of a clip, made at one scale."""
    agreement = [float(np.mean(ours == theirs)) for ours, theirs in zip(student, export, strict=True)]
    ids = [prompt.object_id for prompt in clip.prompts]
    overlap = [
        region_similarity(theirs == object_id, ours == object_id)
        for ours, theirs in zip(student, export, strict=True)
        for object_id in ids
    ]
    worst = int(np.argmin(agreement))
    scores: list[float | None] = [None, None]
    if clip.truths:
        scores = [100.0 * score_sequence(maps, clip.truths, ids).jf for maps in (student, export)]
    means = float(np.mean(agreement)), float(np.mean(overlap))
    return Parity(clip.name, len(agreement), scale, *means, worst, agreement[worst], *scores)


def check(parity: Parity, bound: Bound) -> None:
    """Raise ParityError, with the measured value and the bound, for an export that differs by more than it may."""
    if not parity.agreement >= bound.agreement:
        raise ParityError(
            f"the export gives {parity.agreement:.4f} of the pixels of {parity.clip} the student's label, at least "
            f"{bound.agreement:g} are asked for; the worst is frame {parity.worst_frame} with "
            f"{parity.worst_agreement:.4f}; nothing was written"
        )
    if parity.loss is not None and not parity.loss <= bound.loss:
        raise ParityError(
            f"the export loses {parity.loss:.2f} points of J&F on {parity.clip}, at most {bound.loss:g} are allowed; "
            "nothing was written"
        )
