"""Small runs for the tests of training: tiny frames, a few drawn stills, no data."""

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
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


@pytest.fixture(scope="session")
def stills_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four photographs of noise with a bright disk each, one of every kind."""
    root = tmp_path_factory.mktemp("stills")
    (root / "images").mkdir()
    (root / "labels").mkdir()
    rng = np.random.default_rng(0)
    entries = []
    for number, kind in enumerate(("parts", "object", "instances", "regions")):
        image = cv2.resize(rng.integers(0, 120, (15, 20, 3), np.uint8), (160, 120))
        labels = np.zeros((120, 160), np.uint8)
        cv2.circle(labels, (80, 60), 30, 1, -1)
        image[labels > 0] += 100
        name = f"{kind}_{number}"
        cv2.imwrite(str(root / "images" / f"{name}.jpg"), image)
        cv2.imwrite(str(root / "labels" / f"{name}.png"), labels)
        entries.append({"name": name, "kind": kind, "width": 160, "height": 120, "labels": [1]})
    (root / "manifest.json").write_text(json.dumps(entries))
    return root
