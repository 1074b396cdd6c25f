"""Write a recording as files and figures: masks, overlay, contact sheet, frames.csv, result.json, a table."""

import csv
import io
import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from itertools import pairwise
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from rich.table import Table

import sam2lite_core
from sam2lite_core.errors import SourceError
from sam2lite_core.evaluation.davis_protocol import SequenceScorer
from sam2lite_core.evaluation.runs.machine import describe_machine
from sam2lite_core.files import write_atomically
from sam2lite_core.media.label_map import LabelMap, read_label_map
from sam2lite_core.media.open import open_source
from sam2lite_core.media.overlay import contact_sheet, draw_overlay
from sam2lite_core.media.pictures import read_image
from sam2lite_core.media.video_writer import VideoWriter
from sam2lite_core.types import Frame
from sam2lite_ros.msg import TrackerStatus
from sam2lite_ros.player.sources import RenderedSource, is_camera
from sam2lite_ros.sessions.demo_settings import RESULT_FILE, DemoSettings
from sam2lite_ros.sessions.recorder import Recording
from sam2lite_ros.tracker.frame_ring import shrink
from sam2lite_ros.tracker.prompts import stamp_nanoseconds

PARTS = ("receive_ms", "queue_ms", "preprocess_ms", "inference_ms", "publish_ms", "age_ms")
"""Fields of TrackerStatus that are summed up."""

SHEET_PICTURES = 12
SHEET_SHORT_SIDE = 270
"""Short side of a picture on the contact sheet, pixels."""


def write_report(settings: DemoSettings, recording: Recording, work: Path, out: Path) -> dict[str, Any]:
    """Write the demo's output from the masks, named by stamp; return the content of result.json, which comes last.

    Args:
        settings: of the run.
        recording: the messages seen.
        work: folder with the player's list and, of a camera, its frames.
        out: folder to write into; its `masks` holds the recorded masks.

    Raises:
        SourceError: a file cannot be read or written.
    """
    names = _name_masks(recording, out / "masks")
    write_atomically(out / "frames.csv", frames_table(recording).encode())
    score = _score(settings, recording, names, out / "masks")
    _draw(settings, recording, names, work, out)
    last = recording.statuses[-1] if recording.statuses else TrackerStatus()
    result = {
        "source": settings.source or "rendered clip",
        "size": {"height": settings.size[0], "width": settings.size[1]},
        "rate_hz": settings.fps,
        "prompt": settings.prompt.described,
        "object_ids": list(settings.prompt.object_ids),
        "frames": {
            "sent": len(recording.sent),
            "received": int(last.frames_received),
            "processed": int(last.frames_processed),
            "dropped": int(last.frames_dropped),
            "deadlines_missed": int(last.deadlines_missed),
            "masks_recorded": len(names),
        },
        "latency_ms": latencies(recording),
        "freshness": freshness(recording),
        "deadline_ms": settings.deadline_ms,
        **_scale_and_memory(recording.statuses),
        "score": score,
        "variant": settings.request.variant,
        "model": "shipped" if settings.request.model is None else str(settings.request.model),
        "machine": {
            **describe_machine(),
            "sam2lite": sam2lite_core.__version__,
            "ros": os.environ.get("ROS_DISTRO", "wheels"),
        },
    }
    write_atomically(out / RESULT_FILE, (json.dumps(result, indent=2) + "\n").encode())
    return result


def _name_masks(recording: Recording, folder: Path) -> list[str]:
    """Give each mask the name of its source frame; return the names in order."""
    sent = {entry["stamp_ns"]: entry["name"] for entry in recording.sent}
    stamps = sorted(set(recording.masks))
    for stamp in stamps:
        if stamp not in sent:
            raise SourceError(f"a mask carries stamp {stamp} ns, which the player never sent")
        (folder / f"{stamp}.png").rename(folder / f"{sent[stamp]}.png")
    return [sent[stamp] for stamp in stamps]


