"""SAM 2.1 and EdgeTAM behind the tracker, on models of small configuration with random weights."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from sam2lite_core.backends import registry
from sam2lite_core.backends.base import BackendSettings
from sam2lite_core.backends.foreign import FrameInputs
from sam2lite_core.cli.app import main
from sam2lite_core.errors import BackendError, ConfigurationError, ModelFileError, Sam2LiteError
from sam2lite_core.media.label_map import write_label_map
from sam2lite_core.tracker import Tracker
from sam2lite_core.types import ObjectState, Prompt

torch = pytest.importorskip("torch", reason="needs torch: pip install 'sam2lite[transformers]'")
pytest.importorskip("transformers", reason="needs transformers: pip install 'sam2lite[transformers]'")

from sam2lite_core.backends.transformers import session as transformers_session
from sam2lite_core.backends.transformers.backend import TransformersBackend

NAMES = ("sam2", "edgetam")
SIZE = (96, 128)
PRESENT = 4.0
"""Added to the object score, so that random weights find what they are asked for."""


@pytest.fixture(scope="module")
def folders(miniature, tmp_path_factory) -> dict[str, Path]:
    """A model of each kind as a user has it; not to be changed."""
    root = tmp_path_factory.mktemp("models")
    for name in NAMES:
        model = miniature(name, max_object_pointers_in_encoder=9)
        with torch.no_grad():
            model.mask_decoder.pred_obj_score_head.proj_out.bias += PRESENT
        model.save_pretrained(root / name)
    return {name: root / name for name in NAMES}


@pytest.fixture(scope="module")
def frames() -> list[np.ndarray]:
    return list(np.random.default_rng(3).integers(0, 256, (14, *SIZE, 3), dtype=np.uint8))


def tracker(folder: Path, **options) -> Tracker:
    return Tracker(backend="transformers", model_path=folder, threads=1, **options)


def backend(folder: Path) -> TransformersBackend:
    return TransformersBackend(BackendSettings(folder, 0, threads=1))


def square(x: int, y: int = 20, side: int = 40) -> np.ndarray:
    mask = np.zeros(SIZE, bool)
    mask[y : y + side, x : x + side] = True
    return mask


def ask(image, ids, prompts=(), followed=None, frame=0, threshold=0.5) -> FrameInputs:
    known = frozenset(ids if followed is None else followed)
    return FrameInputs(image, tuple(ids), tuple(prompts), known, frame, threshold)


def run(model, frames, shown, ids=(1, 2)):
    """Logits of every frame; `shown` are the first frame's prompts."""
    answers = []
    for t, image in enumerate(frames):
        answers.append(model.step_frame(ask(image, ids, () if t else shown, ids if t else (), t, threshold=0.0)))
    return answers


@pytest.mark.parametrize("name", NAMES)
def test_objects_are_shown_by_mask_box_and_points_at_any_frame(folders, frames, name) -> None:
    followed = tracker(folders[name])
    mask = square(10)
    first = followed.step(frames[0], [Prompt(object_id=7, mask=mask)])
    assert first.label_map.shape == SIZE and first.label_map.dtype == np.uint8
    assert np.array_equal(first.label_map == 7, mask)
    followed.step(frames[1])
    shown = [
        Prompt(object_id=300, box=np.array([60, 20, 110, 80])),
        Prompt(object_id=2, points=np.array([[30, 30], [120, 90]]), point_labels=np.array([1, 0])),
    ]
    third = followed.step(frames[2], shown)
    assert [entry.object_id for entry in third.objects] == [2, 7, 300]
    assert third.label_map.dtype == np.uint16 and set(np.unique(third.label_map)) <= {0, 2, 7, 300}
    again = followed.step(frames[3], [Prompt(object_id=7, mask=square(50))])
    assert np.array_equal(again.label_map == 7, square(50))
    assert all(0.0 <= entry.score <= 1.0 for entry in again.objects)
    assert again.objects[1].state is ObjectState.TRACKED and again.objects[1].score > 0.99
    # Another size is legal in mid-stream, and every label map has its frame's.
    assert followed.step(np.ascontiguousarray(frames[4][:64, :80])).label_map.shape == (64, 80)


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_memory_is_bounded_over_500_frames(folders, name) -> None:
    model = backend(folders[name])
    noise = np.random.default_rng(0)
    sizes, tokens = [], []
    for t in range(500):
        image = noise.integers(0, 256, (*SIZE, 3), dtype=np.uint8)
        shown = [Prompt(object_id=1, mask=square(30))] if t == 0 else []
        answer = model.step_frame(ask(image, (1,), shown, frame=t))
        assert np.isfinite(answer.logits).all()
        sizes.append(model.memory_bytes())
        tokens.append(answer.tokens_used)
    # Full once the pointers of 8 earlier frames are there; then not a byte more.
    assert len(set(sizes[9:])) == 1 and sizes[0] < sizes[9]
    each = 64 if name == "sam2" else 22  # patches, or latents
    assert tokens[:10] == [each * min(t + 1, 7) for t in range(10)] and set(tokens[10:]) == {7 * each}


