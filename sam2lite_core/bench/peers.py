"""Compare our model with SAM 2.1-tiny and EdgeTAM on the same frames and threads: `sam2lite bench --peers`.

The peers have their published architectures and random weights, which is enough for time. Rounds go through all of them
in turn, and a ratio is the median over rounds, so that a machine that slows down meets peer and ours alike.
"""

import statistics
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from sam2lite_core.backends.registry import check_frame_backend
from sam2lite_core.bench.step import BenchSettings, Image, endless, frames_of, middle_masks, percentiles
from sam2lite_core.bench.tables import table
from sam2lite_core.errors import ConfigurationError
from sam2lite_core.evaluation.runs.machine import describe_machine, usable_cores
from sam2lite_core.frame.resolution import BASE_SHORT_SIDE, network_size
from sam2lite_core.tracker import Tracker

FILL = 7
"""Frames before the first timed one: the peers remember seven (num_maskmem)."""

OWN_WARM_UP = 10


@dataclass(frozen=True)
class PeerSettings:
    """Settings of the comparison; `variant`, `backend`, `precision`, `model` and `scales` are of ours.

    Attributes:
        device, threads: of all; threads None for every core that this process may use.
        peers: names in `published_peers.PUBLISHED`.
        sides: of the peers' squares, px; None for each one's own and the one nearest to our short side.
        rounds: timed frames of each peer.
        own_steps: timed steps of ours in each round, at each scale.
        height, width: source size, px.
    """

    variant: str = "tiny"
    backend: str = "auto"
    precision: str = "auto"
    model: str | None = None
    device: str = "cpu"
    threads: int | None = None
    peers: tuple[str, ...] = ("sam2", "edgetam")
    sides: tuple[int, ...] | None = None
    scales: tuple[float, ...] = (1.0, 0.5)
    rounds: int = 5
    own_steps: int = 10
    height: int = 480
    width: int = 854

    def __post_init__(self) -> None:
        if self.rounds < 1 or self.own_steps < 1 or not self.scales or not self.peers:
            raise ConfigurationError("peers need at least one round, one step of ours, one scale and one peer")


@dataclass(frozen=True)
class Contender:
    """A prompted tracker, its timed steps in a round, and the facts of its row besides its times."""

    tracker: Tracker
    steps: int
    facts: dict[str, Any]


def measure(settings: PeerSettings, tell: Callable[[str], None] = lambda _: None) -> dict[str, Any]:
    """Race ours against the peers; `tell` gets a line before each contender is prepared and before each round.

    Returns:
        `machine`, `settings`, and `rows`: a model, its input, milliseconds of a whole step with preparation and label
        map, and for the peers `over_ours` by scale.

    Raises:
        BackendError: transformers or torch is not installed.
        ConfigurationError: a peer's architecture does not take a side.
    """
    settings = replace(settings, threads=settings.threads or usable_cores())
    source = endless(frames_of(_as_bench(settings)))
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        contenders = list(_contenders(settings, folder, source, tell))
        times: list[list[list[float]]] = [[] for _ in contenders]
        for turn in range(settings.rounds):
            tell(f"round {turn + 1} of {settings.rounds}")
            for laps, contender in zip(times, contenders, strict=True):
                steps = range(contender.steps)
                laps.append([contender.tracker.step(next(source)).timings.total_ms for _ in steps])
    rows = [_row(contender, laps) for contender, laps in zip(contenders, times, strict=True)]
    count = len(settings.scales)
    for row, laps in zip(rows[count:], times[count:], strict=True):
        row["over_ours"] = {
            f"{scale:g}": round(over(laps, times[index]), 1) for index, scale in enumerate(settings.scales)
        }
    return {"machine": describe_machine(), "settings": asdict(settings), "rows": rows}


def over(peer: list[list[float]], ours: list[list[float]]) -> float:
    """Divide a peer's time by ours: the median over rounds of the ratio of a round's medians."""
    return statistics.median(
        statistics.median(theirs) / statistics.median(own) for theirs, own in zip(peer, ours, strict=True)
    )


