"""Runs the stages of a training: builds what each needs, steps, writes checkpoints, and stops cleanly."""

import signal
import time
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import DataLoaderConfiguration, DistributedDataParallelKwargs

from sam2lite_core.errors import ConfigurationError, Sam2LiteError, SourceError
from sam2lite_core.files import write_atomically
from training import checkpoint
from training.config import loading
from training.config.run import RunConfig
from training.config.stages import StageConfig
from training.data.mixture import Mixture
from training.loop.device_rate import DTYPES, matrix_rate
from training.loop.log import Journal, Throughput
from training.loop.progress import Position, stage_steps
from training.loop.stage import Outcome, StageTraining

CONFIG_FILE = "config.yaml"
CHECKPOINTS = "checkpoints"
MAY_DIFFER = ("checkpoints", "evaluation", "folder", "init", "log_every", "threads")
"""Parts of the configuration that a resumed run may change: they decide nothing about what is learned."""


class TrainingError(Sam2LiteError):
    """A training that cannot go on; the message says where its evidence is."""


class Stop:
    """Asks a run to end after the current step: a signal, or the clock."""

    def __init__(self, max_minutes: float | None) -> None:
        """Start the clock."""
        self._start = time.monotonic()
        self._limit = None if max_minutes is None else 60.0 * max_minutes
        self.signal: int | None = None
        self.longest = 0.0

    def listen(self) -> dict[int, Any]:
        """Note SIGTERM and SIGINT instead of dying of them; returns the handlers that were there."""
        return {number: signal.signal(number, self._note) for number in (signal.SIGTERM, signal.SIGINT)}

    def _note(self, number: int, _: FrameType | None) -> None:
        if self.signal is not None:
            # Whoever asks twice does not want to wait for the step.
            raise KeyboardInterrupt
        self.signal = number

    def wanted(self) -> bool:
        """Whether the next step should not begin; it must fit before the limit, with a checkpoint after it."""
        if self.signal is not None:
            return True
        if self._limit is None:
            return False
        return time.monotonic() - self._start + 2.0 * self.longest >= self._limit

    def reason(self) -> str:
        """Why the run ends."""
        if self.signal is not None:
            return f"stopped by {signal.Signals(self.signal).name}"
        return f"stopped after {(time.monotonic() - self._start) / 60.0:.1f} minutes, as asked"