@pytest.mark.parametrize("name", NAMES)
def test_nothing_that_is_read_is_forgotten(folders, frames, name) -> None:
    """A session of transformers that keeps everything says the same."""
    model = backend(folders[name])
    whole = transformers_session.load_model(folders[name], "cpu")
    session = transformers_session.new_session(whole, 128, 128, torch.device("cpu"))
    shown = {0: square(10), 6: square(60)}
    for t, image in enumerate(frames):
        prompts = [Prompt(object_id=1, mask=shown[t])] if t in shown else []
        answer = model.step_frame(ask(image, (1,), prompts, frame=t, threshold=0.0))
        if t in shown:
            mask = transformers_session.to_mask(torch.from_numpy(shown[t]), (128, 128))
            session.add_mask_inputs(session.obj_id_to_idx(1), t, mask[None, None])
            session.obj_with_new_inputs.append(1)
        pixels = transformers_session.to_pixels(torch.from_numpy(image), (128, 128))
        expected = whole(inference_session=session, frame=pixels, frame_idx=t)
        assert np.array_equal(answer.logits, expected.pred_masks[0].numpy())
        assert answer.presence[0] == torch.sigmoid(expected.object_score_logits).item()


@pytest.mark.parametrize("name", NAMES)
def test_ids_can_be_exchanged_and_objects_do_not_see_each_other(folders, frames, name) -> None:
    shown = [Prompt(object_id=1, mask=square(10)), Prompt(object_id=2, box=np.array([60, 20, 110, 80]))]
    swapped = [Prompt(object_id=1, box=shown[1].box), Prompt(object_id=2, mask=shown[0].mask)]
    straight = run(backend(folders[name]), frames[:5], shown)
    crossed = run(backend(folders[name]), frames[:5], swapped)
    alone = run(backend(folders[name]), frames[:5], shown[1:], ids=(2,))
    for one, other, single in zip(straight, crossed, alone, strict=True):
        assert np.array_equal(one.logits, other.logits[::-1])
        assert np.array_equal(one.presence, other.presence[::-1])
        assert np.array_equal(one.logits[1:], single.logits)
    assert not np.array_equal(straight[4].logits[0], straight[4].logits[1])


def test_a_removed_object_starts_afresh(folders, frames) -> None:
    followed = tracker(folders["sam2"], presence_threshold=0.0)
    shown = [Prompt(object_id=1, mask=square(10)), Prompt(object_id=2, mask=square(70))]
    followed.step(frames[0], shown)
    followed.step(frames[1])
    followed.remove(1)
    with pytest.raises(Sam2LiteError, match="object 1 is not followed"):
        followed.remove(1)
    back = Prompt(object_id=1, mask=square(40))
    followed.step(frames[2], [back])
    result = followed.step(frames[3])
    fresh = tracker(folders["sam2"], presence_threshold=0.0)
    fresh.step(frames[2], [back])
    assert result.objects[0].score == fresh.step(frames[3]).objects[0].score
    followed.remove(1)
    followed.remove(2)
    assert followed.backend.memory_bytes() == 0
    assert not followed.step(frames[4]).label_map.any()


def test_reset_forgets_all_and_repeats_exactly(folders, frames) -> None:
    followed = tracker(folders["edgetam"])
    shown = [Prompt(object_id=1, mask=square(10))]
    runs = []
    for _ in range(2):
        runs.append([followed.step(image, () if t else shown) for t, image in enumerate(frames[:4])])
        followed.reset()
        assert followed.backend.memory_bytes() == 0 and followed.object_ids == ()
    for one, other in zip(*runs, strict=True):
        assert np.array_equal(one.label_map, other.label_map) and one.frame_index == other.frame_index


