"""Build the tracker that an evaluation runs."""

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from sam2lite_core.evaluation.many_objects import ManyObjects
from sam2lite_core.variants import DEFAULT_POLICY
from sam2lite_core.video import VideoTracker

if TYPE_CHECKING:
    from sam2lite_core.tracker import Tracker


@dataclass(frozen=True)
class TrackerOptions:
    """Arguments of `Tracker`; hashable and picklable, so that every process builds its own."""

    variant: str = "tiny"
    backend: str = "auto"
    scale: float | None = None
    memory_budget: int | None = None
    memory_policy: str = DEFAULT_POLICY
    threads: int | None = None
    model_path: str | None = None

    def build(self) -> VideoTracker:
        """Build the tracker, and more of it for more objects than one holds, or raise Sam2LiteError."""
        return ManyObjects(self.build_one)

    def build_one(self) -> "Tracker":
        """Build a single tracker; see `build`."""
        from sam2lite_core.tracker import Tracker

        return Tracker(**asdict(self))

    def describe(self) -> dict[str, Any]:
        """Describe the tracker in plain JSON: its options, and the checksums of its weights."""
        from sam2lite_core.backends.model_files import WEIGHTS_FILE, find_model, foreign_weights, sha256
        from sam2lite_core.backends.registry import FRAME_BACKENDS
        from sam2lite_core.variants import get_variant

        if self.backend in FRAME_BACKENDS:
            files = foreign_weights(self.backend, self.model_path)
            return {**asdict(self), "weights_sha256": {file.name: sha256(file) for file in files}}
        weights = find_model(get_variant(self.variant), self.model_path) / WEIGHTS_FILE
        return {**asdict(self), "weights_sha256": sha256(weights)}
