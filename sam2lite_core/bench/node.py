"""Measure the real node over DDS: overhead, counters, and growth over time; its ROS side is a process of its own."""

import json
import statistics
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from sam2lite_core.bench.step import percentiles
from sam2lite_core.bench.tables import table
from sam2lite_core.errors import ConfigurationError
from sam2lite_core.evaluation.bag.session import check_ros, read_lines, run_module
from sam2lite_core.evaluation.runs.machine import describe_machine
from sam2lite_core.media.label_map import write_label_map
from sam2lite_core.scenes.clip import render_clip

SOAK = "sam2lite_ros.sessions.soak"
OVERHEAD = ("queue_ms", "preprocess_ms", "publish_ms")
"""Fields of TrackerStatus from receiving a frame to having published its mask, without the model's time."""

LIMITS_MS = {"p50": 5.0, "p95": 10.0}
SAMPLES = 600
"""Most samples of the process that a run takes."""

LEAST = 10
"""Fewest frames that percentiles are taken of."""

ROWS = 10
"""Rows of the table over time."""


@dataclass(frozen=True)
class NodeSettings:
    """Settings of a run: frames to send, frames per second (their period is the deadline), and the tracker's."""

    frames: int = 300
    rate: float = 10.0
    variant: str = "tiny"
    backend: str = "auto"
    threads: int | None = None
    model: str | None = None

    def __post_init__(self) -> None:
        if self.frames < LEAST:
            raise ConfigurationError(f"{self.frames} frames are too few for percentiles; give at least {LEAST}")
        if not 0 < self.rate <= 1000:
            raise ConfigurationError(f"--rate is {self.rate}; give more than 0, up to 1000 frames per second")


def measure(settings: NodeSettings, on_frame: Callable[[], None] = lambda: None) -> dict[str, Any]:
    """Run the node; `on_frame` is told of every frame that was sent.

    Raises:
        ConfigurationError: ROS is missing, or frames came too fast to tell what the node itself costs.
        SourceError: the node refused a setting.
        ReplayError: a process failed.
    """
    check_ros("bench node")
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        prompt = work / "prompt.png"
        write_label_map(prompt, render_clip(frames=1).label_maps[0])
        (work / "request.json").write_text(json.dumps(_request(settings, prompt)))
        run_module(SOAK, work, on_frame)
        seen = json.loads((work / "seen.json").read_text())
        statuses = read_lines(work / "statuses.jsonl")
        samples = read_lines(work / "samples.jsonl")
        sent = len(read_lines(work / "frames.jsonl"))
    return report(settings, sent, statuses, samples, seen)


def _request(settings: NodeSettings, prompt: Path) -> dict[str, Any]:
    return {
        "tracker": {
            "variant": settings.variant,
            "backend": settings.backend,
            "model_path": "" if settings.model is None else str(Path(settings.model).resolve()),
            "threads": settings.threads or 0,
            "frame_deadline_ms": 1000.0 / settings.rate,
            "initial_prompt.mask_file": str(prompt),
            "initial_prompt.object_id": 0,
        },
        "player": {"source": "", "rate": float(settings.rate), "loop": True, "max_frames": settings.frames},
        "sample_s": max(1.0, settings.frames / settings.rate / SAMPLES),
    }


