"""Every backend computes the same from the same folder, and refuses what it cannot run."""

import dataclasses
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest

from sam2lite_core.backends.base import Backend, BackendSettings
from sam2lite_core.backends.model_files import PROMPT_FILE, STEP_FILE, WEIGHTS_FILE, find_model
from sam2lite_core.backends.onnxruntime import Device, choose_device, open_session, spinning
from sam2lite_core.backends.registry import open_backend
from sam2lite_core.errors import BackendError, ModelFileError, Sam2LiteError
from sam2lite_core.frame.masks import label_map
from sam2lite_core.frame.motion import MotionEstimator, motion_map
from sam2lite_core.frame.prompt_rasters import prompt_inputs
from sam2lite_core.frame.resolution import network_size, resize, token_pool
from sam2lite_core.graph_io import META, POLICIES, BankSnapshot, StepInputs, StepOutputs
from sam2lite_core.scenes.clip import render_clip
from sam2lite_core.tracker import Tracker
from sam2lite_core.types import Prompt
from sam2lite_core.variants import get_variant

SLOTS, BUDGET = 160, 96
SOURCE = (240, 400)


@dataclasses.dataclass(frozen=True)
class Moment:
    """What one frame of the scenario asks for: scale, window, threshold, objects followed, and those shown how."""

    scale: float
    objects: tuple[int, ...]
    shown: tuple[tuple[int, str], ...] = ()
    window: int = 8
    threshold: float = 0.2


# Objects join, are shown again, leave and are all lost for a frame, while the resolution changes between 15x25, 8x13
# and 11x18 patches. An object's slot is its id less one.
SCENARIO = (
    Moment(1.0, (1, 2), ((1, "mask"), (2, "box"))),
    Moment(1.0, (1, 2)),
    Moment(1.0, (1, 2)),
    Moment(1.0, (1, 2, 3), ((3, "points"), (2, "mask"))),
    Moment(1.0, (1, 2, 3)),
    Moment(0.5, (1, 2, 3), window=2),
    Moment(0.5, (1, 2, 3)),
    Moment(0.5, (2, 3)),
    Moment(0.7, (2, 3), threshold=1.1),
    Moment(0.7, (1, 2, 3), ((1, "points"),)),
    Moment(1.0, (1, 2, 3), window=4),
    Moment(1.0, (1, 2, 3)),
)


@pytest.fixture(scope="module")
def clip():
    return render_clip(5, height=SOURCE[0], width=SOURCE[1], frames=len(SCENARIO), objects=3)


def prompt_for(kind: str, object_id: int, mask: np.ndarray) -> Prompt:
    rows, columns = np.nonzero(mask)
    if kind == "mask":
        return Prompt(object_id=object_id, mask=mask)
    if kind == "box":
        return Prompt(object_id=object_id, box=np.array([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]))
    middle = [columns.mean(), rows.mean()]
    return Prompt(object_id=object_id, points=np.array([middle, [2.0, 2.0]]), point_labels=np.array([1, 0]))


def scenario(clip, policy: str) -> list[StepInputs]:
    """The frames as a tracker would present them, with the true masks as the previous frame's."""
    estimator = MotionEstimator()
    inputs = []
    followed: tuple[int, ...] = ()
    for frame, moment in enumerate(SCENARIO):
        size = network_size(*SOURCE, moment.scale, SOURCE[0])
        rows, columns = size[0] // 16, size[1] // 16
        motion = estimator.update(clip.frames[frame])
        warped = np.zeros((len(moment.objects), 4 * rows, 4 * columns), np.float32)
        if motion is not None:
            for k, object_id in enumerate(moment.objects):
                if object_id in followed:
                    previous = (clip.label_maps[frame - 1] == object_id).astype(np.float32)
                    warped[k] = motion.warp(previous[None], 4 * rows, 4 * columns)[0] * 2 - 1
        active = np.zeros(16, np.float32)
        active[[i - 1 for i in followed]] = 1.0
        shown = [prompt_for(kind, i, clip.label_maps[frame] == i) for i, kind in moment.shown]
        inputs.append(
            StepInputs(
                image=resize(clip.frames[frame], *size),
                motion=motion_map(motion, rows, columns),
                warped=warped,
                slots=tuple(i - 1 for i in moment.objects),
                active=active,
                window=moment.window,
                budget=BUDGET,
                frame=frame,
                policy=policy,
                presence_threshold=moment.threshold,
                token_pool=token_pool(*SOURCE, size, SOURCE[0]),
                prompt=prompt_inputs(moment.objects, shown, SOURCE, size) if shown else None,
            )
        )
        followed = moment.objects
    return inputs


@pytest.fixture(scope="module")
def pair(exported) -> tuple[Backend, Backend]:
    settings = BackendSettings(exported.folder, SLOTS, threads=1)
    return open_backend("onnxruntime", settings), open_backend("torch", settings)


