"""Sum a replay up as the content of `bag.json` and as a table for a terminal."""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from rich import box
from rich.table import Table

from sam2lite_core.evaluation.bag.request import ReplaySettings
from sam2lite_core.evaluation.bag.scores import FULL_SCALE, OfflineRun, Scored, played_scale
from sam2lite_core.evaluation.bag.session import Recording
from sam2lite_core.evaluation.runs.machine import describe_machine

PARTS = ("receive", "queue", "preprocess", "inference", "publish", "age")
"""Times of TrackerStatus; the last is a mask's age when it was published."""

PERCENTILES = (50, 95, 99)


@dataclass(frozen=True)
class Outcome:
    """All scores of an evaluation.

    The node's on the frames that it processed, and on all, where dropped ones have the mask before them; the tracker's
    without a deadline, and the same at the node's resolution and window.
    """

    processed: Scored
    all_frames: Scored
    offline: OfflineRun
    as_played: OfflineRun


def document(settings: ReplaySettings, recording: Recording, outcome: Outcome) -> dict[str, Any]:
    """Return the content of `bag.json`: plain numbers and strings; scores 0..1, times in ms."""
    request = settings.request
    frames = len(settings.recorded_ns)
    scored = {
        "processed": _score(outcome.processed),
        "all_frames": _score(outcome.all_frames),
        "offline": _score(outcome.offline.scored),
        "offline_as_played": _score(outcome.as_played.scored),
    }
    return {
        "bag": str(request.bag),
        "topic": settings.topic,
        "rate": request.rate,
        "period_ms": settings.period_ms,
        "stamps_back": settings.stamps_back,
        "truth": {
            "folder": str(request.truth),
            "frames": len(settings.truth),
            "missing": [index for index in range(frames) if index not in settings.truth],
        },
        "prompt": str(request.mask) if request.mask is not None else "true mask of the first frame",
        "object_ids": list(settings.object_ids),
        "frames": frame_counts(settings, recording),
        "deadline": deadline(settings, recording),
        "latency_ms": latencies(recording),
        "scale": _range([played_scale(status) for status in recording.statuses.values()]),
        "window": _range([float(status["window"]) for status in recording.statuses.values()]),
        "score": {"protocol": "DAVIS: the bag's first and last frame left out", **scored},
        "why": why(settings, recording, outcome),
        "tracker": {**request.tracker.describe(), "controller": settings.controller},
        "per_frame": per_frame(settings, recording),
        "machine": describe_machine(),
    }


def frame_counts(settings: ReplaySettings, recording: Recording) -> dict[str, int]:
    """Count the frames that reached each stage."""
    last = recording.statuses[max(recording.statuses)] if recording.statuses else {}
    return {
        "in_bag": len(settings.recorded_ns),
        "sent": len(recording.sent),
        "received": int(last.get("frames_received", 0)),
        "processed": int(last.get("frames_processed", 0)),
        "dropped": int(last.get("frames_dropped", 0)),
        "masks_recorded": len(recording.masks),
    }


def deadline(settings: ReplaySettings, recording: Recording) -> dict[str, Any]:
    """Return the deadline, and count the processed frames that missed it."""
    missed = sum(bool(status["deadline_missed"]) for status in recording.statuses.values())
    share = missed / len(recording.statuses) if recording.statuses else None
    return {"ms": settings.deadline_ms or None, "missed": missed, "share": share}


def latencies(recording: Recording) -> dict[str, dict[str, float]]:
    """Compute percentiles of each part of the time over the processed frames, and the longest, ms."""
    summary = {}
    for part in PARTS:
        values = [float(status[f"{part}_ms"]) for status in recording.statuses.values()]
        if values:
            found = np.percentile(values, PERCENTILES)
            summary[part] = {f"p{p}": float(v) for p, v in zip(PERCENTILES, found, strict=True)}
            summary[part]["max"] = max(values)
    return summary


def per_frame(settings: ReplaySettings, recording: Recording) -> dict[str, list[Any]]:
    """List the facts of every frame, in order; None where it was not processed."""
    frames = range(len(settings.recorded_ns))
    statuses = [recording.statuses.get(index) for index in frames]
    return {
        "stamp_ns": list(settings.stamps_ns),
        "recorded_ns": list(settings.recorded_ns),
        "has_truth": [index in settings.truth for index in frames],
        "age_ms": [None if s is None else round(float(s["age_ms"]), 3) for s in statuses],
        "deadline_missed": [None if s is None else bool(s["deadline_missed"]) for s in statuses],
        "scale": [None if s is None else played_scale(s) for s in statuses],
        "window": [None if s is None else int(s["window"]) for s in statuses],
    }


