"""Films that label themselves: who comes back is written down, who does not is left out."""

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from sam2lite_core.errors import ConfigurationError, SourceError
from sam2lite_core.media.label_map import read_label_map
from sam2lite_core.tracker import Tracker
from training.__main__ import main
from training.config import loading
from training.config.data import Augmentation, DataConfig, SourceConfig
from training.data.clip import SynthesisConfig
from training.data.mixture import open_source
from training.data.pasted import VideoFile
from training.labelling.moving_objects import Search
from training.labelling.pseudo_labels import (
    MARKER,
    UNSURE_END,
    Trust,
    label_films,
    read_stretch,
    starts,
    there_and_back,
    trusted,
)

from .films import FRAMES, HEIGHT, WIDTH, disk, film

TRUST = Trust(frames=FRAMES - UNSURE_END, stretches=1, search=Search(rows=3, columns=3))


@pytest.fixture(scope="module")
def tracker() -> Tracker:
    return Tracker("tiny", scale=0.5, threads=1)


def maps(*columns: int | None, number: int = 1) -> np.ndarray:
    """(T, 20, 100) label maps of a bar of 20 px that begins at these columns; None where there is none."""
    out = np.zeros((len(columns), 20, 100), np.uint8)
    for t, column in enumerate(columns):
        if column is not None:
            out[t, :, column : column + 20] = number
    return out


# A bar that is off by 2 px has an IoU of 18/22, by 5 of 15/25, by 10 of 10/30; the last frame does not count.
@pytest.mark.parametrize(
    ("there", "back", "agreement"),
    [
        (maps(0, 5, 10, 15, 20), maps(0, 5, 10, 15, 20), 1.0),
        (maps(0, 5, 10, 15, 20), maps(0, 7, 10, 15, 20), (3 + 18 / 22) / 4),
        (maps(0, 5, 10, 15, 20), maps(5, 5, 10, 15, 20), None),  # comes back to another place
        (maps(0, 5, 10, 15, 20), maps(0, 5, 20, 15, 20), None),  # .83 on average, but lost on the way
        (maps(0, 5, 10, 15, 20), maps(2, 10, 15, 15, 20), (18 / 22 + 0.6 + 0.6 + 1) / 4),
        (maps(0, 5, 10, 15, 20), maps(2, 10, 15, 20, 20), None),  # .66 on average
        (maps(0, 5, 10, 15, 20), maps(None, None, None, None, 20), None),
        (maps(0, 5, 10, 15, None), maps(0, 5, 10, 15, None), None),  # gone at the end
        (maps(0, None, None, None, 20), maps(0, None, None, None, 20), None),  # hardly ever seen
        (maps(0, 5, None, 15, 20), maps(0, 5, None, 15, 20), 1.0),  # hidden for a moment
        (maps(0, 5, 10, None, 20), maps(0, 5, 10, 15, 20), None),  # hidden, says only one of them
    ],
)
def test_who_comes_back_can_be_trusted(there: np.ndarray, back: np.ndarray, agreement: float | None) -> None:
    kept, agreements = trusted(there, back, Trust())
    assert agreements == ([] if agreement is None else [pytest.approx(agreement)])
    assert np.array_equal(kept, there if agreement is not None else np.zeros_like(there))


def test_objects_are_judged_one_by_one_and_numbered_anew() -> None:
    there = np.maximum(maps(0, 0, 0, number=1), maps(50, 50, 50, number=2))
    back = np.maximum(maps(20, 0, 0, number=1), maps(50, 50, 50, number=2))
    kept, agreements = trusted(there, back, Trust())
    assert agreements == [1.0] and np.array_equal(kept, maps(50, 50, 50, number=1))


def test_a_student_follows_disks_there_and_back(tracker: Tracker) -> None:
    blue, red = disk(330, 120), disk(90, 120)
    there, back = there_and_back(tracker, film(), [blue, red], TRUST.search.smallest)
    assert there.shape == back.shape == (FRAMES, HEIGHT, WIDTH)
    assert np.array_equal(there[0], 1 * blue + 2 * red), "the first frame as it was shown"
    assert np.array_equal(back[-1], there[-1]), "the way back begins where the way there ended"
    for label_map, x in ((there[-1], 90 + 6 * (FRAMES - 1)), (back[0], 90)):
        true = disk(x, 120)
        assert ((label_map == 2) & true).sum() / ((label_map == 2) | true).sum() > 0.7
    assert len(trusted(there, back, TRUST)[1]) == 2


def test_who_leaves_does_not_cost_others_their_trust(tracker: Tracker) -> None:
    blue, red = disk(330, 120), disk(90, 120)
    there, back = there_and_back(tracker, film(blue_leaves=3), [blue, red], TRUST.search.smallest)
    assert not (there[-1] == 1).any() and (back[0] == 1).any(), "shown again where it was last seen"
    kept, agreements = trusted(there, back, TRUST)
    assert len(agreements) == 1
    assert np.array_equal(kept[0], 1 * red), "blue was gone at the end; red is the only one left"


