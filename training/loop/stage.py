"""Train one stage: hold the student, its optimiser and its data, and run steps."""

import copy
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import fmean
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from sam2lite_core.model.student import Student
from training.config.objective import UnrollConfig
from training.config.run import RunConfig
from training.config.stages import Phase, StageConfig
from training.data.mixture import Mixture, clip_shape
from training.data.stream import CALIBRATION, NOISE, TRAINING, VALIDATION, batches, checked, collate, rendered
from training.loop.build import build_student, open_image_teacher, open_teacher
from training.loop.device_rate import count_operations
from training.loop.log import Throughput
from training.loop.optimizer import ExponentialMovingAverage, clip_gradients, freeze, learning_rate, parameter_groups
from training.loop.progress import Progress, phase_at
from training.objective.module import ClipLoss
from training.seeds import seed_of
from training.teachers.cache import cached_batches
from training.teachers.image_features import ImageTeacher, fit


@dataclass(frozen=True)
class Outcome:
    """The result of a step: numbers for the log, clips of all processes; or a batch of this process that failed."""

    row: dict[str, float]
    clips: int
    bad_batch: dict[str, Any] | None = None
    wrong: str = ""


class StageTraining:
    """Student, teachers, optimiser and data of a stage."""

    def __init__(
        self, config: RunConfig, stage: StageConfig, accelerator: Accelerator, mixture: Mixture,
        start: Path | None, state: dict[str, Any] | None,
    ) -> None:  # fmt: skip
        """Build a stage from the averaged weights of the checkpoint `start`, or restore a result of `state`.

        Raises:
            ModelFileError: `start` does not fit the variant.
            TeacherError: the teacher cannot be opened.
        """
        self.config, self.stage, self.accelerator, self.mixture = config, stage, accelerator, mixture
        student = build_student(config, stage, start if state is None else None, restored=state is not None)
        self._frozen = freeze(student, stage.frozen)
        teacher, projection = open_teacher(config, student, accelerator.device)
        images, image_projection = open_image_teacher(config, student, accelerator.device)
        # Convolutions on a CPU take half the time with channels last.
        student = student.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # no such overload
        self.loss = ClipLoss(student, teacher, projection, images, image_projection)
        self.loss.to(accelerator.device)
        if stage.int8 and state is None:
            self._calibrate()
        if images is not None and state is None:
            self._fit_projection(images)
        self.average = ExponentialMovingAverage(student, config.optimizer.ema_decay)
        optimizer = torch.optim.AdamW(
            parameter_groups(self.loss, config.optimizer.weight_decay),
            lr=stage.learning_rate,
            betas=config.optimizer.betas,
        )
        if state is not None:
            self._restore(state)
        self._model, self._optimizer = accelerator.prepare(self.loss, optimizer)
        if state is not None:
            self._optimizer.load_state_dict(state["optimizer"])
            torch.set_rng_state(state["random"])
        self._batches: Iterator[dict[str, Any]] | None = None
        self._opened: int | None = None
        self._operations: int | None = None

    @property
    def student(self) -> Student:
        """The student that is trained."""
        return self.loss.student

    def step(self, progress: Progress, total: int | None, stop: bool, throughput: Throughput) -> Outcome | None:
        """Make one optimiser step; do nothing and return None when any process wants to end the run.

        Args:
            progress: moved on.
            total: steps of the stage, None where the clock ends it.
            stop: this process wants to end the run.
            throughput: counts the time spent waiting for data.
        """
        if self.agree(stop):
            return None
        share = progress.share(self.stage, total)
        self._enter_phase(progress, phase_at(self.stage, share))
        now = learning_rate(self.stage, share, progress.step)
        for group in self._optimizer.param_groups:
            group["lr"] = now
        self._model.train()
        for part in self._frozen:
            part.eval()  # batch statistics are weights too
        rows: list[dict[str, float]] = []
        for _ in range(self.config.accumulate):
            with throughput.waiting():
                clip, skipped = self._next_batch(progress)
            with self.accelerator.accumulate(self._model):
                row = self._learn(clip, skipped, share, progress, throughput)
            if isinstance(row, str):
                return Outcome({}, 0, clip, row)
            rows.append(row)
            progress.skipped += int(row.pop("skipped"))
            progress.clips += len(clip["count"]) * self.accelerator.num_processes
            progress.next_batch += self.accelerator.num_processes
        self.average.update(self.student, progress.step)
        progress.step, progress.total_step = progress.step + 1, progress.total_step + 1
        clips = self.config.accumulate * len(clip["count"]) * self.accelerator.num_processes
        return Outcome({**_means(rows), "learning_rate": now}, clips)

    def agree(self, flag: bool) -> bool:
        """Return whether the flag is up on any process."""
        if flag:
            self.accelerator.set_trigger()
        return bool(self.accelerator.check_trigger())

    def largest(self, value: float) -> float:
        """Return the largest of all processes' values."""
        values = torch.tensor([value], dtype=torch.float32, device=self.accelerator.device)
        return float(self.accelerator.gather(values).max())

    @torch.no_grad()
    def validate(self) -> float | None:
        """Return the mean loss of the averaged weights, without teachers, on held-out clips; None where not wanted."""
        wanted = self.config.checkpoints.validation_batches
        if not wanted:
            return None
        student = copy.deepcopy(self.student)
        student.load_state_dict(self.average.state)
        model = ClipLoss(student.eval())
        phase = self.stage.phases[-1]
        losses = []
        for clip, generator in self._held_out(VALIDATION, phase, wanted):
            with self.accelerator.autocast():
                losses.append(float(model(clip, self._unroll(phase), 1.0, generator)[0]))
        return fmean(losses)

    def state(self, progress: Progress) -> dict[str, Any]:
        """Return all that `__init__` needs to go on; `average` is exported."""
        scaler = self.accelerator.scaler
        return {
            "variant": self.config.variant,
            "int8": self.stage.int8,
            "student": self.student.state_dict(),
            "average": dict(self.average.state),
            **{name: None if part is None else part.state_dict() for name, part in self._projections()},
            "optimizer": self._optimizer.state_dict(),
            "scaler": None if scaler is None else scaler.state_dict(),
            "random": torch.get_rng_state(),
            "position": asdict(progress),
        }

    def close(self) -> None:
        """Let workers and prepared parts go, before another stage builds its own."""
        self._batches = None
        self.accelerator.free_memory()

    @torch.no_grad()
    def _calibrate(self) -> None:
        """Calibrate the layers that simulate INT8, alike on every process."""
        from training.students.quantization import calibrating

        phase, count = self.stage.phases[0], self.stage.calibration_batches
        with calibrating(self.student), self.accelerator.autocast():
            for clip, generator in self._held_out(CALIBRATION, phase, count):
                self.loss(clip, self._unroll(phase), 1.0, generator)

    def _fit_projection(self, teacher: ImageTeacher) -> None:
        """Fit the projection to the teacher's features, alike on every process."""
        self.student.eval()
        phase, count = self.stage.phases[0], self.stage.calibration_batches
        held_out = self._held_out(CALIBRATION, phase, count)
        projection = self.loss.image_projection
        assert isinstance(projection, nn.Linear)  # comes with the teacher
        with self.accelerator.autocast():
            images = (clip["images"].flatten(0, 1).permute(0, 3, 1, 2).float() for clip, _ in held_out)
            fit(projection, self.student, teacher, images)

    def _held_out(self, purpose: int, phase: Phase, count: int) -> Iterator[tuple[dict[str, Tensor], torch.Generator]]:
        """Yield the same held-out batches each time, with their random numbers."""
        key = (self.config.seed, purpose)
        stream = batches(self.mixture, phase, key).dataset
        for number in range(count):
            clip, _ = checked(collate([stream[number * phase.batch + index] for index in range(phase.batch)]))
            moved = {name: value.to(self.accelerator.device) for name, value in clip.items()}
            moved = rendered(moved, clip_shape(self.mixture, phase), *key, number)
            yield moved, torch.Generator().manual_seed(seed_of(*key, NOISE, number))

    def _learn(
        self, clip: dict[str, Any], skipped: int, share: float, progress: Progress, throughput: Throughput
    ) -> dict[str, float] | str:
        """Run one batch forward and backward, and the optimiser after enough of them; return its numbers or failure."""
        number = progress.next_batch + self.accelerator.process_index
        key = (self.config.seed, TRAINING, progress.stage, progress.phase, NOISE, number)
        unroll = self._unroll(self.stage.phase(progress.phase))

        def forward() -> tuple[Tensor, dict[str, float]]:
            loss, parts = self._model(clip, unroll, share, torch.Generator().manual_seed(seed_of(*key)))
            return loss, parts

        if self._operations is None:
            # Without a card there is nothing to compare with. A backward pass takes twice what the forward pass takes.
            self._operations = 0 if self.accelerator.device.type == "cpu" else 3 * count_operations(forward)
        throughput.operations += self._operations
        try:
            loss, parts = forward()
        except RuntimeError as error:
            # Some operations refuse a NaN before it reaches the loss.
            return str(error)
        told = torch.stack([loss.detach().float(), torch.tensor(float(skipped), device=loss.device)])
        told = self.accelerator.gather(told.unsqueeze(0))
        if not torch.isfinite(told).all():
            return f"the loss is {float(told[:, 0].sum())}"
        self.accelerator.backward(loss)
        row = {"loss": float(told[:, 0].mean()), "skipped": float(told[:, 1].sum()), **parts}
        if self.accelerator.sync_gradients:
            self.accelerator.unscale_gradients()
            norm, gate_norm = clip_gradients(self.loss, self.config.optimizer.max_grad_norm)
            # A scaler expects this now and then, and leaves such a step out.
            if self.accelerator.scaler is None and not torch.isfinite(norm + gate_norm):
                return f"the gradient's norm is {float(norm + gate_norm)}"
            row |= {"grad_norm": float(norm), "gate_grad_norm": float(gate_norm)}
        self._optimizer.step()
        self._optimizer.zero_grad(set_to_none=True)
        return row

    def _next_batch(self, progress: Progress) -> tuple[dict[str, Any], int]:
        assert self._batches is not None, "a phase is entered first"
        batch, skipped = checked(next(self._batches))
        shape = clip_shape(self.mixture, self.stage.phase(progress.phase))
        number = progress.next_batch + self.accelerator.process_index
        return rendered(batch, shape, self.config.seed, progress.stage, progress.phase, number), skipped

    def _enter_phase(self, progress: Progress, phase: int) -> None:
        """Open the data of a phase where it is not open yet."""
        if phase != progress.phase:
            progress.phase, progress.next_batch = phase, 0
        if self._opened == phase:
            return
        self._opened, self._operations = phase, None
        if self.config.teacher.cache is not None:
            loader = cached_batches(self.config.teacher.cache, progress.stage, phase, progress.next_batch)
        else:
            key = (self.config.seed, TRAINING, progress.stage, phase)
            pin = self.accelerator.device.type == "cuda"
            loader = batches(self.mixture, self.stage.phase(phase), key, progress.next_batch, pin=pin)
        self._batches = iter(self.accelerator.prepare_data_loader(loader))

    def _unroll(self, phase: Phase) -> UnrollConfig:
        """Configure how clips of a phase run through the student."""
        changes: dict[str, Any] = {"budgets": phase.budgets, "pooled": phase.pooled}
        if not self.stage.prune:
            changes["selection"] = "unbounded"
        return replace(self.config.unroll, **{name: value for name, value in changes.items() if value is not None})

    def _projections(self) -> list[tuple[str, nn.Module | None]]:
        return [("projection", self.loss.projection), ("image_projection", self.loss.image_projection)]

    def _restore(self, state: dict[str, Any]) -> None:
        self.student.load_state_dict(state["student"])
        self.average.load(state["average"])
        for name, part in self._projections():
            if part is not None and state.get(name) is not None:
                part.load_state_dict(state[name])
        if self.accelerator.scaler is not None and state["scaler"] is not None:
            self.accelerator.scaler.load_state_dict(state["scaler"])


def _means(rows: list[dict[str, float]]) -> dict[str, float]:
    """Average every number over the rows that have it."""
    names = dict.fromkeys(name for row in rows for name in row)
    return {name: fmean(row[name] for row in rows if name in row) for name in names}
