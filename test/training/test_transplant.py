"""A student that begins as another one: what is kept, and what is fitted, against least squares by other means."""

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from torch import Tensor

from sam2lite_core.errors import ConfigurationError, SourceError
from sam2lite_core.model.student import Student
from sam2lite_core.variants import get_variant
from training import checkpoint
from training.__main__ import main
from training.config.run import PACKAGED
from training.students.load import load_average
from training.students.pretrained import fill_trunk
from training.students.transplant import READERS, SIZE, read_pictures, transplant
from training.teachers.image_features import RidgeRegression


@pytest.fixture(scope="module")
def pictures() -> list[Tensor]:
    """Smooth noise: neighbouring pixels alike, as in pictures."""
    noise = np.random.default_rng(0).uniform(0, 255, (4, 3, 12, 16)).astype(np.float32)
    smooth = torch.nn.functional.interpolate(torch.from_numpy(noise), size=(96, 128), mode="bicubic")
    return [batch.clamp(0, 255).to(torch.uint8) for batch in smooth.split(2)]


@pytest.fixture(scope="module")
def donor() -> Student:
    torch.manual_seed(3)
    student = Student(get_variant("tiny")).eval()
    fill_trunk(student, PACKAGED)
    return student


@pytest.mark.parametrize("variant", ["tiny", "small"])
def test_what_both_have_is_kept_and_what_reads_the_encoder_says_the_same(donor, pictures, variant):
    content = transplant(donor, variant, pictures)
    student = Student(get_variant(variant)).eval()
    student.load_state_dict(content["average"])
    kept, theirs = student.state_dict(), donor.state_dict()
    for name in ("decoder.norm.weight", "head.conv8.weight", "gate.layers.0.weight", "log_scale"):
        assert torch.equal(kept[name], theirs[name])
    # What memory writes of masks stands beside the features, and is not fitted.
    assert torch.equal(kept["value.weight"][:, -2:], theirs["value.weight"][:, -2:])
    images = pictures[0].float()
    with torch.no_grad():
        ours, old = student.encoder(images), donor.encoder(images)
        for name in (*READERS[8], *READERS[4]):
            stride = 8 if name in READERS[8] else 4
            fitted = student.get_submodule(name)(getattr(ours, f"stride{stride}"))
            wanted = donor.get_submodule(name)(getattr(old, f"stride{stride}"))
            far = (fitted - wanted).pow(2).mean() / wanted.var()
            # The same trunk says the same; another one much of it.
            assert far < (0.01 if variant == "tiny" else 0.6)
            assert content["fit"][name] > (0.99 if variant == "tiny" else 0.4)
    # A random block of the donor's is not linear in the trunk, but most of it goes through.
    assert all(content["fit"][name] > 0.5 for name in READERS[16])


def test_new_features_are_the_trunks_and_as_large_as_the_norm_wants_them(donor, pictures):
    student = Student(get_variant("small")).eval()
    student.load_state_dict(transplant(donor, "small", pictures)["average"])
    seen = []
    student.encoder.norm.register_forward_hook(lambda _, given, output: seen.append(given[0]))
    with torch.no_grad():
        for batch in pictures:
            student.encoder(batch.float())
    given = torch.cat([tokens.flatten(0, 1) for tokens in seen])
    assert given.mean(0).abs().max() < 0.05 and given.pow(2).mean() == pytest.approx(1.0, rel=0.02)
    # 112 and 192 channels into 384: none is lost.
    joined = torch.cat([student.encoder.side16.weight, student.encoder.side32.weight], dim=1).flatten(1)
    assert torch.linalg.matrix_rank(joined.double()) == 304
    grid = torch.randn(1, 384, 5, 6)
    with torch.no_grad():
        assert all(torch.equal(block(grid), grid) for block in student.encoder.blocks)


def test_regression_in_pieces_is_least_squares_at_once():
    torch.manual_seed(0)
    given, mix = torch.randn(900, 7, dtype=torch.double), torch.randn(7, 3, dtype=torch.double)
    wanted = given @ mix + 2.5 + 0.3 * torch.randn(900, 3, dtype=torch.double)
    sums = RidgeRegression()
    for start in range(0, 900, 250):
        sums.add(given[start : start + 250], wanted[start : start + 250])
    solution, share = sums.solve()
    padded = torch.cat([given, torch.ones(900, 1, dtype=torch.double)], 1)
    by_hand = np.linalg.solve((padded.T @ padded).numpy() + 10.0 * np.eye(8), (padded.T @ wanted).numpy())
    assert np.allclose(solution, by_hand)
    residual = (wanted - padded @ solution).pow(2).sum() / (wanted - wanted.mean(0)).pow(2).sum()
    assert share == pytest.approx(1.0 - float(residual), abs=1e-9) and share > 0.95


def test_the_command_writes_what_a_run_can_start_from(donor, tmp_path: Path, capsys):
    folder = tmp_path / "pictures"
    folder.mkdir()
    for index, size in enumerate([(300, 500), (120, 90), (240, 432), (500, 300)]):
        noise = np.random.default_rng(index).integers(0, 255, (*size, 3), np.uint8)
        cv2.imwrite(str(folder / f"{index}.png"), cv2.GaussianBlur(noise, (0, 0), 4))
    start, out = tmp_path / "donor.pt", tmp_path / "small.pt"
    checkpoint.save(start, {"variant": "tiny", "average": donor.state_dict()})
    arguments = ["--variant", "small", "--pictures", str(folder), "--out", str(out), "--count", "3"]
    with pytest.raises(SystemExit) as end:
        main(["transplant", "--checkpoint", str(start), *arguments])
    assert end.value.code == 0 and "variance explained: key" in capsys.readouterr().out
    assert load_average(out)[1].variant.name == "small"


def test_pictures_are_spread_over_the_folder_and_cut_to_one_size(tmp_path: Path):
    for index in range(10):
        cv2.imwrite(str(tmp_path / f"{index}.png"), np.full((100 + index, 300, 3), 20 * index, np.uint8))
    batches = read_pictures(tmp_path, 3, batch=2)
    assert [tuple(batch.shape) for batch in batches] == [(2, 3, *SIZE), (1, 3, *SIZE)]
    assert [int(picture[0, 0, 0]) for batch in batches for picture in batch] == [0, 60, 120]
    assert [int(p[0, 0, 0]) for batch in read_pictures(tmp_path, 7) for p in batch] == [
        20 * k for k in (0, 1, 2, 4, 5, 7, 8)
    ]
    assert sum(len(batch) for batch in read_pictures(tmp_path, 50)) == 10


def test_what_cannot_begin_is_refused(donor, pictures, tmp_path: Path):
    with pytest.raises(ConfigurationError, match="tiny to base: both need an encoder with a trunk"):
        transplant(donor, "base", pictures)
    with pytest.raises(ConfigurationError, match="no picture"):
        transplant(donor, "small", [])
    with pytest.raises(SourceError, match="no such folder"):
        read_pictures(tmp_path / "none", 3)
    with pytest.raises(SourceError, match="no JPEG or PNG picture"):
        read_pictures(tmp_path, 3)
