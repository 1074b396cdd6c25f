"""Options of the tracker that an evaluation runs."""

from dataclasses import asdict, dataclass
from typing import Any

from sam2lite_core.evaluation.many_objects import ManyObjects
from sam2lite_core.variants import DEFAULT_POLICY
from sam2lite_core.video import VideoTracker


@dataclass(frozen=True)
class TrackerOptions:
    """How to build the tracker, as `Tracker` takes it; hashable and picklable, so that every process builds its own."""

    variant: str = "tiny"
    backend: str = "auto"
    scale: float | None = None
    memory_budget: int | None = None
    memory_policy: str = DEFAULT_POLICY
    threads: int | None = None
    model_path: str | None = None

    def build(self) -> VideoTracker:
        """Load the model; more objects than it holds are followed by more of it.

        Raises:
            Sam2LiteError: an option outside its range, or a model that cannot be loaded.
        """
        from sam2lite_core.tracker import Tracker

        return ManyObjects(
            lambda: Tracker(
                self.variant,
                self.backend,
                scale=self.scale,
                memory_budget=self.memory_budget,
                memory_policy=self.memory_policy,
                threads=self.threads,
                model_path=self.model_path,
            )
        )

    def describe(self) -> dict[str, Any]:
        """What a result says of its tracker: the options, and which weights they stand for."""
        from sam2lite_core.backends.model_files import WEIGHTS_FILE, find_model, foreign_weights, sha256
        from sam2lite_core.backends.registry import FRAME_BACKENDS
        from sam2lite_core.variants import get_variant

        if self.backend in FRAME_BACKENDS:
            files = foreign_weights(self.backend, self.model_path)
            return {**asdict(self), "weights_sha256": {file.name: sha256(file) for file in files}}
        weights = find_model(get_variant(self.variant), self.model_path) / WEIGHTS_FILE
        return {**asdict(self), "weights_sha256": sha256(weights)}
