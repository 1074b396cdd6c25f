"""Notice a step that does not end."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from time import monotonic

from sam2lite_core.errors import BackendError

STALL_S = 5.0
"""Seconds after which a running step counts as hanging; the slowest that we measured, on two cores, take one or two."""


class Watchdog:
    """Watchdog over the inference thread's steps, for any other thread.

    Python cannot end a thread that hangs in a runtime. It can report it, and discard the result of a step that was
    given up, should it end after all.
    """

    def __init__(self, clock: Callable[[], float] = monotonic) -> None:
        """Watch nothing yet.

        Args:
            clock: seconds that never go back.
        """
        self._clock = clock
        self._lock = threading.Lock()
        self._started: float | None = None
        self._given_up = False

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Watch a step, which is the block.

        Raises:
            BackendError: the step was given up before it ended, or one before it.
        """
        with self._lock:
            self._check()
            self._started = self._clock()
        try:
            yield
        finally:
            with self._lock:
                self._started = None
        with self._lock:
            self._check()

    def _check(self) -> None:
        if self._given_up:
            raise BackendError("the step ended after the tracker had given it up; its result is not used")

    @property
    def stalled_s(self) -> float:
        """Seconds since the hanging step began; 0 when no step hangs."""
        with self._lock:
            return self._stalled_s()

    def _stalled_s(self) -> float:
        running_s = 0.0 if self._started is None else self._clock() - self._started
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
            self._given_up = self._given_up or self._stalled_s() > 0.0
            return self._given_up