def why(settings: ReplaySettings, recording: Recording, outcome: Outcome) -> dict[str, Any] | None:
    """Split the J&F difference, -1..1, between the replay and the offline run; None where nothing was scored.

    offline + resolution_and_window + node = processed; processed + dropped_frames = all_frames.
    """
    offline, as_played = outcome.offline.scored.jf, outcome.as_played.scored.jf
    online, everything = outcome.processed.jf, outcome.all_frames.jf
    scales = [played_scale(status) for status in recording.statuses.values()]
    if offline is None or as_played is None or online is None or everything is None or not scales:
        return None
    counts = frame_counts(settings, recording)
    wanted = settings.request.tracker.scale or FULL_SCALE
    parts = {
        "resolution_and_window": as_played - offline,
        "node": online - as_played,
        "dropped_frames": everything - online,
    }
    masks = len(recording.masks)
    return {
        **parts,
        "identical_masks": outcome.as_played.identical,
        "sentences": [
            f"resolution and window that the deadline chose: {_points(parts['resolution_and_window'])} "
            f"(scale {min(scales):g} to {max(scales):g}, offline {wanted:g})",
            f"the node itself: {_points(parts['node'])} ({outcome.as_played.identical} of {masks} masks are those of "
            "the offline run at the same resolution, to the pixel)",
            f"frames without a mask of their own: {_points(parts['dropped_frames'])} ({counts['in_bag'] - masks} of "
            f"{counts['in_bag']} have the mask before them)",
        ],
    }


def result_table(result: dict[str, Any]) -> Table:
    """Lay the most important figures out for a terminal; scores in per cent."""
    table = Table(title=f"{result['bag']} {result['topic']}", show_header=False, box=box.SIMPLE_HEAD)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    counts = result["frames"]
    table.add_row(
        "frames",
        f"{counts['in_bag']} in the bag, {counts['received']} received, {counts['processed']} processed, "
        f"{counts['dropped']} dropped",
    )
    if result["stamps_back"]:
        table.add_row("stamps", f"{result['stamps_back']} earlier than the one before")
    if missing := result["truth"]["missing"]:
        table.add_row("truth", f"{len(missing)} frames have none: they are played and not scored")
    for part, values in result["latency_ms"].items():
        text = "   ".join(f"{name} {value:.1f}" for name, value in values.items())
        table.add_row(f"{part} (ms)", text)
    limit = result["deadline"]
    if limit["ms"] is not None:
        table.add_row("deadline", f"{limit['ms']:.1f} ms, {limit['missed']} of {counts['processed']} missed")
    if result["scale"]:
        table.add_row("scale", "min {min:.1f}   mean {mean:.2f}   max {max:.1f}".format(**result["scale"]))
    table.add_section()
    for name, label in (("processed", "frames processed"), ("all_frames", "all frames"), ("offline", "offline")):
        table.add_row(f"J&F, {label}", _score_text(result["score"][name]))
    label = "why they differ"
    for sentence in (result["why"] or {}).get("sentences", ()):
        table.add_row(label, sentence)
        label = ""
    return table


def _score(scored: Scored) -> dict[str, Any]:
    scores = scored.scores
    if scores is None:
        return {"frames": 0, "jf": None, "j": None, "f": None, "objects": []}
    objects = [{"object_id": one.object_id, "jf": one.jf, "j": one.j.mean, "f": one.f.mean} for one in scores.objects]
    return {"frames": scored.frames, "jf": scores.jf, "j": asdict(scores.j), "f": asdict(scores.f), "objects": objects}


def _score_text(score: dict[str, Any]) -> str:
    if score["jf"] is None:
        return "no frame with a truth between the first and the last"
    j, f = 100 * score["j"]["mean"], 100 * score["f"]["mean"]
    return f"{100 * score['jf']:.1f}   (J {j:.1f}, F {f:.1f}, {score['frames']} frames)"


def _points(difference: float) -> str:
    return f"{100 * difference:+.1f} points"


def _range(values: list[float]) -> dict[str, float]:
    if not values:
        return {}
    return {"min": min(values), "mean": float(np.mean(values)), "max": max(values)}