def _contenders(
    settings: PeerSettings, folder: Path, source: Iterator[Image], tell: Callable[[str], None]
) -> Iterator[Contender]:
    """Prepare ours at every scale, then the peers, each with its memory filled."""
    shared: dict[str, Any] = {"threads": settings.threads, "device": settings.device}
    entries = _entries(settings)
    from sam2lite_core.bench.published_peers import save

    for scale in settings.scales:
        tell(f"preparing {settings.variant}, scale {scale:g}")
        options: dict[str, Any] = {"scale": scale, "precision": settings.precision, "model_path": settings.model}
        tracker = Tracker(settings.variant, settings.backend, **options, **shared)
        rows, columns = network_size(settings.height, settings.width, scale, BASE_SHORT_SIDE)
        facts: dict[str, Any] = {
            "name": settings.variant,
            "scale": scale,
            "input": f"{columns}x{rows}",
            "weights": "given" if settings.model else "shipped",
        }
        yield Contender(tracker, settings.own_steps, facts | _fill(tracker, settings, source, OWN_WARM_UP))
    for name, side, published in entries:
        tell(f"preparing {published.title}, {side}x{side}")
        place = folder / f"{name}{side}"
        save(name, side, place)
        tracker = Tracker(backend="transformers", model_path=place, **shared)
        facts = {"name": published.title, "input": f"{side}x{side}", "weights": "random"}
        if side == published.side:
            # The scores are of this size; nobody published those of the other.
            facts |= {"davis17_jf": published.davis17, "mose_jf": published.mose, "jf_source": published.source}
        yield Contender(tracker, 1, facts | _fill(tracker, settings, source, FILL))


def _entries(settings: PeerSettings) -> list[tuple[str, int, Any]]:
    """List peers by name and side, the largest first, with the published facts; refuse before anything is prepared."""
    check_frame_backend("transformers")
    from sam2lite_core.bench.published_peers import PUBLISHED, check_side

    entries = []
    for name in settings.peers:
        if name not in PUBLISHED:
            raise ConfigurationError(f"unknown peer {name!r}; choose among {', '.join(PUBLISHED)}")
        peer = PUBLISHED[name]
        sides = settings.sides or (peer.side, peer.side_for(BASE_SHORT_SIDE))
        entries += [(name, check_side(name, side), peer) for side in sorted(set(sides), reverse=True)]
    return entries


def _fill(tracker: Tracker, settings: PeerSettings, source: Iterator[Image], frames: int) -> dict[str, Any]:
    """Show the object and follow it for so many frames; return the tokens in memory then, and the model's size."""
    result = tracker.step(next(source), middle_masks(1, _as_bench(settings)))
    for _ in range(frames):
        result = tracker.step(next(source))
    parameters = round(tracker.backend.info.parameters["total"] / 1e6, 1)
    return {"memory_tokens": result.memory_tokens_used, "backend": tracker.backend.name, "parameters_m": parameters}


def _row(contender: Contender, laps: list[list[float]]) -> dict[str, Any]:
    times = [time for lap in laps for time in lap]
    return {
        **contender.facts,
        "steps": len(times),
        "step_ms": percentiles(times),
        "round_medians_ms": [round(statistics.median(lap), 3) for lap in laps],
        "fps": round(1000.0 / float(np.median(times)), 2),
    }


def _as_bench(settings: PeerSettings) -> BenchSettings:
    return BenchSettings(height=settings.height, width=settings.width)


def markdown(content: dict[str, Any]) -> str:
    """Write the race as a Markdown table, with the machine and the sources of the scores."""
    machine, settings = content["machine"], content["settings"]
    scales = [f"{scale:g}" for scale in settings["scales"]]
    versions = ", ".join(
        f"{name} {machine[name]}" for name in ("onnxruntime", "torch", "transformers") if name in machine
    )
    lines = [
        f"{machine['cpu']}, {machine['cores']} cores, {settings['threads']} threads each, device {settings['device']}; "
        f"{versions}; source {settings['width']}x{settings['height']}, one object, memory filled with {FILL} frames; "
        f"whole steps, medians, {settings['rounds']} rounds in turn. "
        "The peers have their published architectures and random weights, which is enough for time.",
        "",
    ]
    head = [
        *("model", "weights", "backend", "input", "M parameters", "steps", "step p50 ms", "FPS"),
        *(f"over ours, scale {scale}" for scale in scales),
        *("DAVIS17 J&F", "MOSE J&F"),
    ]
    body = []
    for row in content["rows"]:
        ratios = [f"{row['over_ours'][scale]:.1f}" if "over_ours" in row else "" for scale in scales]
        scores = ["-" if row.get(key) is None else f"{row[key]:.1f}" for key in ("davis17_jf", "mose_jf")]
        body.append(
            [
                row["name"] + (f", scale {row['scale']:g}" if "scale" in row else ""),
                *(row[key] for key in ("weights", "backend", "input")),
                f"{row['parameters_m']:.1f}",
                row["steps"],
                f"{row['step_ms']['p50']:.1f}",
                f"{row['fps']:g}",
                *ratios,
                *scores,
            ]
        )
    lines += table(head, body)
    sources = {row["name"]: row["jf_source"] for row in content["rows"] if "jf_source" in row}
    if sources:
        told = "; ".join(f"{name}: {source}" for name, source in sources.items())
        lines += ["", f"J&F as published, at the size that the model was trained with ({told}); - where unknown."]
    return "\n".join(lines) + "\n"
