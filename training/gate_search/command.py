"""Teach the gate what to keep.

The student stays as it is. What a token is worth shows only frames later, in a mask that some other token might have
saved as well; gradients and attention both mislead there (training/RESULTS.md). So the search asks the question itself:
a handful of numbers says what is kept, clips run with a bank of that kind, and an evolution strategy (CMA-ES) looks for
the numbers with the best masks. The gate's network then learns to give the scores that they give.
"""

from pathlib import Path
from typing import Any

import numpy as np
import torch

from sam2lite_core.backends.model_files import WEIGHTS_FILE
from sam2lite_core.backends.torch import load_shipped
from sam2lite_core.export.onnx import export_student
from sam2lite_core.model.bank import Bank
from sam2lite_core.model.student import Student
from training import checkpoint
from training.data.clip import SynthesisConfig
from training.data.stream import rendered_batches
from training.data.synthesis.stills import Stills
from training.gate_search.imitate import imitate
from training.gate_search.rule import NEWEST, Rule
from training.gate_search.search import EncodedBatches, SearchConfig, search
from training.students.load import load_average

BATCH = 4
"""Clips that are tracked together."""


def load(path: Path) -> tuple[dict[str, Any], Student]:
    """Load a checkpoint of ours and its averaged student; or those of a shipped model, by its weights file."""
    if path.name != WEIGHTS_FILE:
        return load_average(path)
    student, info = load_shipped(path)
    return {"variant": info.variant, "note": info.note}, student


def save(path: Path, state: dict[str, Any], student: Student, rule: Rule) -> None:
    """Save a student as it was loaded: as a checkpoint, or as a model's folder."""
    if "note" in state:
        export_student(student, path, state["note"])
    else:
        checkpoint.save(path, {**state, "average": student.state_dict(), "gate_rule": rule.vector})


def teach_gate(
    stills: Path, start: Path, out: Path, *, minutes: float, clips: int, frames: int, passes: int, steps: int, seed: int
) -> dict[str, Any]:  # fmt: skip
    """Search for a rule, and train the gate of a student to imitate it.

    Args:
        stills: folder that clips are rendered from.
        start, out: checkpoint, or a shipped model's weights file and the new folder.
        minutes: of search; 0 takes the rule that it starts from.
        clips, frames: number of clips that rules are tried on, and their length.
        passes: through a clip, forward and backward in turn.
        steps: of the gate's training.
        seed: of everything drawn.

    Returns:
        The rule, its IoU in the search and on other clips, and the gate's distance from it.

    Raises:
        ModelFileError, SourceError: naming the file.
    """
    torch.manual_seed(seed)
    state, student = load(start)
    shape = SynthesisConfig(240, 432, frames, absence=0.3, smallest=0.08)
    drawn = rendered_batches(Stills(stills), shape, BATCH, seed + 77)
    count = max(1, clips // BATCH)
    config = SearchConfig()
    rule, quality = Rule(), None
    if minutes > 0.0:
        rule, quality = search(EncodedBatches(student, drawn, count, passes), config, minutes, seed)
    fresh = EncodedBatches(student, drawn, count, passes)
    rules = {"newest": NEWEST, "start": Rule()} | ({} if quality is None else {"found": rule})
    checked = {
        name: [round(float(fresh.quality(some, budget).mean()), 4) for budget in config.budgets]
        for name, some in rules.items()
    }
    # What was found may fit the clips that it was looked for on.
    rule = rules[max(checked, key=lambda name: np.mean(checked[name]))]
    banks: list[Bank] = []
    fresh.quality(rule, 256, banks)
    distance = imitate(student, rule, banks, steps, torch.Generator().manual_seed(seed))
    save(out, state, student, rule)
    return {"rule": rule.vector, "iou": quality, "on other clips": checked, "distance": distance}
