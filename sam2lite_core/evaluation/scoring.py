"""Measure all figures of one sequence's masks while its frames arrive."""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from sam2lite_core.evaluation.davis_protocol import SequenceScorer, SequenceScores
from sam2lite_core.evaluation.stability import FlickerMeter, Stability, summarise_stability
from sam2lite_core.media.label_map import LabelMap


class SequenceScoring:
    """J, F and stability of one sequence."""

    def __init__(self, shown: Mapping[int, Sequence[int]]) -> None:
        """Start a sequence; `shown` has the ids of the objects that appear, by the index of their first frame."""
        self._shown = shown
        self._scorer = SequenceScorer(())
        self._flicker = FlickerMeter()
        self._ids: list[int] = []
        self._frames = 0
        self._true_frames = 0

    def add(self, prediction: LabelMap, truth: LabelMap | None, image: NDArray[np.uint8] | None) -> None:
        """Add the next frame: (H, W) label maps, and (H, W, 3) uint8 RGB.

        Truth is None without annotation; without an image, flicker stays unknown. Raises SourceError for other sizes.
        """
        fresh = self._shown.get(self._frames, ())
        self._scorer.show(fresh)
        self._scorer.add(prediction, truth)
        self._frames += 1
        self._true_frames += truth is not None
        if image is not None:
            self._flicker.look(image)
            self._flicker.add("prediction", prediction, self._ids)
            if truth is not None:
                self._flicker.add("truth", truth, self._ids)
        # A prompt is an answer that the tracker was given: flicker counts from the next frame on.
        self._ids += fresh

    def result(self) -> tuple[SequenceScores, Stability] | tuple[None, None]:
        """Return the scores, None where no frame has a truth; raise SourceError when no frame counts."""
        if self._true_frames == 0:
            return None, None
        scores = self._scorer.result()
        flicker = self._flicker.result("prediction")
        return scores, summarise_stability(scores.objects, flicker, self._flicker.result("truth"))
