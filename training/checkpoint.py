"""Keep checkpoints on disk: whole or not at all, the newest few and the best one."""

import io
import re
from pathlib import Path
from typing import Any

import torch

from sam2lite_core.export.checkpoint import read_checkpoint as load
from sam2lite_core.files import write_atomically

__all__ = ["BEST", "load", "newest", "numbered", "prune", "save", "stage_file"]

BEST = "best.pt"
_NUMBERED = re.compile(r"step_(\d+)\.pt")


def save(path: Path, content: dict[str, Any]) -> None:
    """Write a checkpoint so that a crash or a full disk leaves the old one.

    Raises:
        SourceError: the disk is full, or the folder cannot be written.
    """
    # In memory first: torch reports a full disk as an error of its zip writer, without a reason.
    buffer = io.BytesIO()
    torch.save(content, buffer)
    write_atomically(path, buffer.getvalue())


def numbered(folder: Path, step: int) -> Path:
    """Name the file of a step's checkpoint."""
    return folder / f"step_{step:08d}.pt"


def newest(folder: Path) -> Path | None:
    """Find the numbered checkpoint of the highest step; None where there is none."""
    found = _all(folder)
    return found[-1] if found else None


def prune(folder: Path, keep: int) -> None:
    """Delete numbered checkpoints but the newest `keep`."""
    for path in _all(folder)[:-keep]:
        path.unlink(missing_ok=True)


def stage_file(folder: Path, stage: int) -> Path:
    """Name the file that a finished stage leaves behind."""
    return folder / f"stage{stage}.pt"


def _all(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    return sorted(path for path in folder.iterdir() if _NUMBERED.fullmatch(path.name))
