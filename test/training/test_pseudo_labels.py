"""Films that label themselves: who comes back is written down, who does not is left out."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from sam2lite_core.errors import ConfigurationError, SourceError
from sam2lite_core.tracker import Tracker
from training.config import Augmentation, DataConfig, SourceConfig
from training.datasets.stream import open_source
from training.pseudo_labels import (
    MARKER,
    MOVES,
    Trust,
    find_objects,
    label_films,
    own_motion,
    starts,
    suggest,
    there_and_back,
)
from training.synthesis import SynthesisConfig

HEIGHT, WIDTH, FRAMES = 240, 432, 6
TRUST = Trust(frames=FRAMES, stretches=1, rows=3, columns=3)


@pytest.fixture(scope="module")
def tracker() -> Tracker:
    return Tracker("tiny", scale=0.5, threads=1)


def background() -> np.ndarray:
    rng = np.random.default_rng(0)
    return cv2.resize(rng.integers(60, 120, (15, 27, 3), np.uint8), (WIDTH, HEIGHT))


def disk(x: int, y: int, radius: int = 40) -> np.ndarray:
    canvas = np.zeros((HEIGHT, WIDTH), np.uint8)
    cv2.circle(canvas, (x, y), radius, 1, -1)
    return canvas.astype(bool)


def paste(image: np.ndarray, x: int, colour: tuple[int, int, int]) -> None:
    """A disk of a colour, with spots on it that move with it."""
    spots = np.random.default_rng(1).uniform(0.4, 1.0, (12, 12)).astype(np.float32)
    shades = cv2.resize(spots, (81, 81), interpolation=cv2.INTER_CUBIC)[..., None]
    inside = disk(x, 120)
    patch = (shades * np.array(colour)).clip(0, 255).astype(np.uint8)
    image[inside] = patch[inside[80:161, x - 40 : x + 41]]


def film(leaves: bool) -> list[np.ndarray]:
    """A red disk moves right, a blue one left, until it is gone for good after half of the film if it `leaves`."""
    images = []
    for t in range(FRAMES):
        image = background()
        paste(image, 90 + 6 * t, (240, 60, 40))
        if not leaves or t < FRAMES // 2:
            paste(image, 330 - 6 * t, (40, 60, 250))
        images.append(image)
    return images


def test_what_moves_beyond_the_camera_stands_out() -> None:
    images = [np.roll(image, 5 * t, axis=1) for t, image in enumerate(film(leaves=False))]
    moves = own_motion(images[:3])
    # Two frames at 6 px each, of 432; all else moves with the camera.
    assert np.median(moves[disk(90, 120, 30)]) == pytest.approx(12 / WIDTH, rel=0.25)
    assert np.median(moves[disk(330, 120, 30)]) == pytest.approx(12 / WIDTH, rel=0.25)
    assert np.median(moves) < MOVES / 3


def test_what_moves_is_asked_for_by_boxes_and_clicks() -> None:
    moves = np.zeros((HEIGHT, WIDTH), np.float32)
    moves[disk(216, 120, 45)] = 2 * MOVES
    box, click = suggest(moves, TRUST)
    assert box.box is not None and box.box.tolist() == pytest.approx([171, 75, 262, 166], abs=8)
    assert click.points is not None and click.points.tolist() == [[216.0, 120.0]], (
        "the grid's only click that moves"
    )
    assert suggest(np.zeros_like(moves), TRUST) == []


def test_moving_objects_are_found(tracker: Tracker) -> None:
    images = film(leaves=False)[:3]
    found = find_objects(tracker, images, TRUST)
    assert len(found) == 2
    for mask in found:
        assert mask.shape == (HEIGHT, WIDTH) and TRUST.smallest <= mask.mean() <= TRUST.largest
    assert np.sum(found, axis=0).max() == 1, "no pixel belongs to two objects"
    for true in (disk(90, 120), disk(330, 120)):
        assert max((mask & true).sum() / (mask | true).sum() for mask in found) > 0.7
    assert len(find_objects(tracker, images, Trust(rows=3, columns=3, objects=1))) == 1
    assert find_objects(tracker, images, Trust(rows=3, columns=3, largest=0.01)) == []
    assert find_objects(tracker, images[:1] * 3, TRUST) == [], "nothing moves"


def test_who_comes_back_is_kept_and_numbered_anew(tracker: Tracker) -> None:
    blue, red = disk(330, 120), disk(90, 120)
    labels, agreements = there_and_back(tracker, film(leaves=False), [blue, red], TRUST)
    assert labels.shape == (FRAMES, HEIGHT, WIDTH) and len(agreements) == 2
    assert np.array_equal(labels[0], 1 * blue + 2 * red), "the first frame as it was shown"
    last = labels[-1] == 2
    true = disk(90 + 6 * (FRAMES - 1), 120)
    assert (last & true).sum() / (last | true).sum() > 0.7
    images = film(leaves=True)
    for image in images[: FRAMES // 2]:  # not a look-alike of the other: who leaves is a square here
        image[disk(330, 120, 80)] = background()[disk(330, 120, 80)]
        image[20:60, 380:420] = (20, 230, 230)
    blue = np.zeros_like(red)
    blue[20:60, 380:420] = True
    labels, agreements = there_and_back(tracker, images, [blue, red], TRUST)
    assert len(agreements) == 1 and agreements[0] >= TRUST.agreement
    assert np.array_equal(labels[0], 1 * red), "blue did not come back; red is the only one left"
    assert set(np.unique(labels)) == {0, 1}


def test_nobody_is_trusted_beyond_measure(tracker: Tracker) -> None:
    strict = Trust(frames=FRAMES, agreement=1.0)
    labels, agreements = there_and_back(tracker, film(leaves=False), [disk(90, 120)], strict)
    assert agreements == [] and not labels.any()


def test_stretches_are_spread_over_a_film() -> None:
    trust = Trust(frames=10, stretches=3)
    assert starts(100, trust) == [0, 45, 90]
    assert starts(25, trust) == [0, 15]
    assert starts(10, trust) == [0]
    assert starts(4, trust) == [0]


def write_film(folder: Path, images: list[np.ndarray]) -> None:
    folder.mkdir(parents=True)
    for t, image in enumerate(images):
        assert cv2.imwrite(str(folder / f"{t:03d}.png"), image[..., ::-1])


def test_a_labelled_film_is_a_source_of_clips(tracker: Tracker, tmp_path: Path) -> None:
    write_film(tmp_path / "films/disks", film(leaves=False))
    told: list[str] = []
    count = label_films(tmp_path / "films", tmp_path / "out", tracker, TRUST, told.append)
    assert count >= 1 and len(told) == 1 and told[0].startswith("disks-00000: ")
    document = json.loads((tmp_path / "out" / MARKER).read_text())
    assert sum(map(len, document["agreement"].values())) == count
    assert document["trust"]["frames"] == FRAMES
    data = DataConfig(augmentation=Augmentation(crop=1.0, flip=0.0, jitter=0.0, blur=0.0, max_gap=1))
    source = open_source(SourceConfig(kind="mose", root=tmp_path / "out"), data, 0)
    clip = source.clip(np.random.default_rng(0), SynthesisConfig(height=240, width=432, frames=4))
    assert clip.images.shape == (4, 240, 432, 3) and clip.labels[0].any()
    with pytest.raises(SourceError, match="holds an earlier result"):
        label_films(tmp_path / "films", tmp_path / "out", tracker, TRUST, told.append)


def test_a_film_without_objects_leaves_nothing(tracker: Tracker, tmp_path: Path) -> None:
    write_film(tmp_path / "films/grey", [np.full((HEIGHT, WIDTH, 3), 90, np.uint8)] * FRAMES)
    nothing = Trust(frames=FRAMES, stretches=1, rows=1, columns=1, largest=0.008)
    with pytest.raises(SourceError, match="films: no object of any film came back"):
        label_films(tmp_path / "films", tmp_path / "out", tracker, nothing, lambda line: None)
    assert [path.name for path in tmp_path.iterdir()] == ["films"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"frames": 1}, "frames is 1"),
        ({"objects": 0}, "objects is 0"),
        ({"agreement": 1.2}, "agreement is 1.2"),
    ],
)
def test_trust_that_cannot_be_is_refused(change: dict[str, int], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        Trust(**change)