def test_stretches_are_spread_over_a_film() -> None:
    trust = Trust(frames=10, stretches=3)
    # The last two frames are left alone.
    assert starts(102, trust) == [0, 45, 90]
    assert starts(27, trust) == [0, 15]
    assert starts(12, trust) == [0]
    assert starts(4, trust) == [0]


def write_film(folder: Path, images: list[np.ndarray]) -> None:
    folder.mkdir(parents=True)
    for t, image in enumerate(images):
        assert cv2.imwrite(str(folder / f"{t:03d}.png"), image[..., ::-1])


def test_a_labelled_film_is_a_source_of_clips(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_film(tmp_path / "films/two.disks", film())
    out = tmp_path / "out"
    arguments = [
        "label-films",
        "--root",
        str(tmp_path / "films"),
        "--out",
        str(out),
        "--variant",
        "tiny",
        "--scale",
        "0.5",
    ]
    arguments += ["--threads", "1", "--frames", "4"]
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code in (0, None)
    told = capsys.readouterr().out.splitlines()
    assert told[0] == "two.disks-00000: 2 found, 2 came back"
    assert told[1] == f"2 objects in {out}; train with a source {{kind: mose, root: {out}}}"
    document = json.loads((out / MARKER).read_text())
    assert document["labelled_by"] == {"variant": "tiny", "model": None, "scale": 0.5}
    assert document["trust"]["frames"] == 4 and len(document["agreement"]["two.disks-00000"]) == 2
    for t, image in enumerate(film()[:4]):
        written = cv2.imread(str(out / f"train/JPEGImages/two.disks-00000/{t:05d}.jpg"))[..., ::-1]
        assert np.abs(written.astype(int) - image).mean() < 4, "this frame, in these colours"
        labels = read_label_map(out / f"train/Annotations/two.disks-00000/{t:05d}.png")
        red = labels[120, 90 + 6 * t]
        assert red > 0 and ((labels == red) & disk(90 + 6 * t, 120)).sum() / (labels == red).sum() > 0.8
    data = DataConfig(augmentation=Augmentation(crop=1.0, flip=0.0, jitter=0.0, blur=0.0, max_gap=1))
    source = open_source(SourceConfig(kind="mose", root=out), data, 0)
    clip = source.clip(np.random.default_rng(0), SynthesisConfig(height=240, width=432, frames=4))
    assert clip.images.shape == (4, 240, 432, 3) and set(np.unique(clip.labels)) == {0, 1, 2}
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2 and "holds an earlier result" in capsys.readouterr().err


def test_what_cannot_be_read_is_named_or_left_out(tracker: Tracker, tmp_path: Path) -> None:
    write_film(tmp_path / "films/good", film())
    write_film(tmp_path / "films/wide", [*film()[:3], *[image[:200] for image in film()[3:]]])
    root, out = tmp_path / "films", tmp_path / "out"
    told: list[str] = []
    with pytest.raises(SourceError, match="wide: frame size changes from 432x240 to 432x200 at frame 3"):
        label_films(root, out, tracker, TRUST, told.append)
    assert not out.exists()
    assert label_films(root, out, tracker, TRUST, told.append, skip_bad=True) == 2
    assert told[-1].startswith("wide-00000: left out: ")
    assert [path.name for path in (out / "train/Annotations").iterdir()] == ["good-00000"]


def test_a_film_without_objects_leaves_nothing(tracker: Tracker, tmp_path: Path) -> None:
    write_film(tmp_path / "films/still", film()[:1] * FRAMES)
    with pytest.raises(SourceError, match="films: no object of any film came back"):
        label_films(tmp_path / "films", tmp_path / "out", tracker, TRUST, lambda line: None)
    assert [path.name for path in tmp_path.iterdir()] == ["films"]


def test_a_header_may_promise_two_frames_more_than_there_are(tmp_path: Path) -> None:
    path = tmp_path / "film.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 24.0, (WIDTH, HEIGHT))
    for image in film() * 4:
        writer.write(np.ascontiguousarray(image[..., ::-1]))
    writer.release()
    video = VideoFile(path)
    video.length += UNSURE_END
    trust = Trust(frames=10, stretches=2)
    stretches = [read_stretch(video, start, trust.frames) for start in starts(video.length, trust)]
    assert [len(images) for images in stretches] == [10, 10]
    video.length = 2
    with pytest.raises(SourceError, match=r"film\.avi: 2 frames; at least 3 are needed"):
        read_stretch(video, 0, 10)


def test_more_objects_than_the_model_follows_are_refused(tracker: Tracker, tmp_path: Path) -> None:
    many = Trust(search=Search(objects=300))
    with pytest.raises(ConfigurationError, match="objects is 300; the model follows"):
        label_films(tmp_path, tmp_path / "out", tracker, many, lambda line: None)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"frames": 2}, "frames is 2, expected at least 3"),
        ({"stretches": 0}, "stretches is 0"),
        ({"agreement": 1.2}, "agreement is 1.2"),
    ],
)
def test_trust_that_cannot_be_is_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        loading.build(Trust, change)
