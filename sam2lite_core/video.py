"""Follow objects through whole videos and record what was tracked."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from sam2lite_core.errors import InvalidPromptError, SourceError
from sam2lite_core.files import output_folder, write_atomically
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


class _Recorder:
    """Write what was tracked into a folder: `masks/NAME.png`, `overlay.mp4` and `track.json`."""

    def __init__(self, folder: Path, fps: float | None) -> None:
        """Start in an existing folder; the overlay video has 30 fps where None is given.

        Raises:
            SourceError: the folder cannot be written.
        """
        self._folder = folder
        self._records: list[dict[str, Any]] = []
        self.overlay = VideoWriter(folder / "overlay.mp4", fps)
        try:
            (folder / "masks").mkdir()
        except OSError as error:
            raise SourceError(f"{folder}: cannot be written: {error.strerror}") from None

    def add(self, frame: Frame, result: TrackResult) -> None:
        """Write one frame's mask and overlay, and note its record."""
        write_label_map(self._folder / "masks" / f"{frame.name}.png", result.label_map)
        self.overlay.write(draw_overlay(frame.image, result.label_map, result.objects))
        self._records.append(frame_record(frame, result))

    def finish(self, header: Mapping[str, Any] | None) -> dict[str, Any]:
        """Complete the video, write `track.json` and return its content, the header first."""
        self.overlay.close()
        document = {**(header or {}), "summary": summarise(self._records), "frames": self._records}
        write_atomically(self._folder / TRACK_MARKER, (json.dumps(document, indent=1) + "\n").encode())
        return document


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

        Every result holds a label map of the source's size: for videos too long for that, iterate over
        `track_video`.

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
    """Lead a tracker through a source and write masks, overlay and `track.json`; see `track_video`.

    A source without an end, such as a camera, is ended by an interrupt from the keyboard; what was tracked is kept.

    Args:
        tracker: it is reset first.
        frames: an open source.
        prompts: for the first frame, or by frame index.
        out: folder to write.
        overwrite: replace an earlier result in `out`.
        header: entries to put first in `track.json`.
        on_frame: called after every frame.

    Returns:
        What `track.json` holds.

    Raises:
        SourceError: the source cannot be read or the output not written; nothing is then left in `out`.
        InvalidPromptError: no prompt, or one that does not fit its frame.
    """
    with output_folder(out, marker=TRACK_MARKER, overwrite=overwrite) as folder:
        recorder = _Recorder(folder, frames.fps)
        try:
            for frame, result in track_video(tracker, frames, prompts):
                recorder.add(frame, result)
                if on_frame is not None:
                    on_frame(frame, result)
        except KeyboardInterrupt:
            if frames.length is not None:
                recorder.overlay.discard()
                raise
        except BaseException:
            recorder.overlay.discard()
            raise
        return recorder.finish(header)


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
    """Return mean and percentiles of the step time over records of `track.json`, and the fps of the mean.

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
