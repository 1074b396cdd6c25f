"""Whole videos: reading them, following objects through them, and writing what was seen.

`open_source` and the label map functions are defined in modules of their own and offered here, so that one
import serves.
"""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from sam2lite_core.errors import InvalidPromptError, SourceError
from sam2lite_core.files import output_folder, write_atomically
from sam2lite_core.media.label_map import read_label_map, write_label_map
from sam2lite_core.media.open import open_source
from sam2lite_core.media.overlay import draw_overlay
from sam2lite_core.media.pictures import read_image
from sam2lite_core.media.source import FrameSource
from sam2lite_core.media.video_writer import VideoWriter
from sam2lite_core.types import Frame, Prompt, TrackResult

__all__ = [
    "TRACK_MARKER",
    "FrameSource",
    "TrackRecorder",
    "VideoProcessor",
    "VideoTracker",
    "VideoWriter",
    "open_source",
    "read_image",
    "read_label_map",
    "record_video",
    "summarise",
    "track_video",
    "write_atomically",
    "write_label_map",
]

TRACK_MARKER = "track.json"
"""The file that a complete tracking result holds; it is written last."""


class VideoTracker(Protocol):
    """What a tracker must offer to be led through a video; `sam2lite_core.tracker.Tracker` does."""

    def step(self, image: NDArray[np.uint8], prompts: Sequence[Prompt] = ()) -> TrackResult:
        """Follow the objects into the next frame."""

    def reset(self) -> None:
        """Forget every object and frame."""


class TrackRecorder:
    """Writes what was tracked into a folder: `masks/NAME.png`, `overlay.mp4` and `track.json`."""

    def __init__(self, folder: Path, fps: float | None = None) -> None:
        """Start recording into an existing folder.

        Args:
            folder: where to write.
            fps: of the overlay video; 30 when None.

        Raises:
            SourceError: the folder cannot be written.
        """
        self._folder = folder
        self._records: list[dict[str, Any]] = []
        self._overlay = VideoWriter(folder / "overlay.mp4", fps)
        try:
            (folder / "masks").mkdir()
        except OSError as error:
            raise SourceError(f"{folder}: cannot be written: {error.strerror}") from None

    def add(self, frame: Frame, result: TrackResult) -> None:
        """Write one frame's mask and overlay, and note its record.

        Raises:
            SourceError: a file cannot be written.
        """
        write_label_map(self._folder / "masks" / f"{frame.name}.png", result.label_map)
        self._overlay.write(draw_overlay(frame.image, result.label_map, result.objects))
        self._records.append(frame_record(frame, result))

    def finish(self, header: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Complete the video and write `track.json`.

        Args:
            header: what else the file is to say, put first.

        Returns:
            What `track.json` holds.

        Raises:
            SourceError: no frame was added, or a file cannot be written.
        """
        self._overlay.close()
        document = {**(header or {}), "summary": summarise(self._records), "frames": self._records}
        write_atomically(self._folder / TRACK_MARKER, (json.dumps(document, indent=1) + "\n").encode())
        return document

    def discard(self) -> None:
        """Close the video without keeping it."""
        self._overlay.discard()


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
        prompts: Sequence[Prompt] | Mapping[int, Sequence[Prompt]],
        out: str | Path | None = None,
        *,
        overwrite: bool = False,
        limit: int | None = None,
    ) -> tuple[TrackResult, ...]:
        """Follow the prompted objects from the first frame to the last.

        Every result holds a label map of the source's size: for videos too long for that, iterate over
        `track_video`.

        Args:
            source: a folder of images, a video file, or a camera index with a `limit`.
            prompts: for the first frame, or a mapping from frame index to the prompts of that frame.
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
    prompts: Sequence[Prompt] | Mapping[int, Sequence[Prompt]],
    out: str | Path,
    *,
    overwrite: bool = False,
    header: Mapping[str, Any] | None = None,
    on_frame: Callable[[Frame, TrackResult], None] | None = None,
) -> dict[str, Any]:
    """Lead a tracker through a source and write masks, overlay and `track.json`; see `track_video`.

    A source without an end, such as a camera, is ended by an interrupt from the keyboard; what was tracked is
    kept.

    Args:
        tracker: the tracker; it is reset first.
        frames: an open source.
        prompts: for the first frame, or a mapping from frame index to the prompts of that frame.
        out: the folder to write.
        overwrite: replace an earlier result in `out`.
        header: what else `track.json` is to say, put first.
        on_frame: told of every frame.

    Returns:
        What `track.json` holds.

    Raises:
        SourceError: the source cannot be read or the output not written; nothing is then left in `out`.
        InvalidPromptError: no prompt, or one that does not fit its frame.
    """
    with output_folder(out, marker=TRACK_MARKER, overwrite=overwrite) as folder:
        recorder = TrackRecorder(folder, frames.fps)
        try:
            for frame, result in track_video(tracker, frames, prompts):
                recorder.add(frame, result)
                if on_frame is not None:
                    on_frame(frame, result)
        except KeyboardInterrupt:
            if frames.length is not None:
                recorder.discard()
                raise
        except BaseException:
            recorder.discard()
            raise
        return recorder.finish(header)


def track_video(
    tracker: VideoTracker, frames: FrameSource, prompts: Sequence[Prompt] | Mapping[int, Sequence[Prompt]]
) -> Iterator[tuple[Frame, TrackResult]]:
    """Reset a tracker and lead it through a source, one frame at a time.

    Args:
        tracker: the tracker.
        frames: an open source.
        prompts: for the first frame, or a mapping from frame index to the prompts of that frame.

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
    """One frame's entry of `track.json`: plain numbers and strings, times in ms."""
    timings = result.timings
    return {
        "index": frame.index,
        "name": frame.name,
        "stamp": round(frame.stamp, 6),
        "scale": result.scale,
        "window": result.window,
        "memory_tokens_used": result.memory_tokens_used,
        "timings_ms": {
            "preprocess": timings.preprocess_ms,
            "motion": timings.motion_ms,
            "inference": timings.inference_ms,
            "postprocess": timings.postprocess_ms,
            "total": timings.total_ms,
        },
        "objects": [
            {
                "object_id": entry.object_id,
                "state": entry.state.name,
                "score": entry.score,
                "box": list(entry.box),
                "area": entry.area,
                "centroid": list(entry.centroid),
            }
            for entry in result.objects
        ],
    }


def summarise(records: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Percentiles of the step time over the records of `track.json`, and the rate that follows from the mean.

    Args:
        records: as made by `frame_record`; at least one.

    Returns:
        frames, mean_ms, p50_ms, p95_ms, max_ms, fps (None when no time was measured).
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
