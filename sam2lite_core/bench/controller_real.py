"""Run deadline controllers on the real tracker, without and under CPU load."""

import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from sam2lite_core.bench.tables import table
from sam2lite_core.control.measuring import boxes, moving_frames
from sam2lite_core.errors import ConfigurationError
from sam2lite_core.evaluation.runs.machine import describe_machine
from sam2lite_core.tracker import Tracker

REFERENCE_SCALE = 0.6
DEADLINE_STEPS = 2.5
"""The deadline in steps at the reference scale (issue 7): room at first, too little under CPU load."""

FIGURES = {
    "former_scale": "ρ before",
    "hog_scale": "ρ under load",
    "missed_percent": "missed % after 1 s",
    "late_percent": "late or skipped %",
    "back_s": "back after s",
    "switches_a_minute": "changes of ρ a minute",
}
"""Titles of a controller's figures in the table."""

BURN = """
import os, sys, time
if hasattr(os, "sched_setaffinity"):
    os.sched_setaffinity(0, {int(sys.argv[1])})
parent, end = os.getppid(), time.monotonic() + float(sys.argv[2])
while time.monotonic() < end and os.getppid() == parent:
    sum(range(10000))
"""
"""A process that keeps one core busy until its time is over or its parent gone."""


@dataclass(frozen=True)
class RealSettings:
    """Settings of a run; `variant`, `backend`, `threads` and `model` are the tracker's.

    Attributes:
        controllers: which to compare, one after the other.
        before_s, hog_s, after_s: seconds without load, with one core kept busy, and without load again.
        height, width: size of the frames, px.

    Raises:
        ConfigurationError: a part of the run lasts less than 2 s.
    """

    variant: str = "tiny"
    backend: str = "auto"
    threads: int | None = None
    model: str | None = None
    controllers: tuple[str, ...] = ("plain", "predictive")
    before_s: float = 10.0
    hog_s: float = 20.0
    after_s: float = 10.0
    height: int = 480
    width: int = 854

    def __post_init__(self) -> None:
        if min(self.before_s, self.hog_s, self.after_s) < 2.0:
            raise ConfigurationError(
                f"{self.before_s} s before, {self.hog_s} s with and {self.after_s} s after the load; "
                "give at least 2 of each"
            )


@dataclass(frozen=True)
class Step:
    """A step: when its frame was due, from the start, how late it began, its time, and frames skipped before it."""

    at_s: float
    late_ms: float
    step_ms: float
    scale: float
    skipped: int


