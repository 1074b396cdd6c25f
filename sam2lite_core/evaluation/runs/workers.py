"""Run sequences in processes, each of which builds one tracker and takes one sequence after the other."""

import contextlib
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from functools import lru_cache
from multiprocessing.synchronize import Event
from typing import Any, Protocol

from sam2lite_core.errors import BackendError
from sam2lite_core.evaluation.results import SequenceResult
from sam2lite_core.video import VideoTracker

PARENT_CHECK_S = 1.0


class TrackerFactory(Protocol):
    """Builds a tracker; hashable and picklable, so that every process builds its own."""

    def __hash__(self) -> int: ...

    def build(self) -> VideoTracker:
        """Load the model."""

    def describe(self) -> dict[str, Any]:
        """Describe the tracker in plain JSON."""


Follow = Callable[[VideoTracker, str], SequenceResult]
"""Follows and scores the sequence of a name; picklable."""


def run_sequences(
    follow: Follow, names: Sequence[str], options: TrackerFactory, workers: int = 1
) -> Iterator[SequenceResult]:
    """Follow sequences by name in this process or several; yield results as they come.

    Raises:
        Sam2LiteError: the error of the first sequence that failed; the others are given up.
        BackendError: a process ended without an error.
    """
    if not names:
        return
    if workers == 1 or len(names) == 1:
        tracker = options.build()
        for name in names:
            yield follow(tracker, name)
        return
    # Started fresh: a fork would copy locks that the threads of OpenCV and ONNX Runtime may hold.
    context = multiprocessing.get_context("spawn")
    stop = context.Event()
    pool = ProcessPoolExecutor(min(workers, len(names)), context, _watch, (stop,))
    try:
        with _without_interrupts():
            pending = [pool.submit(_run, follow, name, options) for name in names]
        for future in as_completed(pending):
            yield future.result()
    except BrokenProcessPool:
        raise BackendError(
            "a worker process was ended from outside, perhaps for want of memory; use fewer workers"
        ) from None
    except BaseException:
        stop.set()
        raise
    finally:
        pool.shutdown(cancel_futures=True)


@contextlib.contextmanager
def _without_interrupts() -> Iterator[None]:
    """Start processes that ignore Ctrl-C, which a terminal sends to all of them: this one tells them to end."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _run(follow: Follow, name: str, options: TrackerFactory) -> SequenceResult:
    """Follow one sequence in a worker process."""
    return follow(_tracker(options), name)


@lru_cache(maxsize=1)
def _tracker(options: TrackerFactory) -> VideoTracker:
    """Return this worker's tracker."""
    return options.build()


def _watch(stop: Event) -> None:
    """Make a worker end when it is told to, or when its parent is gone."""

    def wait() -> None:
        parent = multiprocessing.parent_process()
        while not stop.wait(PARENT_CHECK_S):
            if parent is not None and not parent.is_alive():
                break
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()