def kept_tokens(bank: BankSnapshot) -> set[tuple[float, ...]]:
    """Frame and place of every token."""
    places = np.stack([bank.column("birth"), bank.column("x"), bank.column("y")], axis=1).round(5)
    return {tuple(place) for place in places[bank.column("valid") > 0.5]}


def disagreement(first: StepOutputs, second: StepOutputs, ids: tuple[int, ...]) -> float:
    """Share of the source's pixels that get another object."""
    return float(np.mean(label_map(first.logits, ids, *SOURCE) != label_map(second.logits, ids, *SOURCE)))


@pytest.mark.slow
@pytest.mark.parametrize("policy", POLICIES)
def test_torch_and_onnx_runtime_agree_frame_by_frame(pair, clip, policy) -> None:
    onnx_runtime, torch_backend = pair
    for backend in pair:
        backend.reset()
    lost = labelled = 0
    for inputs, moment in zip(scenario(clip, policy), SCENARIO, strict=True):
        first, second = onnx_runtime.step(inputs), torch_backend.step(inputs)
        assert np.abs(first.logits - second.logits).max() < 1e-3
        assert np.abs(first.presence - second.presence).max() < 1e-4
        assert disagreement(first, second, moment.objects) <= 1e-3
        banks = onnx_runtime.bank(), torch_backend.bank()
        assert kept_tokens(banks[0]) == kept_tokens(banks[1])
        assert len(kept_tokens(banks[0])) == first.tokens_used == second.tokens_used <= BUDGET
        lost += int((first.presence < moment.threshold).sum())
        labelled += int((label_map(first.logits, moment.objects, *SOURCE) > 0).sum())
    # The scenario must have had something to disagree on.
    assert lost > 0 and labelled > 0
    births = set(banks[0].column("birth")[banks[0].column("valid") > 0.5])
    assert len(births) >= 2  # the newest frame's tokens, and anchors of an older one