@contextmanager
def cpu_load(seconds: float) -> Iterator[subprocess.Popen[bytes]]:
    """Keep one core busy for the block, and for no more than so many seconds."""
    core = max(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 0
    process = subprocess.Popen([sys.executable, "-c", BURN, str(core), str(seconds)])
    try:
        yield process
    finally:
        process.terminate()
        process.wait()


def measure(settings: RealSettings, tell: Callable[[str], None] = lambda _: None) -> dict[str, Any]:
    """Run every controller through calm, load and calm; `tell` gets a line before each part.

    Returns:
        The deadline, and for each controller its figures and its steps.
    """
    tracker = Tracker(
        settings.variant, settings.backend, scale=REFERENCE_SCALE, threads=settings.threads, model_path=settings.model
    )
    step_ms = _reference_step_ms(tracker, settings)
    deadline_ms = DEADLINE_STEPS * step_ms
    tell(f"a step at scale {REFERENCE_SCALE} takes {step_ms:.1f} ms; deadline {deadline_ms:.1f} ms")
    runs = {}
    for controller in settings.controllers:
        tell(f"{controller}: {settings.before_s + settings.hog_s + settings.after_s:g} s")
        tracker.configure(controller=controller, deadline_ms=deadline_ms, scale=None)
        tracker.reset()
        runs[controller] = _run(tracker, settings, deadline_ms / 1e3)
    return {
        "machine": describe_machine(),
        "settings": asdict(settings),
        "reference_step_ms": round(step_ms, 2),
        "deadline_ms": round(deadline_ms, 2),
        "controllers": {
            name: figures(steps, settings, deadline_ms) | {"steps": [asdict(step) for step in steps]}
            for name, steps in runs.items()
        },
    }


def _reference_step_ms(tracker: Tracker, settings: RealSettings, steps: int = 20) -> float:
    """Median step at the reference scale, ms."""
    frames = moving_frames(settings.height, settings.width)
    tracker.step(next(frames), boxes(1, settings.height, settings.width))
    times = [tracker.step(next(frames)).timings.total_ms for _ in range(5 + steps)]
    return statistics.median(times[5:])


def _run(tracker: Tracker, settings: RealSettings, period_s: float) -> list[Step]:
    """Step at every frame that comes when the tracker is free; skip those that come meanwhile."""
    frames = moving_frames(settings.height, settings.width)
    prompts = boxes(1, settings.height, settings.width)
    start = time.perf_counter()
    steps: list[Step] = []

    def until(end_s: float) -> None:
        nonlocal prompts
        last = -1 if not steps else round(steps[-1].at_s / period_s)
        while True:
            # The newest frame that has come by now, or else the next one to come.
            number = max(last + 1, int((time.perf_counter() - start) / period_s))
            if number * period_s >= end_s:
                return
            time.sleep(max(0.0, start + number * period_s - time.perf_counter()))
            late_s = time.perf_counter() - start - number * period_s
            result = tracker.step(next(frames), prompts, elapsed=number - last, overhead_ms=1e3 * late_s)
            prompts = []
            steps.append(
                Step(number * period_s, 1e3 * late_s, result.timings.total_ms, result.scale, number - last - 1)
            )
            last = number

    until(settings.before_s)
    with cpu_load(settings.hog_s + 5.0):
        until(settings.before_s + settings.hog_s)
    until(settings.before_s + settings.hog_s + settings.after_s)
    return steps


def figures(steps: list[Step], settings: RealSettings, deadline_ms: float) -> dict[str, float | int | None]:
    """Compute the figures of a run.

    Returns:
        former_scale: median scale in the last half of the time before the load.
        hog_scale: median scale under load, after its first second.
        missed_percent: share of steps under load, after its first second, longer than the deadline.
        late_percent: the same from when the frame came, with skipped frames as missed.
        back_s: seconds from the load's end to the first step at the former scale or above; None if that never came.
        switches_a_minute: changes of scale over the whole run.
    """
    end_s = settings.before_s + settings.hog_s
    before = [step.scale for step in steps if settings.before_s / 2 <= step.at_s < settings.before_s]
    loaded = [step for step in steps if settings.before_s + 1.0 <= step.at_s < end_s]
    former = float(np.percentile(before, 50, method="lower"))
    back = [step.at_s - end_s for step in steps if step.at_s >= end_s and step.scale >= former]
    late = [step.late_ms + step.step_ms > deadline_ms for step in loaded]
    skipped = sum(step.skipped for step in loaded)
    switches = sum(one.scale != two.scale for one, two in pairwise(steps))
    return {
        "former_scale": former,
        "hog_scale": float(np.percentile([step.scale for step in loaded], 50, method="lower")),
        "missed_percent": round(100.0 * statistics.fmean(step.step_ms > deadline_ms for step in loaded), 2),
        "late_percent": round(100.0 * (sum(late) + skipped) / (len(loaded) + skipped), 2),
        "back_s": round(back[0], 2) if back else None,
        "switches_a_minute": round(60.0 * switches / (steps[-1].at_s - steps[0].at_s), 1),
    }


def summary(content: dict[str, Any]) -> str:
    """Write the figures as a Markdown table."""
    machine, settings = content["machine"], content["settings"]
    rows = [
        [name, *("never" if run[figure] is None else run[figure] for figure in FIGURES)]
        for name, run in content["controllers"].items()
    ]
    lines = [
        f"{machine['cpu']}, {machine['cores']} cores, {settings['threads'] or 'default'} threads; a step at scale "
        f"{REFERENCE_SCALE} takes {content['reference_step_ms']} ms, deadline {content['deadline_ms']} ms, frames at "
        f"that rate; one core kept busy for {settings['hog_s']:g} s",
        "",
        *table(("controller", *FIGURES.values()), rows),
    ]
    return "\n".join(lines) + "\n"
