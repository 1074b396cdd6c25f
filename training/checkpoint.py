"""Checkpoints on disk."""

from pathlib import Path

import torch


def save(path: Path, content: dict[str, object]) -> None:
    """Write a checkpoint under another name first, so that a crash leaves the old one."""
    partial = path.with_suffix(".partial")
    torch.save(content, partial)
    partial.replace(path)
