"""Open the model that a tracker was asked for, with the follower that fits it."""

from sam2lite_core.backends.base import Backend
from sam2lite_core.backends.model_files import find_model, foreign_folder
from sam2lite_core.backends.registry import FRAME_BACKENDS, open_backend, open_frame_backend
from sam2lite_core.errors import ConfigurationError
from sam2lite_core.tracking.follower import Follower
from sam2lite_core.tracking.foreign import ForeignFollower
from sam2lite_core.tracking.settings import ModelSettings, TrackerSettings, check_foreign
from sam2lite_core.tracking.student import StudentFollower
from sam2lite_core.variants import get_variant


def open_follower(model: ModelSettings, settings: TrackerSettings) -> Follower:
    """Load a model.

    Raises:
        BackendError, ModelFileError, ConfigurationError: naming the value and what is allowed.
    """
    name = model.backend
    if not isinstance(name, str):
        return _student(name, f"backend {name.name}", model)
    if name in FRAME_BACKENDS:
        check_foreign(name, model, settings)
        folder = foreign_folder(name, model.model_path)
        return ForeignFollower(open_frame_backend(name, model.for_backend(folder)))
    folder = find_model(get_variant(model.variant), model.model_path)
    return _student(open_backend(name, model.for_backend(folder)), str(folder), model)


def _student(backend: Backend, place: str, model: ModelSettings) -> StudentFollower:
    if backend.info.variant != model.variant:
        raise ConfigurationError(f"{place} holds variant {backend.info.variant}, not {model.variant}")
    return StudentFollower(backend, model.budget, model.memory_policy, model.base_short_side)
