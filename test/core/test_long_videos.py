"""Videos that go forward and backward, and what J&F by minute says of them."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from sam2lite_core.cli import app
from sam2lite_core.datasets.davis import Davis
from sam2lite_core.datasets.looped import Looped, forward_and_backward
from sam2lite_core.errors import ConfigurationError
from sam2lite_core.evaluation.davis_protocol import ObjectScores, sequence_scores, statistic
from sam2lite_core.evaluation.long_videos import by_minute, first_pass, frames_of, markdown, summarise
from sam2lite_core.evaluation.results import Evaluation, SequenceResult


def scored(scores: list[float], late: int = 0) -> ObjectScores:
    """An object with these scores from a frame on, J and F alike."""
    values = np.array(scores)
    frames = tuple(range(late, late + len(scores)))
    return ObjectScores(1, statistic(values), statistic(values), tuple(scores), tuple(scores), frames)


def result(*objects: ObjectScores, name: str = "one") -> SequenceResult:
    return SequenceResult(name, sequence_scores(list(objects)), None, {}, ())


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Two sequences of five frames in DAVIS's layout, a square that moves."""
    for name, step in (("left", -4), ("right", 4)):
        for kind in ("JPEGImages", "Annotations"):
            (tmp_path / kind / name).mkdir(parents=True)
        for index in range(5):
            mask = np.zeros((96, 128), np.uint8)
            x = 50 + step * index
            mask[30:60, x : x + 30] = 255
            image = np.full((96, 128, 3), 90, np.uint8)
            image[mask > 0] = (40, 160, 220)
            cv2.imwrite(str(tmp_path / f"JPEGImages/{name}/{index:05d}.jpg"), image)
            cv2.imwrite(str(tmp_path / f"Annotations/{name}/{index:05d}.png"), mask)
    return tmp_path


def test_frames_go_to_the_end_and_back_for_ever():
    images = tuple(Path(str(index)) for index in range(4))
    names = [path.name for path in forward_and_backward(images, 14)]
    assert names == list("01232101232101")
    assert [path.name for path in forward_and_backward(images[:1], 3)] == ["0", "0", "0"]
    assert forward_and_backward(images, 3) == images[:3]


def test_every_frame_has_the_truth_of_the_picture_that_it_shows(data):
    sequence = Looped(Davis(data), 12).open("right")
    frames = list(sequence.frames())
    assert [frame.index for frame in frames] == list(range(12))
    for frame, source in zip(frames, [0, 1, 2, 3, 4, 3, 2, 1, 0, 1, 2, 3], strict=True):
        assert frame.name == f"{source:05d}"
        truth = sequence.truth(frame)
        assert truth[45, 50 + 4 * source] == 1 and truth[45, 49 + 4 * source] == 0
    assert list(sequence.shown()) == [0]


def test_minutes_by_hand():
    # Ten frames a minute: 0..9, 10..19, and a short third; the second object appears late.
    fps = 10 / 60
    long = scored([0.9] * 5 + [0.7] * 5 + [0.5] * 10 + [0.2] * 2)
    assert by_minute(result(long), fps) == pytest.approx([0.8, 0.5, 0.2])
    late = scored([1.0] * 16, late=6)
    assert by_minute(result(long, late), fps) == pytest.approx([0.9, 0.75, 0.6])
    assert first_pass(result(long), 5) == pytest.approx(0.9)
    assert first_pass(result(long), 10) == pytest.approx(0.8)


def test_the_drop_is_from_the_first_pass_to_the_last_minute(data):
    dataset, fps = Looped(Davis(data), 20), 10 / 60
    rows = {"left": [0.9] * 5 + [0.7] * 5 + [0.6] * 10, "right": [0.5] * 10 + [0.7] * 10}
    evaluation = Evaluation(
        dataset.title, {}, tuple(result(scored(values), name=name) for name, values in rows.items()), {}
    )
    summary = summarise(dataset, {"fifo": evaluation}, fps)["fifo"]
    assert summary["sequences"]["left"]["drop"] == pytest.approx(0.3)
    assert summary["sequences"]["right"]["drop"] == pytest.approx(-0.2)
    assert summary["drop"] == pytest.approx(0.05) and summary["minutes"] == pytest.approx([0.65, 0.65])
    content = {
        "title": dataset.title, "fps": fps, "variant": "tiny", "scale": None, "budget": 64, "prompt": "mask",
        "sequences": ["left", "right"], "policies": {"fifo": summary},
    }  # fmt: skip
    table = markdown(content)
    assert "| fifo | 70.0 | 65.0 | 65.0 | 65.0 | 5.0 |" in table and "the controller's scale" in table
    assert "| left | 70.0, 30.0 |" in table


@pytest.mark.parametrize(("minutes", "fps"), [(1, 24.0), (5, 0.0), (5, 0.01), (5, float("nan")), (5, float("inf"))])
def test_lengths_that_cannot_be_compared_are_refused(minutes, fps):
    with pytest.raises(ConfigurationError, match="at least 2 minutes"):
        frames_of(minutes, fps)


def test_the_command_follows_every_policy_and_goes_on_where_it_was(data, tmp_path, capsys):
    pytest.importorskip("matplotlib", reason="needs matplotlib: pip install 'sam2lite[figures]'")
    files = {name: tmp_path / f"long.{name}" for name in ("json", "markdown", "figure")}
    command = [
        "eval", "long", "--root", str(data), "--out", str(tmp_path / "out"), "--minutes", "2", "--fps", "0.1",
        "--policies", "fifo,learned", "--scale", "0.5",
    ]  # fmt: skip
    for _ in range(2):
        with pytest.raises(SystemExit) as end:
            app.main([*command, *(part for name, file in files.items() for part in (f"--{name}", str(file)))])
        assert end.value.code == 0
        content = json.loads(files["json"].read_text())
        assert list(content["policies"]) == ["fifo", "learned"] and content["sequences"] == ["left", "right"]
        assert all(len(row["minutes"]) == 2 for row in content["policies"].values())
        assert files["markdown"].read_text() in capsys.readouterr().out
        assert files["figure"].read_bytes().startswith(b"\x89PNG")
        cells = sorted(path.name for path in (tmp_path / "out").iterdir() if path.is_dir())
        assert cells == ["fifo-256", "learned-256"]
        files["json"].unlink()
