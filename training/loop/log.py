"""What a run says while it goes on: a progress bar, `log.jsonl`, TensorBoard, and throughput."""

import contextlib
import json
import sys
import time
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType

from torch.utils.tensorboard import SummaryWriter
from tqdm import tqdm

from sam2lite_core.errors import SourceError
from sam2lite_core.files import write_atomically

LOG = "log.jsonl"
RECENT = 50
"""Steps over which throughput is averaged."""

Row = dict[str, float]


class Journal:
    """Writes rows of numbers, one per step; does nothing on processes other than the main one."""

    def __init__(self, folder: Path, first_step: int, main: bool) -> None:
        """Open the log; rows from `first_step` on, of a run that goes on from an earlier checkpoint, are dropped.

        Raises:
            SourceError: the folder cannot be written.
        """
        self._main = main
        self._bar: tqdm[None] | None = None
        if not main:
            return
        path = folder / LOG
        if path.exists():
            rows = path.read_text().splitlines(keepends=True)
            kept = [row for row in rows if row.endswith("\n") and json.loads(row)["step"] <= first_step]
            write_atomically(path, "".join(kept).encode())
        self._path = path
        try:
            self._log = path.open("a", encoding="utf-8")
            self._board = SummaryWriter(str(folder / "tensorboard"), purge_step=first_step + 1)
        except OSError as error:
            raise SourceError(f"{path}: cannot be written: {error.strerror}") from None

    def __enter__(self) -> "Journal":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the files."""
        if not self._main:
            return
        self._end_bar()
        with contextlib.suppress(OSError):
            self._log.close()
            self._board.close()

    def begin_stage(self, title: str, total: int | None, done: int) -> None:
        """Start a progress bar; `total` is None where the clock ends the stage."""
        if self._main:
            self._end_bar()
            self.say(f"{title}: {total or 'as many as fit'} steps, {done} done")
            # Without a terminal a bar would fill a log file with its pictures.
            self._bar = tqdm(total=total, initial=done, desc=title, unit="step", disable=None)

    def record(self, row: Row, write: bool) -> None:
        """Move the bar, and write a row unless it is to be left out.

        Raises:
            SourceError: the disk is full.
        """
        if not self._main:
            return
        if self._bar is not None:
            self._bar.set_postfix(
                loss=f"{row['loss']:.3f}", rate=f"{row['rate']:.1e}", wait=f"{row['waiting']:.0%}"
            )
            self._bar.update()
        if not write:
            return
        try:
            self._log.write(json.dumps({name: float(f"{value:.9g}") for name, value in row.items()}) + "\n")
            self._log.flush()
            for name, value in row.items():
                if name not in ("step", "stage"):
                    self._board.add_scalar(_board_name(name), value, int(row["step"]))
        except OSError as error:
            raise SourceError(f"{self._path}: cannot be written: {error.strerror}") from None

    def say(self, text: str) -> None:
        """Print a line on stderr without tearing the bar."""
        if self._main:
            tqdm.write(text, file=sys.stderr)

    def _end_bar(self) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None


def _board_name(name: str) -> str:
    """Groups of TensorBoard: how fast, how, and what."""
    if name in ("clips_per_s", "waiting", "seconds"):
        return f"speed/{name}"
    return f"optimiser/{name}" if name in ("rate", "norm", "gate_norm") else f"loss/{name}"


class Throughput:
    """Clips per second and the share of time spent waiting for data, over recent steps and over all.

    Attributes:
        operations: of this process's matrix products and convolutions, as far as they were counted.
    """

    def __init__(self, matrix_rate: float = 0.0) -> None:
        """Start at nothing. matrix_rate: operations a second that the device reaches; 0 where not measured."""
        self._matrix_rate = matrix_rate
        self.operations = 0
        self._recent: deque[tuple[float, float, int]] = deque(maxlen=RECENT)
        self.seconds = self.waited = 0.0
        self.clips = self.steps = 0
        self._start = 0.0
        self._waiting = 0.0

    def begin(self) -> None:
        """A step begins."""
        self._start, self._waiting = time.perf_counter(), 0.0

    @contextlib.contextmanager
    def waiting(self) -> Iterator[None]:
        """Time inside counts as waiting for data."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self._waiting += time.perf_counter() - start

    def end(self, clips: int) -> Row:
        """A step of that many clips ended; returns seconds, clips_per_s and waiting, the latter two of late."""
        seconds = time.perf_counter() - self._start
        self._recent.append((seconds, self._waiting, clips))
        self.seconds += seconds
        self.waited += self._waiting
        self.clips += clips
        self.steps += 1
        total = sum(entry[0] for entry in self._recent)
        return {
            "seconds": seconds,
            "clips_per_s": sum(entry[2] for entry in self._recent) / total,
            "waiting": sum(entry[1] for entry in self._recent) / total,
        }

    def summary(self) -> str:
        """One line for the end of a run."""
        if not self.steps:
            return "no step was made"
        text = (
            f"{self.steps} steps, {self.clips / self.seconds:.2f} clips/s, "
            f"{100 * self.waited / self.seconds:.1f} % of the time waiting for data"
        )
        if self._matrix_rate:
            share = self.operations / self.seconds / self._matrix_rate
            text += (
                f", {100 * share:.1f} % of the card's matrix rate of {self._matrix_rate / 1e12:.0f} TFLOP/s"
            )
        return text
