"""Detect a step that does not end."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from time import monotonic

from sam2lite_core.errors import BackendError

STALL_S = 5.0
"""Seconds after which a running step counts as hanging; the slowest measured, on two cores, take one or two."""


class Watchdog:
    """Watchdog over the inference thread's steps, for any other thread.

    Python cannot end a thread that hangs in a runtime. The step is reported, and its result discarded once given up.
    """

    def __init__(self, clock: Callable[[], float] = monotonic) -> None:
        """Watch nothing yet; `clock` tells monotonic seconds."""
        self._clock = clock
        self._lock = threading.Lock()
        self._started: float | None = None
        self._given_up = False

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Watch a step, which is the block.

        Raises:
            BackendError: this step, or one before it, was given up.
        """
        with self._lock:
            self._check()
            self._started = self._clock()
        try:
            yield
        finally:
            with self._lock:
                self._started = None
        self._check()

    def _check(self) -> None:
        if self._given_up:
            raise BackendError("the step ended after the tracker had given it up; its result is not used")

    @property
    def stalled_s(self) -> float:
        """Seconds since the hanging step began; 0 when no step hangs."""
        started = self._started
        running_s = 0.0 if started is None else self._clock() - started
        return running_s if running_s > STALL_S else 0.0

    def hang(self) -> BackendError | None:
        """Return the error for callers who wait for the inference thread; None unless its step hangs."""
        stalled_s = self.stalled_s
        if not stalled_s:
            return None
        return BackendError(
            f"the backend hangs: its step has taken {stalled_s:.1f} s so far; ask again once it has ended, or "
            "deactivate the tracker and configure it anew"
        )

    def give_up(self) -> bool:
        """Discard the result of a hanging step; return True if there is one."""
        with self._lock:
            self._given_up = self._given_up or self.stalled_s > 0.0
            return self._given_up
