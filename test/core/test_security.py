"""Files of models are data: nothing in them runs, whichever backend opens them; and nothing here opens a socket."""

import ast
import pickle
import shutil
from pathlib import Path

import pytest

import sam2lite_core
from sam2lite_core.backends.model_files import PROMPT_FILE, STEP_FILE, WEIGHTS_FILE
from sam2lite_core.errors import Sam2LiteError
from sam2lite_core.tracker import Tracker

ROOT = Path(__file__).resolve().parents[2]
SHIPPED = Path(sam2lite_core.__file__).parent / "weights" / "tiny"
UNWANTED = {"asyncio", "dill", "ftplib", "http", "marshal", "pickle", "requests", "shelve", "socket", "urllib"}


class Trap:
    """Leaves a file behind when it is unpickled."""

    def __init__(self, mark):
        self._mark = mark

    def __reduce__(self):
        return Path.touch, (self._mark,)


@pytest.fixture
def trap(tmp_path):
    """A pickle that would tell, and the file by which it would."""
    mark = tmp_path / "it ran"
    spring = pickle.dumps({"weight": Trap(mark)}, protocol=2)
    pickle.loads(spring)
    assert mark.exists(), "the trap works"
    mark.unlink()
    return spring, mark


@pytest.mark.parametrize("backend", ["onnxruntime", "torch"])
@pytest.mark.parametrize("name", [STEP_FILE, PROMPT_FILE, WEIGHTS_FILE])
def test_a_pickle_in_place_of_a_model_s_file_is_refused_and_does_not_run(tmp_path, trap, backend, name):
    spring, mark = trap
    folder = tmp_path / "model"
    shutil.copytree(SHIPPED, folder)
    (folder / name).write_bytes(spring)
    if backend == "torch" and name != WEIGHTS_FILE:
        # It reads the weights alone.
        Tracker(backend=backend, model_path=folder, threads=1)
    else:
        with pytest.raises(Sam2LiteError, match=name.replace(".", r"\.")):
            Tracker(backend=backend, model_path=folder, threads=1)
    assert not mark.exists()


def test_a_pickle_beside_a_foreign_model_does_not_run(tmp_path, trap, miniature):
    spring, mark = trap
    miniature("sam2").save_pretrained(tmp_path)
    for weights in tmp_path.glob("*.safetensors"):
        weights.unlink()
    (tmp_path / "pytorch_model.bin").write_bytes(spring)
    with pytest.raises(Sam2LiteError):
        Tracker(backend="transformers", model_path=tmp_path, threads=1)
    assert not mark.exists()


@pytest.mark.parametrize("package", ["sam2lite_core", "sam2lite_ros"])
def test_nothing_imports_what_opens_sockets_or_unpickles(package):
    for path in (ROOT / package).rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and not node.level:
                names.append(node.module or "")
            found = {name.split(".")[0] for name in names} & UNWANTED
            assert not found, f"{path.relative_to(ROOT)} imports {', '.join(found)}"
