"""Fill a folder piece by piece so that a killed run can go on, and the result appears whole or not at all.

The lock is `fcntl.flock`: versions of `filelock` (Ubuntu 22.04's is early) differ over file systems without locks.
"""

import contextlib
import errno
import fcntl
import json
import os
import shutil
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from sam2lite_core.errors import SourceError
from sam2lite_core.evaluation.runs.team import ALONE, Team
from sam2lite_core.files import OVERWRITE, check_output_folder, is_partial, take_place, write_json

SETTINGS_FILE = "settings.json"
PIECES = "sequences"
"""Folder of the finished pieces, a JSON file each."""

UNFINISHED = ".unfinished"
"""Suffix of a result's name until it is complete."""

LOCK_FILE = ".lock"
"""The main process keeps it locked; when that one is killed, its other processes may write for a moment more."""

NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP)
"""Errors of file systems without locks, as some shared ones are mounted."""


class Unfinished:
    """An unfinished result: its folder and its finished pieces."""

    def __init__(self, folder: Path) -> None:
        """Use an existing folder."""
        self.folder = folder

    def finished(self) -> list[str]:
        """List the names of the finished pieces, sorted."""
        # Hidden files are half written: their run was killed.
        return sorted(path.stem for path in (self.folder / PIECES).glob("[!.]*.json"))

    def load(self, name: str) -> dict[str, Any]:
        """Read a finished piece, or raise SourceError."""
        path = self.folder / PIECES / f"{name}.json"
        try:
            document: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise SourceError(f"{path}: cannot be read ({error}); remove it to do this piece again") from None
        return document

    def save(self, name: str, document: dict[str, Any]) -> None:
        """Mark a piece as finished, or raise SourceError; its file appears whole or not at all."""
        write_json(self.folder / PIECES / f"{name}.json", document)


def unfinished_folder(path: Path) -> Path:
    """Return the folder of the result at `path` until it is complete."""
    path = path.absolute()
    return path.with_name(path.name + UNFINISHED)


def is_part(path: Path) -> bool:
    """Return whether a file holds the settings or a piece of a result."""
    result = path.parent.parent if path.parent.name == PIECES else path.parent
    named = path.parent.name == PIECES or path.name == SETTINGS_FILE
    return named and (result / SETTINGS_FILE).is_file() and (result / PIECES).is_dir()


@contextlib.contextmanager
def resumable_folder(
    path: str | Path, *, marker: str, settings: Mapping[str, Any], overwrite: bool = False, team: Team = ALONE
) -> Iterator[Unfinished]:
    """Fill a folder that takes its place when the block ends; finished pieces of an interrupted run are kept.

    Work goes on in `PATH.unfinished`. When the block fails, finished pieces stay there for the next run with the same
    settings; without any, the folder vanishes.

    Args:
        path: the folder to make; its parents are made as needed.
        marker: a file that every complete result holds, as for `files.output_folder`.
        settings: plain JSON; an unfinished run with others is not continued.
        overwrite: replace an earlier result, and drop an unfinished run with other settings.
        team: processes that fill the folder together; its main one makes and moves it.

    Raises:
        SourceError: the place is taken, cannot be written, holds an unfinished run with other settings, or another run
            is at work there; or this machine does not see the folder that the main process made.
    """
    path = Path(path)
    folder, asked = unfinished_folder(path), json.loads(json.dumps(settings))
    with contextlib.ExitStack() as held:

        def make() -> None:
            check_output_folder(path, marker=marker, overwrite=overwrite)
            try:
                _prepare(folder, asked, overwrite, held)
            except OSError as error:
                raise SourceError(f"{folder}: cannot be written: {error.strerror}") from None

        def finish() -> None:
            # Something else may have come there meanwhile; the finished pieces then stay.
            check_output_folder(path, marker=marker, overwrite=overwrite)
            take_place(folder, path)
            # Not before: a second run could begin in a folder that is about to move.
            (path / LOCK_FILE).unlink()

        team.main_does(make)
        if not team.is_main:
            _check_shared(folder, asked)
        work = Unfinished(folder)
        try:
            yield work
            team.main_does(finish)
        except OSError as error:
            raise SourceError(f"{path}: cannot be written: {error.strerror}") from error
        finally:
            # Others of a team may still be at work in there.
            if team.count == 1 and folder.exists() and not work.finished():
                shutil.rmtree(folder, ignore_errors=True)