def _score(settings: DemoSettings, recording: Recording, names: list[str], folder: Path) -> dict[str, Any] | None:
    """Score the processed frames by the DAVIS protocol: all but the first and the last of those sent."""
    if settings.truth is None:
        return None
    ends = {recording.sent[0]["name"], recording.sent[-1]["name"]}
    found = ((name, settings.true_label_map(name)) for name in names if name not in ends)
    truths = {name: truth for name, truth in found if truth is not None}
    entry: dict[str, Any] = {
        "protocol": "DAVIS: first and last frame left out; frames that were processed",
        "frames_scored": len(truths),
    }
    if not truths:
        return {**entry, "j": None, "f": None, "jf": None}
    scorer = SequenceScorer(settings.prompt.object_ids)
    # The scorer leaves out its first and last frame: here, stand-ins for the sequence's own ends.
    blank: LabelMap = np.zeros(settings.size, np.uint8)
    scorer.add(blank, blank)
    for name, truth in truths.items():
        scorer.add(read_label_map(folder / f"{name}.png", keep_ids=True), truth)
    scorer.add(blank, blank)
    scores = scorer.result()
    return {
        **entry,
        "j": scores.j.mean,
        "f": scores.f.mean,
        "jf": scores.jf,
        "j_detail": asdict(scores.j),
        "f_detail": asdict(scores.f),
        "objects": [
            {"object_id": one.object_id, "j": one.j.mean, "f": one.f.mean, "jf": one.jf} for one in scores.objects
        ],
    }


def _frames(settings: DemoSettings, recording: Recording, work: Path) -> Iterator[Frame]:
    """Yield the frames that were sent."""
    if is_camera(settings.source):
        for entry in recording.sent:
            image = read_image(work / f"{entry['name']}.jpg")
            yield Frame(image, entry["stamp_ns"] / 1e9, entry["index"], entry["name"])
        return
    limit = len(recording.sent)
    if not settings.source:
        yield from RenderedSource(limit)
        return
    with open_source(settings.source, limit=limit, topic=settings.request.topic) as source:
        yield from source


def _draw(settings: DemoSettings, recording: Recording, names: list[str], work: Path, out: Path) -> None:
    """Write the overlay video and the contact sheet, of the frames that were processed."""
    chosen = {names[round(i)] for i in np.linspace(0, len(names) - 1, min(SHEET_PICTURES, len(names)))}
    pictures: dict[str, NDArray[np.uint8]] = {}
    # At this rate the video lasts as long as the stream did.
    fps = max(1.0, settings.fps * len(names) / len(recording.sent))
    with VideoWriter(out / "overlay.mp4", fps) as writer:
        for frame in _frames(settings, recording, work):
            if frame.name not in names:
                continue
            labels = read_label_map(out / "masks" / f"{frame.name}.png", keep_ids=True)
            picture = draw_overlay(frame.image, labels)
            writer.write(picture)
            if frame.name in chosen:
                pictures[frame.name] = shrink(picture, SHEET_SHORT_SIDE)
    sheet = contact_sheet(list(pictures.values()), captions=list(pictures))
    _, data = cv2.imencode(".png", cv2.cvtColor(sheet, cv2.COLOR_RGB2BGR))
    write_atomically(out / "contact_sheet.png", data.tobytes())


def _scale_and_memory(statuses: Sequence[TrackerStatus]) -> dict[str, dict[str, float]]:
    if not statuses:
        return {"scale": {}, "memory": {}}
    scales = [float(status.scale) for status in statuses]
    tokens = max(int(status.memory_tokens) for status in statuses)
    return {
        "scale": {"min": min(scales), "mean": float(np.mean(scales)), "max": max(scales)},
        "memory": {"tokens_max": tokens, "budget": int(statuses[-1].memory_budget)},
    }


def latencies(recording: Recording) -> dict[str, dict[str, float]]:
    """Sum up each part of the tracker's time over the processed frames: p50, p95, max in milliseconds."""
    if not recording.statuses:
        return {}
    summary = {}
    for part in PARTS:
        p50, p95, longest = np.percentile([getattr(status, part) for status in recording.statuses], [50, 95, 100])
        summary[part.removesuffix("_ms")] = {"p50": float(p50), "p95": float(p95), "max": float(longest)}
    return summary


