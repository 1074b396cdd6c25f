"""Write files and folders that appear whole or not at all."""

import contextlib
import json
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sam2lite_core.errors import SourceError

OVERWRITE = "--overwrite (in Python overwrite=True)"
"""The option that replaces an earlier result, for error messages."""


def write_atomically(path: str | Path, data: bytes) -> None:
    """Write a file beside its place in an existing folder, then rename it: no reader ever sees half of it.

    Raises:
        SourceError: the folder is missing or not writable, or the disk is full.
    """
    path = Path(path)
    partial = partial_name(path)
    try:
        partial.write_bytes(data)
        partial.replace(path)
    except OSError as error:
        with contextlib.suppress(OSError):
            partial.unlink()
        raise SourceError(f"{path}: cannot be written: {error.strerror}") from None


@contextlib.contextmanager
def output_folder(path: str | Path, *, marker: str, overwrite: bool = False) -> Iterator[Path]:
    """Fill a folder that takes its place when the block ends, and vanishes when the block fails.

    Args:
        path: the folder to make; its parents are made as needed.
        marker: a file that every complete result holds; a folder without it is never replaced.
        overwrite: replace an earlier result.

    Yields:
        The temporary folder to write into.

    Raises:
        SourceError: the place is taken, also when it was taken meanwhile, or cannot be written.
    """
    path = Path(path)
    check_output_folder(path, marker=marker, overwrite=overwrite)
    partial = partial_name(path)
    try:
        if partial.exists():
            shutil.rmtree(partial)
        partial.mkdir(parents=True)
        yield partial
        # Something else may have appeared here meanwhile.
        check_output_folder(path, marker=marker, overwrite=overwrite)
        take_place(partial, path)
    except OSError as error:
        raise SourceError(f"{path}: cannot be written: {error.strerror}") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def check_output_folder(path: str | Path, *, marker: str, overwrite: bool = False) -> None:
    """Raise SourceError before long work starts if `output_folder` may not use this place."""
    path = Path(path)
    if path.is_file():
        raise SourceError(f"{path}: is a file; name a folder for the output")
    if not path.is_dir() or not any(path.iterdir()):
        return
    if not (path / marker).is_file():
        raise SourceError(
            f"{path}: not empty, and not an earlier result (it holds no {marker}): never overwritten; choose another "
            "folder"
        )
    if not overwrite:
        raise SourceError(
            f"{path}: not empty: it holds an earlier result; choose another folder, or replace it with {OVERWRITE}"
        )


def partial_name(path: Path) -> Path:
    """Return the hidden name beside `path` to write it under; the suffix stays, since encoders look at it."""
    path = path.absolute()
    return path.with_name(f".{path.stem}.{os.getpid()}.partial{path.suffix}")


def is_partial(path: Path, name: str) -> bool:
    """Tell if this is what a killed process left of a file of this name beside it."""
    stem, suffix = re.escape(Path(name).stem), re.escape(Path(name).suffix)
    return re.fullmatch(rf"\.{stem}\.[0-9]+\.partial{suffix}", path.name) is not None


def take_place(partial: Path, path: Path) -> None:
    """Move a finished folder to its place; what was there is removed only once the new one stands."""
    if not path.exists():
        partial.rename(path)
        return
    old = partial.with_name(partial.name + ".old")
    path.rename(old)
    partial.rename(path)
    shutil.rmtree(old)


def check_json_path(path: Path | None) -> None:
    """Raise SourceError before long work starts if the folder of a JSON file is missing; None is nothing to write."""
    if path is not None and not path.absolute().parent.is_dir():
        raise SourceError(f"{path}: the folder {path.parent} does not exist")


def write_json(path: Path | None, document: dict[str, Any]) -> None:
    """Write a document atomically; None writes nothing."""
    if path is not None:
        write_atomically(path, (json.dumps(document, indent=1) + "\n").encode())
