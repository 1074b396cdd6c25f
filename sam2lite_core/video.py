"""Follow objects through whole videos and record what was tracked."""

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from sam2lite_core.errors import InvalidPromptError
from sam2lite_core.files import output_folder, write_json
from sam2lite_core.media.label_map import write_label_map
from sam2lite_core.media.open import open_source
from sam2lite_core.media.overlay import draw_overlay
from sam2lite_core.media.source import FrameSource
from sam2lite_core.media.video_writer import VideoWriter
from sam2lite_core.types import Frame, Prompt, TrackResult

TRACK_MARKER = "track.json"
"""The file that a complete tracking result holds; it is written last."""

VideoPrompts = Sequence[Prompt] | Mapping[int, Sequence[Prompt]]
"""Prompts for the first frame, or by frame index."""


class VideoTracker(Protocol):
    """Tracker of frames in their order, as `sam2lite_core.tracker.Tracker` is."""

    def step(self, image: NDArray[np.uint8], prompts: Sequence[Prompt] = ()) -> TrackResult:
        """Follow the objects into the next frame."""

    def reset(self) -> None:
        """Forget every object and frame."""


class VideoProcessor:
    """Follow objects through a whole video; the paper's quick start.

    ```python
    processor = VideoProcessor(Tracker.from_pretrained("tiny"))
    prompt = Prompt(object_id=1, box=np.array([40, 60, 200, 220], np.float32))
    results = processor.process_video("video.mp4", [prompt], out="tracked")
    ```
    """

    def __init__(self, tracker: VideoTracker) -> None:
        """Use a tracker; it is reset when a video starts."""
        self._tracker = tracker

    def process_video(
        self,
        source: str | Path | int,
        prompts: VideoPrompts,
        out: str | Path | None = None,
        *,
        overwrite: bool = False,
        limit: int | None = None,
    ) -> tuple[TrackResult, ...]:
        """Follow the prompted objects from the first frame to the last.

        Every result holds a label map of the source's size; iterate over `track_video` for long videos.

        Args:
            source: a folder of images, a video file, or a camera index with a `limit`.
            prompts: for the first frame, or by frame index.
            out: folder for masks, overlay and `track.json`; nothing is written when None.
            overwrite: replace an earlier result in `out`.
            limit: stop after that many frames.

        Returns:
            One result per frame.

        Raises:
            SourceError: the source cannot be read or the output not written; nothing is then left in `out`.
            InvalidPromptError: no prompt, or one that does not fit its frame.
        """
        results: list[TrackResult] = []
        with open_source(source, limit=limit) as frames:
            if out is None:
                results.extend(result for _, result in track_video(self._tracker, frames, prompts))
            else:
                record_video(
                    self._tracker,
                    frames,
                    prompts,
                    out,
                    overwrite=overwrite,
                    header={"source": str(source)},
                    on_frame=lambda _, result: results.append(result),
                )
        return tuple(results)


def record_video(
    tracker: VideoTracker,
    frames: FrameSource,
    prompts: VideoPrompts,
    out: str | Path,
    *,
    overwrite: bool = False,
    header: Mapping[str, Any] | None = None,
    on_frame: Callable[[Frame, TrackResult], None] | None = None,
) -> dict[str, Any]:
    """Lead a tracker through an open source, as `track_video` does, and write masks, overlay and `track.json`.

    An interrupt from the keyboard ends a source without an end, such as a camera; its results are kept.

    Args:
        overwrite: replace an earlier result in the folder `out`.
        header: entries to put first in `track.json`.
        on_frame: called after every frame.

    Returns:
        The content of `track.json`.

    Raises:
        SourceError: the source cannot be read or the output not written; nothing is then left in `out`.
        InvalidPromptError: no prompt, or one that does not fit its frame.
    """
    with output_folder(out, marker=TRACK_MARKER, overwrite=overwrite) as folder:
        records: list[dict[str, Any]] = []
        kept = (KeyboardInterrupt,) if frames.length is None else ()
        (folder / "masks").mkdir()
        with VideoWriter(folder / "overlay.mp4", frames.fps) as overlay, contextlib.suppress(*kept):
            for frame, result in track_video(tracker, frames, prompts):
                write_label_map(folder / "masks" / f"{frame.name}.png", result.label_map)
                overlay.write(draw_overlay(frame.image, result.label_map, result.objects))
                records.append(frame_record(frame, result))
                if on_frame is not None:
                    on_frame(frame, result)
        document = {**(header or {}), "summary": summarise(records), "frames": records}
        write_json(folder / TRACK_MARKER, document)
        return document


def track_video(
    tracker: VideoTracker, frames: FrameSource, prompts: VideoPrompts
) -> Iterator[tuple[Frame, TrackResult]]:
    """Reset a tracker and lead it through a source, one frame at a time.

    Yields:
        Each frame with its result.

    Raises:
        SourceError: a frame cannot be read.
        InvalidPromptError: no prompt, one that does not fit its frame, or one for a frame that the source
            does not reach.
    """
    schedule = dict(prompts) if isinstance(prompts, Mapping) else {0: prompts}
    if not any(schedule.values()):
        raise InvalidPromptError("no prompt: show at least one object by points, a box or a mask")
    if min(schedule) < 0:
        raise InvalidPromptError(f"prompts for frame {min(schedule)}; frames count from 0")
    tracker.reset()
    for frame in frames:
        yield frame, tracker.step(frame.image, schedule.pop(frame.index, ()))
    if schedule:
        raise InvalidPromptError(f"prompts for frame {min(schedule)}, but the source ended before it")


def frame_record(frame: Frame, result: TrackResult) -> dict[str, Any]:
    """Return one frame's entry of `track.json`: plain numbers and strings, times in ms."""
    parts = {name.removesuffix("_ms"): time for name, time in vars(result.timings).items()}
    return {
        "index": frame.index,
        "name": frame.name,
        "stamp": round(frame.stamp, 6),
        "scale": result.scale,
        "window": result.window,
        "memory_tokens_used": result.memory_tokens_used,
        "timings_ms": {**parts, "total": result.timings.total_ms},
        "objects": [
            {**vars(entry), "state": entry.state.name, "box": list(entry.box), "centroid": list(entry.centroid)}
            for entry in result.objects
        ],
    }


def summarise(records: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return mean and percentiles of the step time over records of `frame_record`, and the fps of the mean.

    There must be a record; fps is None when no time was measured.
    """
    totals = np.array([record["timings_ms"]["total"] for record in records], np.float64)
    mean = float(totals.mean())
    return {
        "frames": len(records),
        "mean_ms": mean,
        "p50_ms": float(np.percentile(totals, 50)),
        "p95_ms": float(np.percentile(totals, 95)),
        "max_ms": float(totals.max()),
        "fps": 1000 / mean if mean > 0 else None,
    }