@pytest.mark.slow
def test_trackers_on_both_backends_give_the_same_masks(exported, clip) -> None:
    results = {}
    for name in ("onnxruntime", "torch"):
        tracker = Tracker(
            backend=name, model_path=exported.folder, threads=1, base_short_side=160, presence_threshold=0.2
        )
        results[name] = []
        for frame, image in enumerate(clip.frames):
            tracker.configure(scale=(1.0, 0.6)[frame // 4 % 2])
            shown = {0: [1, 2], 5: [3]}.get(frame, [])
            results[name].append(
                tracker.step(image, [prompt_for("mask", i, clip.label_maps[frame] == i) for i in shown])
            )
            if frame == 7:
                tracker.remove(2)
    for first, second in zip(results["onnxruntime"], results["torch"], strict=True):
        assert np.mean(first.label_map != second.label_map) <= 1e-3
        assert first.memory_tokens_used == second.memory_tokens_used
    assert any(len(np.unique(result.label_map)) > 2 for result in results["torch"])


@pytest.mark.parametrize("name", ["onnxruntime", "torch"])
def test_reset_and_failure(exported, clip, name) -> None:
    backend = open_backend(name, BackendSettings(exported.folder, SLOTS, threads=1))
    first, second = scenario(clip, "learned")[:2]
    expected = backend.step(first)
    before = backend.bank()
    broken = dataclasses.replace(second, motion=second.motion[:-1])
    with pytest.raises(BackendError, match=r"failed on a frame of \(240, 400\)"):
        backend.step(broken)
    for array, other in zip(dataclasses.astuple(before), dataclasses.astuple(backend.bank()), strict=True):
        assert np.array_equal(array, other)
    backend.reset()
    assert not any(array.any() for array in dataclasses.astuple(backend.bank()))
    assert np.array_equal(backend.step(first).logits, expected.logits)


@pytest.mark.parametrize("name", ["onnxruntime", "torch"])
def test_a_kept_bank_comes_back_whatever_happened_since(exported, clip, name) -> None:
    backend = open_backend(name, BackendSettings(exported.folder, SLOTS, threads=1))
    first, second = scenario(clip, "learned")[:2]
    backend.step(first)
    before, restore = backend.bank(), backend.keep()
    expected = backend.step(second)
    for disturb in (backend.reset, lambda: backend.step(first)):
        disturb()
        restore()
        for array, other in zip(dataclasses.astuple(before), dataclasses.astuple(backend.bank()), strict=True):
            assert np.array_equal(array, other)
        assert np.array_equal(backend.step(second).logits, expected.logits)


def test_the_bank_s_columns_have_the_same_names_everywhere() -> None:
    memory = pytest.importorskip("sam2lite_core.model.bank", reason="needs torch")
    assert memory.META == META


def test_attention_of_the_torch_backend(pair, clip) -> None:
    backend = pair[1]
    backend.reset()
    first, second = scenario(clip, "fifo")[:2]
    backend.step(first)
    attention = backend.attention(second.image, second.window)
    bank = backend.bank()
    assert attention.shape == (15, 25, SLOTS)
    assert np.allclose(attention.sum(axis=-1), 1.0, atol=1e-5)
    assert attention[..., bank.column("valid") < 0.5].max() == 0.0
    assert all(
        np.array_equal(array, other)
        for array, other in zip(dataclasses.astuple(bank), dataclasses.astuple(backend.bank()), strict=True)
    )
    # By hand: the token that a patch reads most is the nearest in key and place among those it may read.
    import torch

    student = backend.student
    with torch.no_grad():
        _, key = student.encode(torch.from_numpy(second.image[None]).float().permute(0, 3, 1, 2))
    query = key[0, :, 7, 12].numpy()
    place = np.array([12.5 / 25, 7.5 / 15])
    always, young = np.log1p(np.exp(student.locality.detach().numpy()))
    distance = ((bank.meta[:, :2] - place) ** 2).sum(axis=1)
    strength = always + 4 * young * np.exp(-(bank.column("age") + 1) / 4)
    score = bank.key @ query * np.exp(student.log_scale.item()) - strength * distance
    density = np.prod([len(weights) / weights.shape[1] for weights in first.token_pool])
    score += (bank.column("owner") > 0.5) * student.anchor_bonus.item() * np.sqrt(density)
    score[bank.column("valid") < 0.5] = -np.inf
    expected = np.exp(score - score.max()) / np.exp(score - score.max()).sum()
    assert np.allclose(attention[7, 12], expected, atol=1e-4)


# --- what is refused


def damaged(folder: Path, target: Path, change: str) -> Path:
    """A copy of a model with one thing wrong."""
    shutil.copytree(folder, target)
    name, _, what = change.partition(":")
    path = target / name
    if what == "missing":
        path.unlink()
    elif what == "truncated":
        path.write_bytes(path.read_bytes()[:-5000])
    elif what == "foreign":
        path.write_bytes(b"not a model at all")
    elif what == "mixed":  # the same layout with other values, as from another training
        content = bytearray(path.read_bytes())
        content[-2000:] = bytes(2000)
        path.write_bytes(content)
    return target


@pytest.mark.parametrize(
    ("change", "backend", "named"),
    [
        (f"{STEP_FILE}:missing", "onnxruntime", STEP_FILE),
        (f"{PROMPT_FILE}:missing", "torch", PROMPT_FILE),
        (f"{WEIGHTS_FILE}:missing", "torch", WEIGHTS_FILE),
        (f"{STEP_FILE}:truncated", "onnxruntime", STEP_FILE),
        (f"{PROMPT_FILE}:truncated", "onnxruntime", PROMPT_FILE),
        (f"{WEIGHTS_FILE}:truncated", "onnxruntime", WEIGHTS_FILE),
        (f"{WEIGHTS_FILE}:truncated", "torch", WEIGHTS_FILE),
        (f"{STEP_FILE}:foreign", "onnxruntime", STEP_FILE),
        (f"{WEIGHTS_FILE}:foreign", "torch", WEIGHTS_FILE),
        (f"{WEIGHTS_FILE}:mixed", "onnxruntime", WEIGHTS_FILE),
    ],
)
def test_damaged_folders_are_refused_and_named(exported, tmp_path, change, backend, named) -> None:
    folder = damaged(exported.folder, tmp_path / "model", change)
    with pytest.raises(ModelFileError, match=named):
        Tracker(backend=backend, model_path=folder)


@pytest.mark.parametrize("name", [STEP_FILE, PROMPT_FILE])
def test_an_onnx_file_without_our_metadata_is_refused(exported, tmp_path, name) -> None:
    onnx = pytest.importorskip("onnx", reason="needs onnx: pip install 'sam2lite[export]'")
    folder = shutil.copytree(exported.folder, tmp_path / "model")
    model = onnx.load(folder / name, load_external_data=False)
    del model.metadata_props[:]
    (folder / name).write_bytes(model.SerializeToString())
    with pytest.raises(ModelFileError, match=f"{name} is not a SAM2-Lite model"):
        Tracker(backend="onnxruntime", model_path=folder)


def test_a_foreign_safetensors_file_is_refused(exported, tmp_path) -> None:
    save_file = pytest.importorskip("safetensors.numpy", reason="needs safetensors").save_file
    folder = shutil.copytree(exported.folder, tmp_path / "model")
    save_file({"weight": np.zeros(3, np.float32)}, folder / WEIGHTS_FILE)
    with pytest.raises(ModelFileError, match=f"{WEIGHTS_FILE} is not a SAM2-Lite model"):
        Tracker(backend="torch", model_path=folder)


def test_weights_of_another_variant_are_refused(exported) -> None:
    with pytest.raises(Sam2LiteError, match="holds variant tiny, not small"):
        Tracker("small", backend="torch", model_path=exported.folder)


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("cuda-core", {}, "unknown backend 'cuda-core'; choose one of auto, tensorrt, onnxruntime, torch"),
        ("onnxruntime", {"precision": "fp16"}, "holds fp32 graphs, not 'fp16'; choose auto, or export the model"),
        ("torch", {"precision": "int8"}, "torch has no precision 'int8'; choose auto or fp32"),
        ("onnxruntime", {"device": "npu"}, "onnxruntime has no device 'npu'; choose auto, cpu, cuda, cuda:N"),
        ("onnxruntime", {"device": "cpu:1"}, "onnxruntime has no device 'cpu:1'; choose auto, cpu"),
        ("torch", {"device": "npu9000"}, "torch has no device 'npu9000'; choose auto, cpu, cuda or cuda:N"),
        ("torch", {"device": "mps"}, "torch has no device 'mps'; choose auto, cpu, cuda or cuda:N"),
        ("torch", {"device": "cuda:63"}, "device 'cuda:63' is not there"),
    ],
)
def test_what_a_backend_does_not_have_is_refused(exported, name, change, message) -> None:
    settings = dataclasses.replace(BackendSettings(exported.folder, SLOTS), **change)
    with pytest.raises(BackendError) as caught:
        open_backend(name, settings)
    assert message in str(caught.value)


