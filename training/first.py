"""Train the first student from rendered clips: `python -m training.first --stills DIR --out DIR --minutes 90`.

Phases share one cosine schedule over wall-clock time: small frames first, larger ones for the last part. A checkpoint
is written every few minutes; `--resume` goes on from it.
"""

import argparse
import json
import math
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import nn

from sam2lite_core.model.student import Student
from sam2lite_core.variants import get_variant
from training.checkpoint import save
from training.data import load_stills, loader
from training.synthesis import SynthesisConfig
from training.unroll import UnrollConfig, Unroller


@dataclass(frozen=True)
class Phase:
    """Part of a run up to `until` of its time: frame size, clip length, batch, and how memory is written."""

    until: float
    height: int
    width: int
    frames: int
    batch: int
    pooled: bool
    budgets: tuple[int, ...]
    smallest: float


PHASES = (
    # A token per patch as at scale .5 on the robot: few tokens a frame first, then that scale's own shape, then
    # pooled tokens as at scale 1.
    Phase(0.5, 224, 224, 5, 7, False, (64, 128, 192), 0.15),
    Phase(0.8, 240, 432, 4, 4, False, (128, 256, 384), 0.1),
    Phase(1.0, 320, 432, 4, 4, True, (64, 96, 160), 0.1),
)


class Average:
    """Exponential moving average of parameters and buffers."""

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay = decay
        self.state = {name: value.detach().clone() for name, value in model.state_dict().items()}

    @torch.no_grad()
    def update(self, model: nn.Module, step: int) -> None:
        """Fold the model in; early steps weigh more, so that the random start is forgotten."""
        decay = min(self.decay, (1 + step) / (10 + step))
        for name, value in model.state_dict().items():
            if value.is_floating_point():
                self.state[name].lerp_(value, 1.0 - decay)
            else:
                self.state[name].copy_(value)


def learning_rate(progress: float, step: int, peak: float) -> float:
    """Linear warm-up over 300 steps, then a cosine over the run's time down to 1 % of the peak."""
    return (
        peak * min(1.0, (step + 1) / 300) * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * min(1.0, progress))))
    )


def parameter_groups(student: Student, decay: float) -> list[dict[str, object]]:
    """Weight decay for matrices and kernels only."""
    matrices = [p for p in student.parameters() if p.ndim > 1]
    others = [p for p in student.parameters() if p.ndim <= 1]
    return [{"params": matrices, "weight_decay": decay}, {"params": others, "weight_decay": 0.0}]


def main() -> None:
    """Parse the arguments and train."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--stills", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--variant", default="tiny")
    parser.add_argument("--minutes", type=float, default=90.0)
    parser.add_argument("--rate", type=float, default=1e-3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--init", type=Path, help="checkpoint to start from with a fresh schedule")
    parser.add_argument("--resume", action="store_true")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)
    args.out.mkdir(parents=True, exist_ok=True)

    student = Student(get_variant(args.variant)).to(memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(parameter_groups(student, 0.05), lr=args.rate, betas=(0.9, 0.98))
    average = Average(student, 0.999)
    step, spent = 0, 0.0
    latest = args.out / "last.pt"
    if args.init is not None:
        # Parts that are newer than the checkpoint keep their initial values.
        student.load_state_dict(torch.load(args.init, weights_only=True)["average"], strict=False)
        average = Average(student, 0.999)
    if args.resume and latest.exists():
        state = torch.load(latest, weights_only=True)
        student.load_state_dict(state["student"])
        optimizer.load_state_dict(state["optimizer"])
        average.state = state["average"]
        step, spent = state["step"], state["spent"]
    stills = load_stills(args.stills)
    generator = torch.Generator().manual_seed(args.seed + 1 + step)
    log = (args.out / "log.jsonl").open("a")
    phase: Phase | None = None
    config = UnrollConfig()
    batches = iter(())
    last_saved = time.monotonic()
    while spent < args.minutes * 60:
        start = time.monotonic()
        progress = spent / (args.minutes * 60)
        wanted = next(p for p in PHASES if progress < p.until or p is PHASES[-1])
        if wanted is not phase:
            phase = wanted
            config = UnrollConfig(pooled=phase.pooled, budgets=phase.budgets)
            shape = SynthesisConfig(phase.height, phase.width, phase.frames, smallest=phase.smallest)
            batches = iter(loader(stills, shape, phase.batch, args.seed + 1000 * step, args.workers))
        clip = next(batches)
        waited = time.monotonic() - start
        rate = learning_rate(progress, step, args.rate)
        for group in optimizer.param_groups:
            group["lr"] = rate
        with torch.autocast("cpu", torch.bfloat16):
            loss, parts = Unroller(student, config, generator)(clip, progress)
        if not torch.isfinite(loss):
            save(args.out / "bad_batch.pt", {"clip": clip, "student": student.state_dict()})
            raise SystemExit(
                f"loss is {float(loss)} at step {step}; the batch is in {args.out / 'bad_batch.pt'}"
            )
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        # The gate's gradients, estimated from what it dropped, are tens of times the others: clipped together, they
        # would leave nothing of those.
        gate = set(student.gate.parameters())
        nn.utils.clip_grad_norm_(gate, 1.0)
        norm = nn.utils.clip_grad_norm_([p for p in student.parameters() if p not in gate], 1.0)
        optimizer.step()
        average.update(student, step)
        step += 1
        took = time.monotonic() - start
        spent += took
        row = {
            "step": step,
            "loss": float(loss.detach()),
            "rate": rate,
            "s": took,
            "wait": waited,
            "norm": float(norm),
            **parts,
        }
        log.write(json.dumps({k: round(v, 5) for k, v in row.items()}) + "\n")
        log.flush()
        if time.monotonic() - last_saved > 180 or spent >= args.minutes * 60:
            last_saved = time.monotonic()
            state = {
                "student": student.state_dict(),
                "optimizer": optimizer.state_dict(),
                "average": average.state,
            }
            save(
                latest,
                {**state, "step": step, "spent": spent, "config": asdict(config), "variant": args.variant},
            )


if __name__ == "__main__":
    main()