def report(
    settings: NodeSettings,
    sent: int,
    statuses: Sequence[dict[str, Any]],
    samples: Sequence[dict[str, float]],
    seen: dict[str, int],
) -> dict[str, Any]:
    """Sum a run up.

    Args:
        settings: of the run.
        sent: frames that were sent.
        statuses: TrackerStatus of each processed frame, by field.
        samples: seconds, memory_mb, threads and files of the node's process, over time.
        seen: received, processed, dropped and failed as the node last counted them, and the masks that arrived.

    Raises:
        ConfigurationError: frames came too fast to tell what the node itself costs.
    """
    idle = found_idle(statuses)
    if len(idle) < LEAST:
        raise ConfigurationError(
            f"only {len(idle)} of {len(statuses)} frames found the model idle, too few for percentiles: give a lower "
            f"--rate than {settings.rate:g}, or more frames"
        )
    overhead = [sum(status[name] for name in OVERHEAD) for status in idle]
    parts = ("receive_ms", *OVERHEAD, "inference_ms")
    spread = percentiles(overhead)
    frames = {"sent": sent, **seen}
    frames["lost on the way"] = sent - seen["received"]
    frames["unexplained"] = seen["received"] - seen["processed"] - seen["dropped"] - seen["failed"]
    return {
        "machine": describe_machine(),
        "settings": asdict(settings),
        "overhead_ms": {**spread, "worst": round(max(overhead), 3)},
        "limits_ms": LIMITS_MS,
        "within_limits": all(spread[name] <= limit for name, limit in LIMITS_MS.items()),
        "found_idle": len(idle),
        "parts_ms": {name: percentiles([status[name] for status in idle]) for name in parts},
        "mean_scale": round(statistics.fmean(status["scale"] for status in statuses), 3),
        "deadlines_missed": int(statuses[-1]["deadlines_missed"]),
        "frames": frames,
        "growth": {name: _growth([sample[name] for sample in samples]) for name in ("memory_mb", "threads", "files")},
        "samples": list(samples),
    }


def found_idle(statuses: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Select the frames that arrived after the one before was published: they waited for no inference."""
    idle = list(statuses[:1])
    for before, status in pairwise(statuses):
        published = before["stamp_ns"] / 1e6 + before["age_ms"]
        if status["stamp_ns"] / 1e6 + status["receive_ms"] >= published:
            idle.append(status)
    return idle


def _growth(values: Sequence[float]) -> dict[str, float]:
    """Compare medians of the second and the last tenth: the first holds what a start allocates."""
    tenth = max(1, len(values) // 10)
    early, late = statistics.median(values[tenth : 2 * tenth] or values), statistics.median(values[-tenth:])
    return {"early": round(early, 2), "late": round(late, 2), "growth": round(late - early, 2)}


def markdown(content: dict[str, Any]) -> str:
    """Write the run as Markdown: overhead against its limits, counters, the process over time."""
    machine, settings, overhead = content["machine"], content["settings"], content["overhead_ms"]
    frames, growth = content["frames"], content["growth"]
    verdict = "within" if content["within_limits"] else "over"
    limits, samples = content["limits_ms"], content["samples"]
    shown = np.linspace(0, len(samples) - 1, min(ROWS, len(samples))).round().astype(int)
    lines = [
        f"{machine['cpu']}, {machine['cores']} cores, {settings['variant']}, {settings['frames']} frames of 640x480 at "
        f"{settings['rate']:g} Hz, mean scale {content['mean_scale']}, {content['deadlines_missed']} deadlines missed",
        "",
        f"Overhead, receive to publish without inference: p50 {overhead['p50']:.1f} ms (limit {limits['p50']:g}), p95 "
        f"{overhead['p95']:.1f} ms (limit {limits['p95']:g}), worst {overhead['worst']:.1f} ms: {verdict} the limits; "
        f"{content['found_idle']} of {frames['processed']} frames, those that did not wait for the one before",
        "",
        *table(
            ("part", "p50 ms", "p95 ms"),
            (
                (name.removesuffix("_ms"), f"{part['p50']:.1f}", f"{part['p95']:.1f}")
                for name, part in content["parts_ms"].items()
            ),
        ),
        "",
        "Frames: " + ", ".join(f"{count} {name}" for name, count in frames.items()),
        "",
        *table(
            ("after s", "memory MB", "threads", "files"),
            (
                (f"{row['seconds']:.0f}", f"{row['memory_mb']:.1f}", row["threads"], row["files"])
                for row in (samples[index] for index in shown)
            ),
        ),
        "",
        "Growth from the second tenth of the run to the last: "
        + ", ".join(f"{name.replace('_mb', ' MB')} {growth[name]['growth']:+g}" for name in growth),
    ]
    return "\n".join(lines) + "\n"
