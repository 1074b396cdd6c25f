"""Teach the gate what to keep.

The student stays as it is. What a token is worth shows only frames later, in a mask that some other token might have
saved as well; gradients and attention both mislead there (training/RESULTS.md). So the search asks the question itself:
a handful of numbers says what is kept, clips run with a bank of that kind, and an evolution strategy (CMA-ES) looks for
the numbers with the best masks. The gate's network then learns to give the scores that they give.
"""

import argparse
import json
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
from training.data.stream import load_stills, loader
from training.gate_search.imitate import imitate
from training.gate_search.rule import NEWEST, Rule
from training.gate_search.search import SearchConfig, Watched, search
from training.students.load import load_average


def load(path: Path) -> tuple[dict[str, Any], Student]:
    """A checkpoint of ours and its averaged student; or those of a shipped model, whose weights file says as much."""
    if path.name != WEIGHTS_FILE:
        return load_average(path)
    student, info = load_shipped(path)
    return {"variant": info.variant, "note": info.note}, student


def save(path: Path, state: dict[str, Any], student: Student, rule: Rule) -> None:
    """As it was loaded: a checkpoint, or a model's folder."""
    if "note" in state:
        export_student(student, path, state["note"])
    else:
        checkpoint.save(path, {**state, "average": student.state_dict(), "gate_rule": rule.vector})


def main() -> None:
    """Parse the arguments, look for a rule and train the gate of a student."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--stills", type=Path, required=True)
    parser.add_argument(
        "--checkpoint", type=Path, required=True, help="of training, or a model's weights.safetensors"
    )
    parser.add_argument("--out", type=Path, required=True, help="checkpoint, or the model's new folder")
    parser.add_argument(
        "--minutes", type=float, default=15.0, help="of search; 0 takes the rule that it starts from"
    )
    parser.add_argument("--clips", type=int, default=24)
    parser.add_argument("--frames", type=int, default=14)
    parser.add_argument("--passes", type=int, default=3, help="forward and backward in turn")
    parser.add_argument("--steps", type=int, default=1500, help="of the network's training")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)
    state, student = load(args.checkpoint)
    shape = SynthesisConfig(240, 432, args.frames, absence=0.3, smallest=0.08)
    clips = iter(loader(load_stills(args.stills), shape, 4, args.seed + 77, 0))
    count = max(1, args.clips // 4)
    config = SearchConfig()
    rule, quality = Rule(), None
    if args.minutes > 0.0:
        rule, quality = search(Watched(student, clips, count, args.passes), config, args.minutes, args.seed)
    fresh = Watched(student, clips, count, args.passes)
    rules = {"newest": NEWEST, "start": Rule()} | ({} if quality is None else {"found": rule})
    checked = {
        name: [round(float(fresh.quality(some, budget).mean()), 4) for budget in config.budgets]
        for name, some in rules.items()
    }
    # What was found may fit the clips that it was looked for on.
    rule = rules[max(checked, key=lambda name: np.mean(checked[name]))]
    banks: list[Bank] = []
    fresh.quality(rule, 256, banks)
    distance = imitate(student, rule, banks, args.steps, torch.Generator().manual_seed(args.seed))
    print(json.dumps({"rule": rule.vector, "iou": quality, "on other clips": checked, "distance": distance}))
    save(args.out, state, student, rule)


if __name__ == "__main__":
    main()
