"""Compare our model with SAM 2.1-tiny and EdgeTAM: `sam2lite bench --peers`."""

from dataclasses import dataclass
from typing import Annotated, Any

import typer
from rich.console import Console

from sam2lite_core.cli.options import Outputs, numbers
from sam2lite_core.errors import ConfigurationError


def whole_sides(text: str | None) -> tuple[int, ...] | None:
    """Parse the sides of the peers' inputs, px, or raise ConfigurationError; None for their own choice."""
    if text is None:
        return None
    values = numbers(text, "--peer-sides")
    if not all(value.is_integer() and value > 0 for value in values):
        raise ConfigurationError(f"--peer-sides {text!r} is not a list of pixels like 1024,512")
    return tuple(int(value) for value in values)


@dataclass(frozen=True)
class Race:
    """Options of the comparison with peers."""

    peers: Annotated[bool, typer.Option("--peers", help="Race SAM 2.1-tiny and EdgeTAM instead, in the same run.")] = (
        False
    )
    rounds: Annotated[int, typer.Option(help="With --peers: timed frames of each peer.")] = 5
    peer_sides: Annotated[
        str | None, typer.Option(help="With --peers: sides of their inputs, px; their own and near to ours by default.")
    ] = None


def bench_peers(race: Race, outputs: Outputs, **ours: Any) -> None:
    """Race, print the table, write the files; `ours` are settings of our own tracker, as in `PeerSettings`."""
    from sam2lite_core.bench.peers import PeerSettings, markdown, measure

    settings = PeerSettings(rounds=race.rounds, sides=whole_sides(race.peer_sides), **ours)
    content = measure(settings, Console(stderr=True).print)
    outputs.write(content, markdown(content))