def test_only_the_newest_prompt_frames_are_kept(folders, frames) -> None:
    model = backend(folders["sam2"])
    tokens = [
        model.step_frame(ask(image, (1,), [Prompt(object_id=1, mask=square(t))], frame=t)).tokens_used
        for t, image in enumerate(frames[:7])
    ]
    assert tokens == [64 * min(t + 1, transformers_session.PROMPT_FRAMES) for t in range(7)]


def test_an_object_below_the_threshold_is_lost_and_has_no_mask(folders, frames) -> None:
    followed = tracker(folders["sam2"])
    followed.step(frames[0], [Prompt(object_id=1, mask=square(10))])
    score = followed.step(frames[1]).objects[0].score
    assert 0.5 < score < 1.0
    followed.presence_threshold = (1.0 + score) / 2
    result = followed.step(frames[2])
    assert result.objects[0].state is ObjectState.LOST and not result.label_map.any()
    followed.presence_threshold = 0.0
    assert followed.step(frames[3]).objects[0].state is ObjectState.TRACKED


def test_a_failed_step_leaves_the_memory_as_it_was(folders, frames, monkeypatch) -> None:
    model, twin = backend(folders["sam2"]), backend(folders["sam2"])
    shown = [Prompt(object_id=1, mask=square(10)), Prompt(object_id=2, mask=square(70))]
    for each in (model, twin):
        run(each, frames[:2], shown)
    attention, calls = model._model.memory_attention.forward, []

    def broken(*args, **kwargs):
        calls.append(1)
        if len(calls) == 2:
            raise RuntimeError("out of memory")
        return attention(*args, **kwargs)

    again = ask(frames[2], (1, 2), frame=2, threshold=0.0)
    with monkeypatch.context() as patch:
        patch.setattr(model._model.memory_attention, "forward", broken)
        with pytest.raises(BackendError, match=r"failed on a frame of \(96, 128\): out of memory"):
            model.step_frame(again)
    assert len(calls) == 2
    assert np.array_equal(model.step_frame(again).logits, twin.step_frame(again).logits)


def test_what_was_kept_comes_back_twice(folders, frames) -> None:
    model = backend(folders["edgetam"])
    run(model, frames[:2], [Prompt(object_id=1, mask=square(10))], ids=(1,))
    restore, again = model.keep(), ask(frames[2], (1,), frame=2, threshold=0.0)
    expected = model.step_frame(again)
    for disturb in (model.reset, lambda: model.step_frame(ask(frames[3], (1,), frame=3))):
        disturb()
        restore()
        assert np.array_equal(model.step_frame(again).logits, expected.logits)


def test_masks_and_points_in_the_model_s_pixels() -> None:
    small = torch.zeros(64, 64)
    small[8:10, 8:10] = 1
    assert transformers_session.to_mask(small, (32, 32)).nonzero().tolist() == [[4, 4]]
    speck = torch.zeros(64, 64)
    speck[8, 8] = 1  # covers a quarter of one pixel
    assert transformers_session.to_mask(speck, (16, 16)).sum() >= 1
    assert not transformers_session.to_mask(torch.zeros(64, 64), (16, 16)).any()
    prompt = Prompt(object_id=1, box=np.array([8, 4, 16, 12]), points=np.array([[10, 5], [2, 20]]), point_labels=[1, 0])
    points = transformers_session.to_points(prompt, (50, 100), (200, 200))
    assert points["point_coords"][0, 0].tolist() == [[16, 16], [32, 48], [20, 20], [4, 80]]
    assert points["point_labels"][0, 0].tolist() == [2, 3, 1, 0]


