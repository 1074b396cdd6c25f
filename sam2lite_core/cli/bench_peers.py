"""`sam2lite bench --peers`: our model beside SAM 2.1-tiny and EdgeTAM."""

from pathlib import Path

from rich.console import Console

from sam2lite_core.cli.options import numbers
from sam2lite_core.errors import ConfigurationError
from sam2lite_core.files import write_atomically, write_json


def whole_sides(text: str | None) -> tuple[int, ...] | None:
    """Sides of the peers' inputs, px; None for their own choice.

    Raises:
        ConfigurationError: something else than whole numbers.
    """
    if text is None:
        return None
    values = numbers(text, "--peer-sides")
    if not all(value.is_integer() and value > 0 for value in values):
        raise ConfigurationError(f"--peer-sides {text!r} is not a list of pixels like 1024,512")
    return tuple(int(value) for value in values)


def bench_peers(
    variant: str,
    backend: str,
    precision: str,
    device: str,
    threads: int | None,
    model: Path | None,
    rounds: int,
    sides: str | None,
    json_file: Path | None,
    markdown_file: Path | None,
) -> None:
    """Race, print the table, write the files; arguments as in the options of `sam2lite bench`."""
    from sam2lite_core.bench import peers as race

    settings = race.PeerSettings(
        variant=variant,
        backend=backend,
        precision=precision,
        model=None if model is None else str(model),
        device=device,
        threads=threads,
        rounds=rounds,
        sides=whole_sides(sides),
    )
    content = race.measure(settings, Console(stderr=True).print)
    text = race.markdown(content)
    print(text)
    if markdown_file is not None:
        write_atomically(markdown_file, text.encode())
    write_json(json_file, content)