def freshness(recording: Recording) -> dict[str, float]:
    """Compare the waits of frames, from stamp to step, with the stream's period.

    The period is the time to the next frame's stamp, or the median of those times where that is longer (a player that
    catches up). The first frame is left out, since the demo pauses after it; so is the last, which has no successor.

    Returns:
        `frames` counted (those processed), the longest wait and the median period in milliseconds, `overdue` frames
        that waited for longer than their period, and by how much at most; `last_wait_ms` of the last frame.
    """
    waits = {
        stamp_nanoseconds(status.header.stamp): float(status.receive_ms) + float(status.queue_ms)
        for status in recording.statuses
    }
    stamps = [entry["stamp_ns"] for entry in recording.sent]
    gaps = [(following - stamp) / 1e6 for stamp, following in pairwise(stamps[1:])]
    if not gaps:
        return {}
    period = float(np.median(gaps))
    counted = [
        (waits[stamp], max(gap, period)) for stamp, gap in zip(stamps[1:-1], gaps, strict=True) if stamp in waits
    ]
    if not counted:
        return {}
    over = [wait - allowed for wait, allowed in counted]
    return {
        "frames": len(counted),
        "wait_max_ms": max(wait for wait, _ in counted),
        "period_ms": period,
        "overdue": sum(1 for one in over if one > 0),
        "overdue_max_ms": max(0.0, max(over)),
        "last_wait_ms": waits.get(stamps[-1], 0.0),
    }


def frames_table(recording: Recording) -> str:
    """Write a CSV with one row for each frame that was sent, in order.

    `period_ms` is the time to the next frame's stamp. The columns from `receive_ms` on come from the frame's
    TrackerStatus, and are empty for a frame that was not processed.
    """
    statuses = {stamp_nanoseconds(status.header.stamp): status for status in recording.statuses}
    columns = (*PARTS, "scale", "window", "memory_tokens")
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["index", "name", "stamp_ns", "period_ms", "processed", *columns])
    stamps = [entry["stamp_ns"] for entry in recording.sent]
    for entry, following in zip(recording.sent, [*stamps[1:], None], strict=True):
        status = statuses.get(entry["stamp_ns"])
        period = "" if following is None else f"{(following - entry['stamp_ns']) / 1e6:.3f}"
        values = [""] * len(columns) if status is None else [f"{getattr(status, c):.5g}" for c in columns]
        writer.writerow([entry["index"], entry["name"], entry["stamp_ns"], period, int(status is not None), *values])
    return text.getvalue()


def result_table(result: dict[str, Any]) -> Table:
    """Lay out the most important figures for a terminal."""
    table = Table(title=f"{result['source']} at {result['rate_hz']:g} Hz", show_header=False)
    frames, score = result["frames"], result["score"]
    shown = ("sent", "received", "processed", "dropped")
    table.add_row("frames", ", ".join(f"{frames[name]} {name}" for name in shown))
    for part, values in result["latency_ms"].items():
        table.add_row(f"{part} (ms)", f"p50 {values['p50']:.1f}   p95 {values['p95']:.1f}   max {values['max']:.1f}")
    if fresh := result["freshness"]:
        overdue = f"{fresh['overdue']} of {fresh['frames']} longer than the period"
        table.add_row("wait (ms)", f"max {fresh['wait_max_ms']:.1f}; {overdue}")
    if result["deadline_ms"]:
        missed = f"{frames['deadlines_missed']} of {frames['processed']} missed"
        table.add_row("deadline", f"{result['deadline_ms']:.1f} ms, {missed}")
    if result["scale"]:
        table.add_row("scale", "min {min:.1f}   mean {mean:.2f}   max {max:.1f}".format(**result["scale"]))
    if score is not None and score["jf"] is not None:
        jf, j, f = (100 * score[name] for name in ("jf", "j", "f"))
        table.add_row("J&F", f"{jf:.1f}   (J {j:.1f}, F {f:.1f}, {score['frames_scored']} frames)")
    elif score is not None:
        table.add_row("J&F", "no processed frame with a truth between the first and the last")
    return table
