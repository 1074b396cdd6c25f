"""The search for what memory keeps: its scores by hand, its clips, and a gate that learns to say the same."""

import json
import subprocess
import sys

import pytest
import torch

from sam2lite_core.backends.model_files import WEIGHTS_FILE, find_model
from sam2lite_core.backends.torch import load_shipped
from sam2lite_core.model import bank as memory
from sam2lite_core.model.student import Student
from sam2lite_core.variants import get_variant
from training import checkpoint
from training.data.clip import SynthesisConfig
from training.data.stream import rendered_batches
from training.data.synthesis.drawn_stills import rendered_stills
from training.gate_search import command as gate
from training.gate_search.imitate import imitate
from training.gate_search.rule import Rule
from training.gate_search.search import EncodedBatches, SearchConfig, search, there_and_back


def bank_of(*rows, width=256):
    """Rows of (age, share, known, uncertainty, motion), one token each."""
    bank = memory.empty_bank(1, len(rows), width, 1)
    columns = torch.tensor(rows, dtype=torch.float32).T.unsqueeze(1)
    bank = bank._replace(identity=columns[1].unsqueeze(-1), known=columns[2].unsqueeze(-1))
    valid = torch.ones(1, len(rows))
    return bank.with_columns(age=columns[0], uncertainty=columns[3], motion=columns[4], valid=valid)


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ((0, 0, 1, 0, 0), 1.0),
        ((1, 0, 1, 0, 0), 1.0 - 3.0),
        ((8, 0, 1, 0, 0), 1.0 - 3.0 - 2.0 * 3.0),  # log2(8) = 3
        ((0, 0.5, 1, 0, 0), 2.5),
        ((0, 0.5, 0, 0, 0), 1.0),  # a share that is not known says nothing
        ((4, 1.0, 1, 0, 0), 1.0 - 3.0 - 4.0 + 3.0 + 0.5),
        ((0, 0, 1, 0.5, 0), 3.0),
        ((0, 0, 1, 0, 2.0), -1.0),
        ((0, 0, 1, 0, 9.0), -3.0),  # motion counts up to 4
        ((2**12, 0, 1, 0, 0), -20.0),  # 1 - 3 - 24; scores end at 20
    ],
)
def test_scores_by_hand(row, expected):
    rule = Rule(start=1.0, written=3.0, ageing=2.0, objects=3.0, lasting=0.5, borders=4.0, motion=-1.0)
    assert float(rule.scores(bank_of(row))[0, 0]) == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize(
    ("frames", "passes", "expected"),
    [(3, 1, [0, 1, 2]), (3, 3, [0, 1, 2, 1, 0, 1, 2]), (2, 2, [0, 1, 0]), (4, 2, [0, 1, 2, 3, 2, 1, 0])],
)
def test_the_order_of_frames_there_and_back(frames, passes, expected):
    assert there_and_back(frames, passes) == expected


@pytest.fixture(scope="module")
def watched():
    torch.manual_seed(0)
    student = Student(get_variant("tiny")).eval()
    clips = rendered_batches(rendered_stills(6, 0), SynthesisConfig(64, 96, 3), 2, 5)
    return EncodedBatches(student, clips, 1, passes=2)


def test_clips_give_the_same_answer_twice_and_budgets_are_kept(watched):
    banks = []
    first = watched.quality(Rule(), 12, banks)
    assert first.shape == (2,) and ((first >= 0) & (first <= 1)).all()
    assert torch.equal(first, watched.quality(Rule(), 12))
    assert len(banks) == 5  # three frames, and back
    # What was judged on a frame is the bank that the frame before left, and its own 4 x 6 tokens.
    assert all(bank.key.shape[1] == 12 + 24 for bank in banks)
    assert all((bank.column("valid")[:, :12].sum(dim=1) <= 12).all() for bank in banks)


def test_the_search_never_ends_below_its_start(watched, monkeypatch):
    wanted = torch.tensor([1.0, 2.0, 0.5, 1.0, 0.0, 0.0, 0.0])
    monkeypatch.setattr(
        watched, "quality", lambda rule, budget: -(torch.tensor(rule.vector) - wanted).square().sum().view(1)
    )
    found, value = search(watched, SearchConfig(budgets=(8,)), 0.05, seed=0)
    assert value > -0.05 and torch.allclose(torch.tensor(found.vector), wanted, atol=0.3)
    monkeypatch.setattr(watched, "quality", lambda rule, budget: torch.tensor([1.0 if rule == Rule() else 0.0]))
    assert search(watched, SearchConfig(budgets=(8,)), 0.001, seed=0) == (Rule(), 1.0)


def test_the_gates_network_learns_a_rule(watched):
    torch.manual_seed(0)
    student = Student(get_variant("tiny")).eval()
    banks = []
    rule = Rule(start=2.0, written=1.0, ageing=0.5, motion=-1.0, borders=1.0)
    watched.quality(rule, 12, banks)
    distance = imitate(student, rule, banks, 250, torch.Generator().manual_seed(0))
    assert distance < 1.0  # scores reach from -11 to 3, and miss each other by 5 before


def test_the_command(tmp_path, stills_folder):
    torch.manual_seed(0)
    student = Student(get_variant("tiny"))
    start, out = tmp_path / "start.pt", tmp_path / "gated.pt"
    checkpoint.save(start, {"variant": "tiny", "average": student.state_dict()})
    command = [sys.executable, "-m", "training", "gate", "--stills", stills_folder, "--checkpoint", start, "--out", out]
    command += ["--minutes", "0.001", "--clips", "4", "--frames", "2", "--steps", "20", "--threads", "1"]
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, check=True)
    last = json.loads(done.stdout.splitlines()[-1])
    assert set(last["on other clips"]) == {"newest", "start", "found"}
    before, after = student.state_dict(), checkpoint.load(out)["average"]
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed and all(name.startswith("gate.") for name in changed)


def test_a_shipped_model_is_taken_as_it_is_and_exported_again(tmp_path, monkeypatch):
    """Export itself takes a minute and has its own tests: here, what it would be given."""
    shipped = find_model(get_variant("tiny"), None) / WEIGHTS_FILE
    state, student = gate.load(shipped)
    expected, info = load_shipped(shipped)
    assert state == {"variant": "tiny", "note": info.note}
    theirs = expected.state_dict()
    assert all(torch.equal(tensor, theirs[name]) for name, tensor in student.state_dict().items())
    given = []
    monkeypatch.setattr(gate, "export_student", lambda *arguments: given.append(arguments))
    gate.save(tmp_path / "model", state, student, Rule())
    assert given == [(student, tmp_path / "model", info.note)]
