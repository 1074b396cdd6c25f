"""Hand frames and commands from the executor thread to the inference thread."""

import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from sensor_msgs.msg import CompressedImage, Image

FrameT = TypeVar("FrameT")


@dataclass(frozen=True)
class Command:
    """Work for the inference thread.

    Attributes:
        action: the work.
        awaited: True when somebody waits for the outcome, who would rather hear that it cannot be done.
        done: future of its result.
    """

    action: Callable[[], Any]
    awaited: bool = False
    done: "Future[Any]" = field(default_factory=Future)

    def run(self) -> None:
        """Run the action; its result or exception goes to `done`."""
        if not self.done.set_running_or_notify_cancel():
            return
        try:
            self.done.set_result(self.action())
        except Exception as error:
            self.done.set_exception(error)

    def refuse(self, error: Exception) -> None:
        """Fail with this error instead of running."""
        if self.done.set_running_or_notify_cancel():
            self.done.set_exception(error)


class MailboxClosedError(RuntimeError):
    """Work was offered to, or was still waiting in, a mailbox that is closed."""


class Mailbox(Generic[FrameT]):
    """Buffer of one frame with a command queue beside it; every method may be called from any thread.

    A frame that waits when the next arrives is replaced: its mask would be worth less than the time it costs. Commands
    are never replaced and go before frames.
    """

    def __init__(self, hold_s: Callable[[FrameT], float] = lambda _: 0.0) -> None:
        """Start open and empty; `hold_s` says for how many seconds a frame is held back for its successor."""
        self._hold_s = hold_s
        self._ready = threading.Condition()
        self._frame: FrameT | None = None
        self._commands: deque[Command] = deque()
        self._closed = False

    def put_frame(self, frame: FrameT) -> FrameT | None:
        """Make this the waiting frame; return the one that it replaces, or this one when the mailbox is closed."""
        with self._ready:
            if self._closed:
                return frame
            replaced, self._frame = self._frame, frame
            self._ready.notify()
            return replaced

    def post(self, action: Callable[[], Any], *, awaited: bool = False) -> "Future[Any]":
        """Queue work; the future carries its result, or MailboxClosedError when it never runs."""
        command = Command(action, awaited)
        with self._ready:
            if self._closed:
                command.done.set_exception(MailboxClosedError("the tracker is not active"))
            else:
                self._commands.append(command)
                self._ready.notify()
        return command.done

    def refuse_awaited(self, error: Exception) -> None:
        """Fail what somebody waits for; other commands, like new parameters, keep their place."""
        with self._ready:
            refused = [command for command in self._commands if command.awaited]
            self._commands = deque(command for command in self._commands if not command.awaited)
        for command in refused:
            command.refuse(error)

    def take_frame_if(self, wanted: Callable[[FrameT], bool]) -> FrameT | None:
        """Take the waiting frame if there is one and it is wanted; never waits."""
        with self._ready:
            if self._frame is None or not wanted(self._frame):
                return None
            frame, self._frame = self._frame, None
            return frame

    def next(self) -> "Command | FrameT | None":
        """Wait for work: the oldest command, else the newest frame; None once the mailbox is closed.

        A frame that is due to be replaced is held back for a moment; a command does not wait for that.
        """
        with self._ready:
            while True:
                self._ready.wait_for(lambda: self._closed or self._commands or self._frame is not None)
                held = self._frame
                if held is not None and (patience := self._hold_s(held)) > 0.0:
                    self._wait_while_held(held, patience)
                if self._closed:
                    return None
                if self._commands:
                    return self._commands.popleft()
                # Somebody else may have taken the frame meanwhile.
                if self._frame is not None:
                    frame, self._frame = self._frame, None
                    return frame

    def _wait_while_held(self, held: FrameT, patience: float) -> None:
        """Wait until there is something else to do than to take this frame; the lock is held."""
        self._ready.wait_for(lambda: self._closed or self._commands or self._frame is not held, timeout=patience)

    def close(self) -> FrameT | None:
        """Close for good: waiting commands fail with MailboxClosedError; return the frame that waited."""
        with self._ready:
            self._closed = True
            abandoned, self._commands = self._commands, deque()
            frame, self._frame = self._frame, None
            self._ready.notify_all()
        for command in abandoned:
            command.refuse(MailboxClosedError("the tracker was deactivated before it got to this"))
        return frame


@dataclass(frozen=True)
class ReceivedFrame:
    """An image message and its arrival.

    Attributes:
        message: raw or compressed image.
        stamp_ns: header stamp, nanoseconds.
        sequence: position in the order of arrival since activation, from 1.
        arrived: `perf_counter` at the subscription callback, seconds.
        receive_ms: time from the stamp to the callback; 0 when the stamp is zero.
    """

    message: Image | CompressedImage
    stamp_ns: int
    sequence: int
    arrived: float
    receive_ms: float