def test_what_a_foreign_model_has_no_say_in(folders, frames) -> None:
    followed = tracker(folders["sam2"], deadline_ms=20.0)
    assert followed.fixed_size and followed.controller == "off" and followed.deadline_ms == 20.0
    result = followed.step(frames[0], [Prompt(object_id=1, mask=square(10))])
    assert (result.scale, result.window) == (1.0, 6) and result.timings.inference_ms > 0
    for change in ({"scale": 0.5}, {"controller": "plain"}):
        with pytest.raises(ConfigurationError, match=f"transformers.*no {next(iter(change))}"):
            followed.configure(**change)
    with pytest.raises(ConfigurationError, match="one size only"):
        followed.measure_latency()
    assert followed.controller == "off" and followed.scale is None


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"scale": 0.5}, "no scale 0.5"),
        ({"controller": "plain", "deadline_ms": 30.0}, "no controller 'plain'"),
        ({"memory_budget": 128}, "no memory_budget 128"),
        ({"memory_policy": "uniform"}, "no memory_policy 'uniform'"),
        ({"base_short_side": 240}, "no base_short_side 240"),
        ({"variant": "small"}, "no variant 'small'"),
        ({"precision": "fp16"}, "transformers has no precision 'fp16'"),
        ({"device": "abacus:1"}, "transformers has no device 'abacus:1'"),
    ],
)
def test_options_of_the_student_are_refused(folders, options, message) -> None:
    with pytest.raises(Sam2LiteError, match=message):
        tracker(folders["sam2"], **options)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (shutil.rmtree, "is not a folder"),
        (lambda folder: (folder / "config.json").unlink(), "has no config.json"),
        (lambda folder: (folder / "config.json").write_text("{"), "is not a model's configuration"),
        (
            lambda folder: (folder / "config.json").write_text(json.dumps({"model_type": "sam3_video"})),
            "type 'sam3_video'; supported: sam2_video, edgetam_video",
        ),
        (lambda folder: (folder / "model.safetensors").unlink(), "cannot be loaded by transformers"),
        (lambda folder: (folder / "model.safetensors").write_bytes(b"\x08"), "cannot be loaded"),
    ],
)
def test_folders_that_are_no_model(folders, tmp_path, change, message) -> None:
    folder = shutil.copytree(folders["sam2"], tmp_path / "model")
    change(folder)
    with pytest.raises(ModelFileError, match=message):
        tracker(folder)


def test_without_a_folder() -> None:
    with pytest.raises(ModelFileError, match="ships no weights; give model_path"):
        Tracker(backend="transformers")


@pytest.mark.parametrize("package", ["torch", "transformers"])
def test_a_missing_package_names_the_extra(folders, monkeypatch, package) -> None:
    monkeypatch.setattr(registry, "_installed", lambda name: name != package)
    with pytest.raises(BackendError, match=rf"needs {package}: .*sam2lite\[transformers\]"):
        tracker(folders["sam2"])


def test_a_missing_backbone_names_the_extra(folders, monkeypatch) -> None:
    import transformers

    def incomplete(*args, **kwargs):
        raise ImportError("\nTimmWrapperModel requires the timm library.\nInstall it.")

    monkeypatch.setattr(transformers.EdgeTamVideoModel, "from_pretrained", incomplete)
    with pytest.raises(BackendError, match=r"requires the timm library.*sam2lite\[edgetam\]"):
        tracker(folders["edgetam"])


@pytest.fixture
def shown_on_disk(frames, tmp_path) -> tuple[Path, Path]:
    """A folder of four frames and the mask of the first."""
    import cv2

    source = tmp_path / "frames"
    source.mkdir()
    for index, image in enumerate(frames[:4]):
        cv2.imwrite(str(source / f"{index:05d}.png"), image)
    write_label_map(tmp_path / "first.png", square(10).astype(np.uint8))
    return source, tmp_path / "first.png"


def test_the_command_follows_with_a_foreign_model(folders, shown_on_disk, tmp_path) -> None:
    source, mask = shown_on_disk
    out = tmp_path / "out"
    options = ["track", str(source), "--mask", str(mask), "--out", str(out), "--backend", "transformers"]
    with pytest.raises(SystemExit) as done:
        main([*options, "--model-path", str(folders["edgetam"])])
    assert done.value.code in (0, None)
    assert json.loads((out / "track.json").read_text())["variant"] == "edgetam_video"
    assert len(list((out / "masks").glob("*.png"))) == 4


def test_the_command_refuses_a_scale_and_writes_nothing(folders, shown_on_disk, tmp_path, capsys) -> None:
    source, mask = shown_on_disk
    out = tmp_path / "out"
    options = ["track", str(source), "--mask", str(mask), "--out", str(out), "--backend", "transformers"]
    with pytest.raises(SystemExit) as done:
        main([*options, "--model-path", str(folders["sam2"]), "--scale", "0.5"])
    assert done.value.code == 2 and "no scale 0.5" in capsys.readouterr().err
    assert not out.exists()
