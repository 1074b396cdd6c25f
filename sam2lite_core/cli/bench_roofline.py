"""Count a frame's cost and the least time that this machine needs for it: `sam2lite bench roofline`."""

import importlib.util
from typing import Annotated, Any

import typer

from sam2lite_core.cli.options import JsonOption
from sam2lite_core.errors import ConfigurationError
from sam2lite_core.files import check_json_path, write_json
from sam2lite_core.variants import VARIANTS, get_variant


def roofline(
    variant: Annotated[str, typer.Option(help="Variants, comma-separated, or all.")] = "all",
    threads: Annotated[str, typer.Option(help="Numbers of threads, comma-separated.")] = "1,2",
    json_file: JsonOption = None,
) -> None:
    """Measure this machine's arithmetic and copying at best, and set every variant's frame against them."""
    from sam2lite_core.bench import peaks
    from sam2lite_core.bench import roofline as model
    from sam2lite_core.evaluation.runs.machine import describe_machine

    check_json_path(json_file)
    names = tuple(VARIANTS) if variant == "all" else tuple(get_variant(n).name for n in variant.split(","))
    if not all(text.isdecimal() and int(text) > 0 for text in threads.split(",")):
        raise ConfigurationError(f"--threads is {threads!r}; give whole numbers of at least 1, like 1,2")
    if importlib.util.find_spec("torch") is None:
        raise ConfigurationError(
            "bench roofline counts on the model itself, which needs torch: python -m pip install 'sam2lite[torch]'"
        )
    from sam2lite_core.bench.traffic import rows

    counts = tuple(int(text) for text in threads.split(","))
    content: dict[str, Any] = {
        "machine": describe_machine(),
        "peaks": [peaks.measure(count) for count in counts],
        "rows": rows(names),
    }
    print(model.peaks_markdown(content["peaks"]))
    print(model.markdown(content, threads=counts[-1]))
    write_json(json_file, content)
