"""Choose the models that `sam2lite bench` measures, and make weights for those that ship none."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from sam2lite_core.backends.model_files import find_model
from sam2lite_core.backends.registry import FRAME_BACKENDS, installed_backends
from sam2lite_core.bench.step import BenchSettings
from sam2lite_core.errors import ConfigurationError, ModelFileError
from sam2lite_core.variants import VARIANTS, get_variant


def chosen(text: str, every: Sequence[str]) -> tuple[str, ...]:
    """Comma-separated names of an option, or all."""
    names = tuple(dict.fromkeys(name.strip() for name in text.split(",") if name.strip()))
    return tuple(every) if names == ("all",) else names


def models(
    settings: BenchSettings, variants: str, backends: str, precisions: str, work: Path
) -> Iterator[tuple[BenchSettings, str]]:
    """Yield the settings and the weights (shipped, given or random) of every variant, backend and precision.

    Args:
        settings: all else.
        variants, backends, precisions: comma-separated names; of the first two also "all" (backends: all installed).
        work: folder for random weights, made only where none ship.

    Raises:
        UnknownVariantError: an unknown variant.
        ConfigurationError: several variants of one given model, no name, or nothing that makes random weights.
    """
    names = chosen(variants, tuple(VARIANTS))
    runtimes = chosen(backends, installed_backends())
    widths = chosen(precisions, ())
    if not (names and runtimes and widths):
        raise ConfigurationError("bench needs a variant, a backend and a precision")
    if settings.model is not None and len(names) > 1:
        raise ConfigurationError(f"{settings.model} is one variant; give one of {', '.join(names)}")
    for name in names:
        get_variant(name)
        model, weights = settings.model, "given"
        if model is None and not set(runtimes) <= set(FRAME_BACKENDS):
            try:
                find_model(get_variant(name), None)
                weights = "shipped"
            except ModelFileError:
                model, weights = str(random_model(name, work / name)), "random"
        for runtime in runtimes:
            for width in widths:
                yield (replace(settings, variant=name, backend=runtime, precision=width, model=model), weights)


def random_model(name: str, folder: Path) -> Path:
    """Export a variant with random weights."""
    try:
        from sam2lite_core.bench.random_weights import export_random
    except ImportError as error:
        raise ConfigurationError(
            f"no weights ship for {name}, and random ones need {error.name}: python -m pip install 'sam2lite[export]'"
        ) from None
    export_random(name, folder)
    return folder