class Runner:
    """One training run in one folder."""

    def __init__(
        self, config: RunConfig, stages: tuple[int, ...], *, resume: bool, max_minutes: float | None
    ) -> None:
        """Check the configuration and the folder; nothing is written yet.

        Args:
            config: the run.
            stages: numbers of the stages to run, in order.
            resume: go on from the newest checkpoint.
            max_minutes: stop cleanly before that many minutes are over.

        Raises:
            ConfigurationError: a stage is not in the configuration, the limit is not positive, or the folder holds a
                run that would be overwritten or is another one.
        """
        numbered = config.stages.numbered()
        for number in stages:
            if number not in numbered:
                raise ConfigurationError(
                    f"stage {number} is not in the configuration; it has {', '.join(map(str, numbered))}"
                )
        if max_minutes is not None and max_minutes <= 0:
            raise ConfigurationError(f"--max-minutes {max_minutes} is not positive")
        self.config = config
        self.stages = stages
        self.stop = Stop(max_minutes)
        self.folder = config.folder
        self.checkpoints = config.folder / CHECKPOINTS
        self._resumed = self._find_resumed(resume)
        self._saved: tuple[int, int] | None = None

    def run(self) -> int:
        """Train. Returns the exit code: 0, or 128 and the signal's number.

        Raises:
            TrainingError: the loss is not finite; the batch is saved.
            SourceError, ModelFileError, ConfigurationError: naming the file or value.
        """
        config = self.config
        if config.threads is not None:
            torch.set_num_threads(config.threads)
        mixture = Mixture(config.data, config.seed)
        accelerator = Accelerator(
            mixed_precision=config.precision,
            gradient_accumulation_steps=config.accumulate,
            dataloader_config=DataLoaderConfiguration(dispatch_batches=False, non_blocking=True),
            # A batch whose memory chance decides leaves the gate without gradients.
            kwargs_handlers=[DistributedDataParallelKwargs(find_unused_parameters=True)],
        )
        if accelerator.is_main_process:
            self._prepare_folder()
        accelerator.wait_for_everyone()
        before = self.stop.listen()
        try:
            return self._run_stages(accelerator, mixture)
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _run_stages(self, accelerator: Accelerator, mixture: Mixture) -> int:
        resumed = self._resumed
        total = resumed["position"]["total_step"] if resumed is not None else self._steps_before()
        rate = 0.0
        if accelerator.device.type != "cpu":
            rate = matrix_rate(accelerator.device, DTYPES[self.config.precision])
        throughput = Throughput(rate)
        with Journal(self.folder, total, accelerator.is_main_process) as journal:
            if mixture.skipped:
                journal.say(f"{mixture.skipped} stills cannot be read and are left out")
            finished = True
            for number in self._remaining(resumed):
                stage = self.config.stages.numbered()[number]
                position = Position(number, total_step=total)
                state = None
                if resumed is not None and resumed["position"]["stage"] == number:
                    position, state = Position(**resumed["position"]), resumed
                start = self._start_weights(number) if state is None else None
                training = StageTraining(self.config, stage, accelerator, mixture, start, state)
                finished = self._run_stage(training, stage, position, journal, throughput)
                total = position.total_step
                if not finished:
                    break
            journal.say(throughput.summary() + self._skipped(mixture, position))
            if finished:
                journal.say(f"done; checkpoints are in {self.checkpoints}")
                return 0
            journal.say(
                f"{self.stop.reason()} at step {position.step} of stage {position.stage}; go on with --resume"
            )
        return 0 if self.stop.signal is None else 128 + self.stop.signal

    def _run_stage(
        self, training: StageTraining, stage: StageConfig, position: Position, journal: Journal,
        throughput: Throughput,
    ) -> bool:  # fmt: skip
        """Step until the stage or the run ends; whether the stage is finished."""
        accelerator, checks = training.accelerator, self.config.checkpoints
        total = stage_steps(
            stage, self.config.data.clips_per_epoch, accelerator.num_processes * self.config.accumulate
        )
        journal.begin_stage(f"stage {position.stage}", total, position.step)
        saved = time.monotonic()
        while position.progress(stage, total) < 1.0:
            throughput.begin()
            started = time.perf_counter()
            outcome = training.step(position, total, self.stop.wanted(), throughput)
            if outcome is None:
                if self._saved != (position.stage, position.step):
                    self._save(training, position, journal, "last")
                return False
            if outcome.bad_batch is not None:
                self._give_up(training, position, outcome)
            self.stop.longest = max(self.stop.longest, time.perf_counter() - started)
            row = {"step": position.total_step, "stage": position.stage, **outcome.row}
            row |= throughput.end(outcome.clips)
            position.spent += training.largest(row["seconds"]) if total is None else row["seconds"]
            journal.record(row, position.step % self.config.log_every == 0)
            due = checks.every_steps > 0 and position.step % checks.every_steps == 0
            due = due or time.monotonic() - saved > 60.0 * checks.every_minutes
            # The stage's own checkpoint comes at its end.
            if position.progress(stage, total) < 1.0 and training.agree(due):
                self._save(training, position, journal, "last")
                saved = time.monotonic()
        self._save(training, position, journal, "stage")
        training.close()
        return True

    def _save(self, training: StageTraining, position: Position, journal: Journal, kind: str) -> None:
        """Write a checkpoint; validate it, and keep it as the best one where it is."""
        accelerator = training.accelerator
        self._saved = (position.stage, position.step)
        accelerator.wait_for_everyone()
        if accelerator.is_main_process:
            loss = training.validate()
            better = loss is not None and (position.best is None or loss < position.best)
            if better:
                position.best = loss
            state = training.state(position) | {"config": loading.to_document(self.config)}
            path = checkpoint.numbered(self.checkpoints, position.total_step)
            checkpoint.save(path, state)
            light = {name: value for name, value in state.items() if name != "optimizer"}
            if better:
                checkpoint.save(self.checkpoints / checkpoint.BEST, light)
            if kind == "stage":
                checkpoint.save(checkpoint.stage_file(self.checkpoints, position.stage), light)
            checkpoint.prune(self.checkpoints, self.config.checkpoints.keep)
            said = "" if loss is None else f", validation loss {loss:.4f}{', the best' if better else ''}"
            journal.say(f"{path}{said}")
        accelerator.wait_for_everyone()

    def _give_up(self, training: StageTraining, position: Position, outcome: Outcome) -> None:
        """Save what led to a loss that is not finite, or to an error, and stop.

        Raises:
            TrainingError: always.
        """
        rank = training.accelerator.process_index
        path = self.folder / f"bad_batch_{position.total_step:08d}_{rank}.pt"
        weights = {name: value.cpu() for name, value in training.student.state_dict().items()}
        content = {"variant": self.config.variant, "clip": outcome.bad_batch, "student": weights}
        checkpoint.save(path, {**content, "position": position.state()})
        raise TrainingError(
            f"step {position.step} of stage {position.stage} went wrong: {outcome.wrong}; the batch and the weights "
            f"are in {path}; lower the rate, or look at the clip"
        )

    def _find_resumed(self, resume: bool) -> dict[str, Any] | None:
        newest = checkpoint.newest(self.checkpoints)
        if newest is None:
            return None
        state = checkpoint.load(newest)
        if resume:
            self._check_same(state["config"], newest)
            return state
        if state["position"]["stage"] >= self.stages[0]:
            raise ConfigurationError(
                f"{self.folder}: holds a run already; go on with --resume or choose another folder"
            )
        return None

    def _check_same(self, earlier: dict[str, Any], path: Path) -> None:
        """Refuse to go on with another configuration: the result would be of neither."""
        mine = loading.to_document(self.config)
        for key, old, new in differences(earlier, mine):
            if key.split(".")[0] not in MAY_DIFFER and not key.startswith(("data.workers", "data.prefetch")):
                raise ConfigurationError(
                    f"{key} is {new!r} now and was {old!r} in {path}; start a run of its own with init={path}"
                )

    def _remaining(self, resumed: dict[str, Any] | None) -> Iterator[int]:
        done = resumed["position"]["stage"] if resumed is not None else 0
        return (number for number in self.stages if number >= done)

    def _start_weights(self, number: int) -> Path | None:
        """What a stage starts from: the stage before it in this folder, else `init`, else nothing."""
        before = [earlier for earlier in self.config.stages.numbered() if earlier < number]
        if not before:
            return self.config.init
        path = checkpoint.stage_file(self.checkpoints, before[-1])
        if not path.is_file():
            raise SourceError(
                f"{path}: missing; run --stage {before[-1]} first, or leave it out of the stages"
            )
        return path

    def _steps_before(self) -> int:
        newest = checkpoint.newest(self.checkpoints)
        return int(checkpoint.load(newest)["position"]["total_step"]) if newest is not None else 0

    def _prepare_folder(self) -> None:
        try:
            self.checkpoints.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise SourceError(f"{self.checkpoints}: cannot be made: {error.strerror}") from None
        write_atomically(self.folder / CONFIG_FILE, loading.dump(self.config).encode())

    @staticmethod
    def _skipped(mixture: Mixture, position: Position) -> str:
        count = mixture.skipped + position.skipped
        return f"; {count} bad samples skipped" if count else ""


def differences(old: Any, new: Any, key: str = "") -> Iterator[tuple[str, Any, Any]]:
    """Dotted keys whose values differ, with both values."""
    if isinstance(old, dict) and isinstance(new, dict):
        for name in dict.fromkeys([*old, *new]):
            yield from differences(old.get(name), new.get(name), f"{key}.{name}" if key else name)
    elif old != new:
        yield key, old, new
