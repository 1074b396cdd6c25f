"""Report a run while it goes on: progress, `log.jsonl`, TensorBoard, and throughput."""

import contextlib
import json
import sys
import time
from collections import deque
from collections.abc import Iterator
from pathlib import Path

from torch.utils.tensorboard import SummaryWriter
from tqdm import tqdm

from sam2lite_core.errors import SourceError
from sam2lite_core.files import write_atomically

LOG = "log.jsonl"
RECENT = 50
"""Steps over which throughput is averaged."""

SAY_EVERY = 60.0
"""Seconds between two lines of progress without a terminal."""

CURVES = {
    **dict.fromkeys(("clips_per_s", "waiting", "seconds"), "speed"),
    **dict.fromkeys(("learning_rate", "grad_norm", "gate_grad_norm"), "optimiser"),
}
"""Groups of TensorBoard's curves; all others are losses."""

Row = dict[str, float]


class TrainingLog:
    """Log of numbers, one row a step; does nothing on processes other than the main one."""

    def __init__(self, folder: Path, first_step: int, main: bool) -> None:
        """Open the log; rows after `first_step`, where a resumed run begins, are dropped.

        Raises:
            SourceError: the folder cannot be written.
        """
        self._main = main
        self._bar: tqdm[None] | None = None
        self._said = time.monotonic()
        if not main:
            return
        self._path = folder / LOG
        if self._path.exists():
            rows = self._path.read_text().splitlines(keepends=True)
            kept = [row for row in rows if row.endswith("\n") and json.loads(row)["step"] <= first_step]
            write_atomically(self._path, "".join(kept).encode())
        with self._writing():
            self._log = self._path.open("a", encoding="utf-8")
            self._board = SummaryWriter(str(folder / "tensorboard"), purge_step=first_step + 1)

    def __enter__(self) -> "TrainingLog":
        return self

    def __exit__(self, *_: object) -> None:
        """Close the files."""
        if self._main:
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
            self._title, self._total, self._done = title, total, done

    def record(self, row: Row, write: bool) -> None:
        """Show progress, and write a row unless it is to be left out.

        Raises:
            SourceError: the disk is full.
        """
        if not self._main:
            return
        self._show(row)
        if not write:
            return
        with self._writing():
            self._log.write(json.dumps({name: float(f"{value:.9g}") for name, value in row.items()}) + "\n")
            self._log.flush()
            for name, value in row.items():
                if name not in ("step", "stage"):
                    self._board.add_scalar(f"{CURVES.get(name, 'loss')}/{name}", value, int(row["step"]))

    def _show(self, row: Row) -> None:
        """Move the bar; without a terminal, print a line every minute."""
        if self._bar is None:
            return
        formats = {"loss": ".3f", "learning_rate": ".1e", "waiting": ".0%"}
        shown = {name: format(row[name], form) for name, form in formats.items()}
        self._done += 1
        self._bar.set_postfix(shown)
        self._bar.update()
        if self._bar.disable and time.monotonic() - self._said >= SAY_EVERY:
            of = "" if self._total is None else f" of {self._total}"
            figures = ", ".join(f"{name} {value}" for name, value in shown.items())
            self.say(f"{self._title}: step {self._done}{of}, {figures}, {row['clips_per_s']:.2f} clips/s")

    def say(self, text: str) -> None:
        """Print a line on stderr without tearing the bar."""
        if self._main:
            tqdm.write(text, file=sys.stderr)
            sys.stderr.flush()
            self._said = time.monotonic()

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise SourceError(f"{self._path}: cannot be written: {error.strerror}") from None

    def _end_bar(self) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None


class Throughput:
    """Clips per second and the share of time spent waiting for data; `operations` counts this process's."""

    def __init__(self, matrix_rate: float = 0.0) -> None:
        """Start at zero. matrix_rate: operations a second that the device reaches; 0 where not measured."""
        self._matrix_rate = matrix_rate
        self.operations = 0
        self._recent: deque[tuple[float, float, int]] = deque(maxlen=RECENT)
        self._seconds = self._waited = 0.0
        self._clips = self._steps = 0
        self._start = self._waiting = 0.0

    def begin(self) -> None:
        """Start the clock of a step."""
        self._start, self._waiting = time.perf_counter(), 0.0

    @contextlib.contextmanager
    def waiting(self) -> Iterator[None]:
        """Count the time inside as waiting for data."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self._waiting += time.perf_counter() - start

    def end(self, clips: int) -> Row:
        """End a step; return its seconds, and clips_per_s and waiting over the recent steps."""
        seconds = time.perf_counter() - self._start
        self._recent.append((seconds, self._waiting, clips))
        self._seconds += seconds
        self._waited += self._waiting
        self._clips += clips
        self._steps += 1
        total, waiting, recent_clips = (sum(part) for part in zip(*self._recent, strict=True))
        return {"seconds": seconds, "clips_per_s": recent_clips / total, "waiting": waiting / total}

    def summary(self) -> str:
        """Summarise a run in one line."""
        if not self._steps:
            return "no step was made"
        text = (
            f"{self._steps} steps, {self._clips / self._seconds:.2f} clips/s, "
            f"{100 * self._waited / self._seconds:.1f} % of the time waiting for data"
        )
        if self._matrix_rate:
            share = 100 * self.operations / self._seconds / self._matrix_rate
            text += f", {share:.1f} % of the card's matrix rate of {self._matrix_rate / 1e12:.0f} TFLOP/s"
        return text
