"""Time a step's parts, and steps with more objects: `sam2lite bench parts` and `sam2lite bench objects`."""

from typing import Annotated

import typer

from sam2lite_core.cli.options import JsonOption, ModelOption, ThreadsOption, VariantOption, numbers
from sam2lite_core.errors import ConfigurationError
from sam2lite_core.files import check_json_path, write_json


def parts(
    variant: VariantOption = "tiny",
    scales: Annotated[str, typer.Option(help="Resolution scales, comma-separated.")] = "0.5,1",
    frames: Annotated[int, typer.Option(help="Timed steps at each scale.")] = 40,
    threads: ThreadsOption = None,
    model: ModelOption = None,
    json_file: JsonOption = None,
) -> None:
    """Time the step graph part by part on ONNX Runtime, and compare it with a large matrix product."""
    from sam2lite_core.bench import parts
    from sam2lite_core.evaluation.runs.machine import describe_machine

    check_json_path(json_file)
    if frames < 1:
        raise ConfigurationError(f"--frames is {frames}; give at least 1")
    folder = None if model is None else str(model)
    rows = [parts.profile_parts(variant, scale, threads, folder, frames) for scale in numbers(scales, "--scales")]
    print(parts.markdown(rows))
    write_json(json_file, {"machine": describe_machine(), "profiles": rows})


def objects(
    variant: VariantOption = "tiny",
    counts: Annotated[str, typer.Option(help="Numbers of objects, comma-separated.")] = "1,2,4,8,16",
    scale: Annotated[float, typer.Option(help="Resolution scale.")] = 0.5,
    frames: Annotated[int, typer.Option(help="Timed steps of each.")] = 30,
    threads: ThreadsOption = None,
    model: ModelOption = None,
    json_file: JsonOption = None,
) -> None:
    """Time steps with more and more objects, in turns with a graph exported for one object only."""
    try:
        from sam2lite_core.bench import objects
        from sam2lite_core.export import onnx as _  # noqa: F401  # says early what is missing
    except ImportError as error:
        raise ConfigurationError(
            f"bench objects exports a graph, which needs {error.name}: python -m pip install 'sam2lite[export]'"
        ) from None
    from sam2lite_core.bench.step import BenchSettings
    from sam2lite_core.evaluation.runs.machine import describe_machine

    check_json_path(json_file)
    settings = BenchSettings(
        variant=variant,
        threads=threads,
        model=None if model is None else str(model),
        scales=(scale,),
        objects=tuple(int(value) for value in numbers(counts, "--counts")),
        frames=frames,
    )
    content = objects.measure(settings)
    print(objects.markdown(content))
    write_json(json_file, {"machine": describe_machine(), **content})
