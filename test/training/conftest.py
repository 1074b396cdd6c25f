"""Small runs for the tests of training: tiny frames, a few drawn stills, no data."""

from pathlib import Path
from typing import Any

import pytest

from training import typed_yaml
from training.config import RunConfig

SMALL: dict[str, Any] = {
    "precision": "no",
    "threads": 1,
    "stages": {
        "memory": {
            "steps": 4,
            "rate": 1e-3,
            "phases": [{"height": 48, "width": 48, "frames": 2, "batch": 2, "budgets": [8], "pooled": False}],
        }
    },
    "data": {"sources": [{"kind": "rendered", "count": 3}], "objects": 2, "workers": 0},
    "checkpoints": {"every_steps": 2, "validation_batches": 0},
}


@pytest.fixture
def small_run(tmp_path: Path):
    """Makes the configuration of a small run; changes are nested mappings laid over it."""

    def make(changes: dict[str, Any] | None = None, folder: str = "run") -> RunConfig:
        document = typed_yaml.merge(SMALL, {"folder": str(tmp_path / folder)})
        return typed_yaml.build(RunConfig, typed_yaml.merge(document, changes or {}))

    return make