def _prepare(folder: Path, settings: dict[str, Any], overwrite: bool, held: contextlib.ExitStack) -> None:
    """Make the folder, or check that the one there has the same settings; lock it either way."""
    if folder.exists() and not (folder / LOCK_FILE).exists():
        # A folder that is not ours gets no lock file.
        _check_ours(folder, settings, overwrite)
    folder.mkdir(parents=True, exist_ok=True)
    held.enter_context(_locked(folder))
    if _check_ours(folder, settings, overwrite):
        return
    for entry in folder.iterdir():
        if entry.is_dir():
            shutil.rmtree(entry)
        elif entry.name != LOCK_FILE:
            entry.unlink()
    (folder / PIECES).mkdir()
    write_json(folder / SETTINGS_FILE, settings)


def _check_ours(folder: Path, settings: dict[str, Any], overwrite: bool) -> bool:
    """Return whether a run with these settings goes on in a folder; if not, its content may be deleted."""
    try:
        before = json.loads((folder / SETTINGS_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        before = None
    if before == settings:
        return True
    if before is None and all(map(_is_beginning, folder.iterdir())):
        return False
    if before is None:
        raise SourceError(
            f"{folder}: no unfinished run (its {SETTINGS_FILE} is missing or damaged): never overwritten; choose "
            "another folder"
        )
    if not overwrite:
        raise SourceError(
            f"{folder}: an unfinished run {_difference(before, settings)}; finish that one, choose another "
            f"folder, or drop it with {OVERWRITE}"
        )
    return False


def _is_beginning(entry: Path) -> bool:
    """Return whether this is left of a run that was killed before its settings were written."""
    if entry.is_symlink():
        return False
    if entry.name == PIECES:
        return entry.is_dir() and not any(entry.iterdir())
    return entry.is_file() and (entry.name == LOCK_FILE or is_partial(entry, SETTINGS_FILE))


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Lock a folder for the only run in it."""
    path = folder / LOCK_FILE
    with path.open("ab") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise SourceError(
                f"{folder}: another run is at work there; wait for its end, or choose another folder"
            ) from None
        except OSError as error:
            if error.errno not in NO_LOCKS:
                raise
            warnings.warn(
                f"{folder}: no lock on this file system ({error.strerror}); let no second run write there", stacklevel=2
            )
        # The run before may have moved its folder away between opening and locking.
        if not path.exists() or not os.path.samestat(path.stat(), os.fstat(stream.fileno())):
            raise SourceError(f"{folder}: another run ended there just now; start again")
        yield


def _check_shared(folder: Path, settings: dict[str, Any]) -> None:
    """Check that this process sees the main process's folder, and has the same settings."""
    try:
        main = json.loads((folder / SETTINGS_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        raise SourceError(
            f"{folder}: the main process made it, and this machine does not see it; choose a folder that all "
            "machines share"
        ) from None
    if main != settings:
        raise SourceError(f"{folder}: the main process runs {_difference(main, settings)}, as this one would")


def _difference(before: Any, now: dict[str, Any]) -> str:
    """Name the first setting that differs."""
    if not isinstance(before, dict):
        return "with other settings"
    flat_before, flat_now = _flatten(before), _flatten(now)
    for name in sorted(flat_before.keys() | flat_now.keys()):
        if flat_before.get(name) != flat_now.get(name):
            return f"with {name} {flat_before.get(name)!r} instead of {flat_now.get(name)!r}"
    return "with other settings"


def _flatten(value: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return nested settings by dotted name."""
    flat: dict[str, Any] = {}
    for name, entry in value.items():
        flat |= _flatten(entry, f"{prefix}{name}.") if isinstance(entry, dict) else {prefix + name: entry}
    return flat
