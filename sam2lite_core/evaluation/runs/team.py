"""Share an evaluation among the processes that Accelerate started, perhaps on many machines.

Every process takes its share of the sequences. Only the first, called main, makes folders, moves the result and prints.
"""

import atexit
import importlib.util
import os
import threading
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Any, TypeVar

from sam2lite_core.errors import BackendError, ConfigurationError, Sam2LiteError

# Accelerate and torchrun count processes under the first name, an MPI that Accelerate runs under one of the others.
COUNTS = ("WORLD_SIZE", "PMI_SIZE", "OMPI_COMM_WORLD_SIZE", "MV2_COMM_WORLD_SIZE")
COUNTS_HERE = ("LOCAL_WORLD_SIZE", "MPI_LOCALNRANKS", "OMPI_COMM_WORLD_LOCAL_SIZE", "MV2_COMM_WORLD_LOCAL_SIZE")

LONGEST_MEETING_S = 600.0
"""A process whose others never start gives up after this time."""

LONGEST_WAIT = timedelta(days=7)
"""A process that is through with its share waits for the others; one that ends is noticed at once."""

Item = TypeVar("Item")
Found = TypeVar("Found")


class Team:
    """A process that works alone: it is main, and takes all items."""

    number = 0
    count = 1

    @property
    def is_main(self) -> bool:
        """This process makes folders, writes results and prints."""
        return self.number == 0

    def share(self, items: Sequence[Item]) -> Sequence[Item]:
        """Return this process's share, one in `count` of the items, which are the same in every process."""
        return items[self.number :: self.count]

    def main_does(self, work: Callable[[], Found]) -> Found:
        """Let the main process do some work; every process gets its result or error, or BackendError."""
        return work()

    def gather(self, items: list[Item]) -> list[Item]:
        """Return the items of all processes, in every process; raise BackendError when one ended."""
        return items


ALONE = Team()


class AcceleratedTeam(Team):
    """The processes of `accelerate launch`, by Accelerate's `PartialState`."""

    def __init__(self) -> None:
        """Meet the other processes, or raise BackendError."""
        state = _meet()
        self.number, self.count = int(state.process_index), int(state.num_processes)
        # At the end of the interpreter the group's threads would be taken down while they work: an abort.
        atexit.register(state.destroy_process_group)

    def main_does(self, work: Callable[[], Found]) -> Found:
        """See `Team.main_does`."""
        from accelerate.utils import broadcast_object_list

        outcome: list[Any] = [None, None]
        if self.is_main:
            try:
                outcome[0] = work()
            except (Sam2LiteError, OSError) as error:
                outcome[1] = error
        found, failure = self._together(lambda: broadcast_object_list(outcome))
        if failure is not None:
            raise failure
        return found  # type: ignore[no-any-return]  # pickled on its way

    def gather(self, items: list[Item]) -> list[Item]:
        """See `Team.gather`."""
        from accelerate.utils import gather_object

        found: list[Item] = self._together(lambda: gather_object(items))
        return found

    def _together(self, step: Callable[[], Any]) -> Any:
        """Take a step that all processes take."""
        try:
            return step()
        except RuntimeError:
            raise BackendError(
                f"process {self.number} of {self.count} lost the others; what the one that ended first said tells why"
            ) from None


def _meet() -> Any:
    """Open Accelerate's state on the CPU, for small objects. Its one timeout is for waiting, ours for meeting."""
    from accelerate import PartialState

    outcome: list[Any] = []

    def meet() -> None:
        try:
            outcome.append(PartialState(cpu=True, timeout=LONGEST_WAIT))
        except Exception as error:  # raised by the thread that waits
            outcome.append(error)

    thread = threading.Thread(target=meet, daemon=True)
    thread.start()
    thread.join(LONGEST_MEETING_S)
    if not outcome:
        raise BackendError(f"other processes did not come within {LONGEST_MEETING_S:g} s; start all of them")
    if isinstance(outcome[0], Exception):
        raise BackendError(f"the processes that Accelerate started cannot meet: {outcome[0]}") from outcome[0]
    return outcome[0]


def launched_team() -> Team:
    """Return the team of this process; alone, without importing Accelerate, where the environment names no other.

    Raises:
        ConfigurationError, BackendError: one of many processes without Accelerate, or out of reach of the others.
    """
    name = next((name for name in COUNTS if _count(name) > 1), None)
    if name is None:
        return ALONE
    if importlib.util.find_spec("accelerate") is None:
        raise ConfigurationError(
            f"{name} is {os.environ[name]}, and Accelerate is not installed: pip install 'sam2lite[distributed]'; "
            f"or unset {name} to evaluate in one process"
        )
    return AcceleratedTeam()


def processes_here() -> int:
    """Count the team's processes on this machine, as far as the environment tells."""
    return max(map(_count, COUNTS_HERE))


def _count(name: str) -> int:
    """Read a number of processes from the environment; 1 where there is none."""
    text = os.environ.get(name, "")
    return int(text) if text.isdecimal() else 1