def test_auto_prefers_onnx_runtime_and_leaves_torch_alone(exported) -> None:
    code = (
        "import sys; from pathlib import Path\n"
        "from sam2lite_core.backends.base import BackendSettings\n"
        "from sam2lite_core.backends.registry import BACKENDS, open_backend\n"
        f"backend = open_backend('auto', BackendSettings(Path({str(exported.folder)!r}), 64))\n"
        "print(*BACKENDS, backend.name, 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["tensorrt", "onnxruntime", "torch", "onnxruntime", "False"]


CPU_ONLY = ["CPUExecutionProvider"]
WITH_CUDA = ["TensorrtExecutionProvider", "CUDAExecutionProvider", "CPUExecutionProvider"]


@pytest.mark.parametrize(
    ("name", "available", "device", "providers"),
    [
        ("auto", CPU_ONLY, Device("cpu"), CPU_ONLY),
        ("auto", WITH_CUDA, Device("cuda"), [("CUDAExecutionProvider", {"device_id": 0}), *CPU_ONLY]),
        ("auto", ["CoreMLExecutionProvider", *CPU_ONLY], Device("cpu"), CPU_ONLY),
        ("cpu", WITH_CUDA, Device("cpu"), CPU_ONLY),
        ("cuda:2", WITH_CUDA, Device("cuda", 2), [("CUDAExecutionProvider", {"device_id": 2}), *CPU_ONLY]),
        ("tensorrt", WITH_CUDA, Device("tensorrt"), [("TensorrtExecutionProvider", {"device_id": 0}), *CPU_ONLY]),
        ("coreml", ["CoreMLExecutionProvider", *CPU_ONLY], Device("coreml"), ["CoreMLExecutionProvider", *CPU_ONLY]),
    ],
)
def test_providers_by_what_is_there(name, available, device, providers) -> None:
    found = choose_device(name, available)
    assert found == device and found.providers == providers
    assert found.memory == ("cuda" if device.name in ("cuda", "tensorrt") else "cpu")


def test_a_provider_that_is_not_there_is_named() -> None:
    with pytest.raises(BackendError, match=r"'cuda' needs CUDAExecutionProvider, and this ONNX Runtime .* has CPUEx"):
        choose_device("cuda", CPU_ONLY)


@pytest.mark.filterwarnings("ignore:Specified provider")
def test_a_provider_that_cannot_start_is_no_silent_cpu() -> None:
    folder = find_model(get_variant("tiny"), None)
    with pytest.raises(BackendError, match="CUDAExecutionProvider could not start"):
        open_session(folder / STEP_FILE, 1, None, Device("cuda"))


@pytest.mark.parametrize("version", ["1.16.0", "1.23.2", "1.26.0", "1.27.0", "1.31.1", "2.0.0"])
def test_workers_do_not_spin_for_long_in_any_release(version: str) -> None:
    options = spinning(version)
    old = version < "1.27"
    assert options == ({"session.intra_op.allow_spinning": "0"} if old else {"session.intra_op.spin_duration_us": "20"})


def test_a_session_is_told_how_to_wait(exported) -> None:
    options = open_session(exported.folder / STEP_FILE, 1).get_session_options()
    for name, value in spinning(ort.__version__).items():
        assert options.get_session_config_entry(name) == value
