"""Whole videos: reading them, following objects through them, and writing what was seen.

`open_source` and the label map functions are defined in modules of their own and offered here, so that one
import serves.
"""

import contextlib
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

from sam2lite_core.errors import InvalidPromptError, SourceError
from sam2lite_core.files import output_folder, partial_name, write_atomically
from sam2lite_core.frame_sources import NOMINAL_FPS, FrameSource, open_source, read_image
from sam2lite_core.label_map import read_label_map, write_label_map
from sam2lite_core.types import Frame, Prompt, TrackResult
from sam2lite_core.visualization import draw_overlay, fit_image

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


class VideoWriter:
    """Writes an MP4 file; it appears under its name only once it is complete.

    MPEG-4 part 2 is the codec that every OpenCV wheel can encode. It drops the last row or column of odd
    sizes.
    """

    def __init__(self, path: str | Path, fps: float | None = None) -> None:
        """Prepare the file; it is opened with the first frame, whose size becomes the video's.

        Args:
            path: the `.mp4` file to write.
            fps: frames per second; 30 when None.

        Raises:
            SourceError: another suffix, or a folder that does not exist.
        """
        self._path = Path(path)
        if self._path.suffix.lower() != ".mp4":
            raise SourceError(f"{path}: videos are written as .mp4")
        if not self._path.parent.is_dir():
            raise SourceError(f"{path}: the folder {self._path.parent} does not exist")
        self._fps = fps or NOMINAL_FPS
        self._partial = partial_name(self._path)
        self._size = (0, 0)
        self._writer: cv2.VideoWriter | None = None

    def write(self, image: NDArray[np.uint8]) -> None:
        """Append a frame; one of another size is fitted into the first one's, proportions kept.

        Args:
            image: (H, W, 3) uint8 RGB.

        Raises:
            SourceError: the encoder does not open.
        """
        if self._writer is None:
            self._size = image.shape[0], image.shape[1]
            fourcc = cv2.VideoWriter.fourcc(*"mp4v")
            self._writer = cv2.VideoWriter(str(self._partial), fourcc, self._fps, self._size[::-1])
            if not self._writer.isOpened():
                self.discard()
                raise SourceError(
                    f"{self._path}: no MP4 video of {self._size[1]}x{self._size[0]} can be written here"
                )
        self._writer.write(cv2.cvtColor(fit_image(image, *self._size), cv2.COLOR_RGB2BGR))

    def close(self) -> None:
        """Finish the file and give it its name.

        Raises:
            SourceError: no frame was written, or the file could not be finished.
        """
        if self._writer is None:
            raise SourceError(f"{self._path}: no frame was written")
        self._writer.release()
        self._writer = None
        try:
            self._partial.replace(self._path)
        except OSError as error:
            raise SourceError(f"{self._path}: cannot be written: {error.strerror}") from None

    def discard(self) -> None:
        """Drop what was written so far."""
        if self._writer is not None:
            self._writer.release()
            self._writer = None
        with contextlib.suppress(OSError):
            self._partial.unlink()

    def __enter__(self) -> "VideoWriter":
        """Return the writer."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Finish the file, or drop it when the block failed."""
        if kind is None:
            self.close()
        else:
            self.discard()


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
    """Follows objects through a whole video; the paper's quick start.

    ```python
    processor = VideoProcessor(Tracker.from_pretrained("small"))
    results = processor.process_video("video.mp4", [Prompt(object_id=1, box=(40, 60, 200, 220))])
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
        with open_source(source, limit=limit) as frames:
            if out is None:
                return tuple(result for _, result in track_video(self._tracker, frames, prompts))
            with output_folder(out, marker=TRACK_MARKER, overwrite=overwrite) as folder:
                recorder, results = TrackRecorder(folder, frames.fps), []
                try:
                    for frame, result in track_video(self._tracker, frames, prompts):
                        recorder.add(frame, result)
                        results.append(result)
                    recorder.finish({"source": str(source)})
                except BaseException:
                    recorder.discard()
                    raise
                return tuple(results)


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
