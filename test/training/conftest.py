"""Small runs for the tests of training: tiny frames, a few drawn stills, no data."""

import json
import shutil
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from sam2lite_core.media.label_map import write_label_map
from sam2lite_core.scenes.clip import render_clip
from training.config import loading
from training.config.run import RunConfig

SMALL: dict[str, Any] = {
    "precision": "no",
    "threads": 1,
    "stages": {
        "memory": {
            "steps": 4,
            "learning_rate": 1e-3,
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
        document = loading.merge(SMALL, {"folder": str(tmp_path / folder)})
        return loading.build(RunConfig, loading.merge(document, changes or {}))

    return make


@pytest.fixture
def small_davis(tmp_path: Path) -> Path:
    """Four drawn frames in DAVIS's layout, as sequence `bodies`."""
    root = tmp_path / "davis"
    clip = render_clip(0, height=96, width=128, frames=4)
    for index, (image, labels) in enumerate(zip(clip.frames, clip.label_maps, strict=True)):
        for kind in ("JPEGImages", "Annotations"):
            (root / kind / "bodies").mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(root / f"JPEGImages/bodies/{index:05d}.jpg"), image[..., ::-1])
        write_label_map(root / f"Annotations/bodies/{index:05d}.png", labels)
    return root


@pytest.fixture
def exported(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, str]]:
    """Students that were to be exported, and their notes: exports take a minute and are tested by themselves; the files
    that ship stand in."""
    students: list[tuple[Any, str]] = []

    def export(student: Any, folder: Path, note: str) -> None:
        students.append((student, note))
        shutil.copytree(Path(__file__).resolve().parents[2] / "sam2lite_core/weights/tiny", folder)

    monkeypatch.setattr("training.students.export.export_student", export)
    return students


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
