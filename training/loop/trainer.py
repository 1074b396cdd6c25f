"""Run the stages of a training: step, write checkpoints, and stop cleanly."""

import signal
import time
from collections.abc import Iterator
from dataclasses import asdict
from fnmatch import fnmatch
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
from training.loop.log import Throughput, TrainingLog
from training.loop.progress import Progress, stage_steps
from training.loop.stage import Outcome, StageTraining

CONFIG_FILE = "config.yaml"
CHECKPOINTS = "checkpoints"
MAY_CHANGE = (
    "checkpoints*", "data.prefetch", "data.skip_bad", "data.workers", "evaluation*", "folder", "init", "log_every",
    "stages.*.minutes", "threads",
)  # fmt: skip
"""Keys that a resumed run may change: its length and speed, not its learning."""


class TrainingError(Sam2LiteError):
    """A training that cannot go on; the message names the file to look at."""


class Stop:
    """Asks a run to end after the current step: a signal, or the clock."""

    def __init__(self, max_minutes: float | None) -> None:
        """Start the clock."""
        self._start = time.monotonic()
        self._limit = None if max_minutes is None else 60.0 * max_minutes
        self.signal: signal.Signals | None = None
        self.longest = 0.0

    def listen(self) -> dict[int, Any]:
        """Note SIGTERM and SIGINT; return the handlers that were there."""
        return {number: signal.signal(number, self._note) for number in (signal.SIGTERM, signal.SIGINT)}

    def _note(self, number: int, _: FrameType | None) -> None:
        if self.signal is not None:
            raise KeyboardInterrupt  # the second signal does not wait for the step
        self.signal = signal.Signals(number)

    def wanted(self) -> bool:
        """Return True where a signal came, or a step and a checkpoint no longer fit before the limit."""
        late = self._limit is not None and time.monotonic() - self._start + 2.0 * self.longest >= self._limit
        return late or self.signal is not None

    def reason(self) -> str:
        """Return the reason for the end of the run."""
        if self.signal is not None:
            return f"stopped by {self.signal.name}"
        return f"stopped after {(time.monotonic() - self._start) / 60.0:.1f} minutes, as asked"


class Trainer:
    """One training run in one folder."""

    def __init__(self, config: RunConfig, stages: tuple[int, ...], *, resume: bool, max_minutes: float | None) -> None:
        """Check the configuration and the folder; nothing is written yet.

        Args:
            config: the run.
            stages: numbers of the stages to run, in order.
            resume: go on from the newest checkpoint.
            max_minutes: stop cleanly before that many minutes are over.

        Raises:
            ConfigurationError: an unknown stage, a limit that is not positive, or a folder that holds another run.
        """
        known = config.stages.numbered()
        for number in stages:
            if number not in known:
                raise ConfigurationError(
                    f"stage {number} is not in the configuration; it has {', '.join(map(str, known))}"
                )
        if max_minutes is not None and max_minutes <= 0:
            raise ConfigurationError(f"--max-minutes {max_minutes} is not positive")
        self.config = config
        self.stages = stages
        self.stop = Stop(max_minutes)
        self.folder = config.folder
        self.checkpoints = config.folder / CHECKPOINTS
        self._steps_before = 0
        self._resumed = self._find_resumed(resume)
        self._saved: tuple[int, int] | None = None

    def run(self) -> int:
        """Train. Return the exit code: 0, or 128 and the signal's number.

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
            # Some batches leave the gate without gradients.
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
        total = self._steps_before
        on_cpu = accelerator.device.type == "cpu"
        throughput = Throughput(0.0 if on_cpu else matrix_rate(accelerator.device, DTYPES[self.config.precision]))
        with TrainingLog(self.folder, total, accelerator.is_main_process) as log:
            if mixture.skipped:
                log.say(f"{mixture.skipped} stills or videos cannot be used and are left out")
            finished = True
            done = 0 if resumed is None else resumed["position"]["stage"]
            for number in (stage for stage in self.stages if stage >= done):
                stage = self.config.stages.numbered()[number]
                progress = Progress(number, total_step=total)
                state = None
                if resumed is not None and resumed["position"]["stage"] == number:
                    progress, state = Progress(**resumed["position"]), resumed
                start = self._start_weights(number) if state is None else None
                training = StageTraining(self.config, stage, accelerator, mixture, start, state)
                finished = self._run_stage(training, stage, progress, log, throughput)
                total = progress.total_step
                if not finished:
                    break
            skipped = mixture.skipped + progress.skipped
            log.say(throughput.summary() + (f"; {skipped} bad samples skipped" if skipped else ""))
            if finished:
                log.say(f"done; checkpoints are in {self.checkpoints}")
                return 0
            log.say(f"{self.stop.reason()} at step {progress.step} of stage {progress.stage}; go on with --resume")
        return 0 if self.stop.signal is None else 128 + self.stop.signal

    def _run_stage(
        self, training: StageTraining, stage: StageConfig, progress: Progress, log: TrainingLog,
        throughput: Throughput,
    ) -> bool:  # fmt: skip
        """Step until the stage or the run ends; return whether the stage is finished."""
        accelerator, checks = training.accelerator, self.config.checkpoints
        total = stage_steps(stage, self.config.data.clips_per_epoch, accelerator.num_processes * self.config.accumulate)
        log.begin_stage(f"stage {progress.stage}", total, progress.step)
        saved = time.monotonic()
        while progress.share(stage, total) < 1.0:
            throughput.begin()
            started = time.perf_counter()
            outcome = training.step(progress, total, self.stop.wanted(), throughput)
            if outcome is None:
                if self._saved != (progress.stage, progress.step):
                    self._save(training, progress, log, "last")
                return False
            if outcome.bad_batch is not None:
                self._give_up(training, progress, outcome)
            self.stop.longest = max(self.stop.longest, time.perf_counter() - started)
            row = {"step": progress.total_step, "stage": progress.stage, **outcome.row}
            row |= throughput.end(outcome.clips)
            progress.spent += training.largest(row["seconds"]) if total is None else row["seconds"]
            log.record(row, progress.step % self.config.log_every == 0)
            due = checks.every_steps > 0 and progress.step % checks.every_steps == 0
            due = due or time.monotonic() - saved > 60.0 * checks.every_minutes
            # The stage's own checkpoint comes at its end.
            if progress.share(stage, total) < 1.0 and training.agree(due):
                self._save(training, progress, log, "last")
                saved = time.monotonic()
        self._save(training, progress, log, "stage")
        training.close()
        return True

    def _save(self, training: StageTraining, progress: Progress, log: TrainingLog, kind: str) -> None:
        """Write a checkpoint; validate it, and keep it as the best one where it is."""
        accelerator = training.accelerator
        self._saved = (progress.stage, progress.step)
        accelerator.wait_for_everyone()
        if accelerator.is_main_process:
            loss = training.validate()
            better = loss is not None and (progress.best is None or loss < progress.best)
            if better:
                progress.best = loss
            state = training.state(progress) | {"config": loading.to_document(self.config)}
            path = checkpoint.numbered(self.checkpoints, progress.total_step)
            checkpoint.save(path, state)
            light = {name: value for name, value in state.items() if name != "optimizer"}
            if better:
                checkpoint.save(self.checkpoints / checkpoint.BEST, light)
            if kind == "stage":
                checkpoint.save(checkpoint.stage_file(self.checkpoints, progress.stage), light)
            checkpoint.prune(self.checkpoints, self.config.checkpoints.keep)
            said = "" if loss is None else f", validation loss {loss:.4f}{', the best' if better else ''}"
            log.say(f"{path}{said}")
        accelerator.wait_for_everyone()

    def _give_up(self, training: StageTraining, progress: Progress, outcome: Outcome) -> None:
        """Save the batch and the weights of a step that failed, and raise TrainingError."""
        rank = training.accelerator.process_index
        path = self.folder / f"bad_batch_{progress.total_step:08d}_{rank}.pt"
        weights = {name: value.cpu() for name, value in training.student.state_dict().items()}
        content = {"variant": self.config.variant, "clip": outcome.bad_batch, "student": weights}
        checkpoint.save(path, {**content, "position": asdict(progress)})
        raise TrainingError(
            f"step {progress.step} of stage {progress.stage} went wrong: {outcome.wrong}; the batch and the weights "
            f"are in {path}; lower the learning rate, or look at the clip"
        )

    def _find_resumed(self, resume: bool) -> dict[str, Any] | None:
        """Load the newest checkpoint, if any; refuse another configuration, and to overwrite a run."""
        newest = checkpoint.newest(self.checkpoints)
        if newest is None:
            return None
        state = checkpoint.load(newest)
        self._steps_before = int(state["position"]["total_step"])
        if resume:
            old_values = loading.with_new_names(state["config"])
            for key, old, new in differences(old_values, loading.to_document(self.config), MAY_CHANGE):
                raise ConfigurationError(
                    f"{key} is {new!r} now and was {old!r} in {newest}; start a run of its own with init={newest}"
                )
            return state
        if state["position"]["stage"] >= self.stages[0]:
            raise ConfigurationError(
                f"{self.folder}: holds a run already; go on with --resume or choose another folder"
            )
        return None

    def _start_weights(self, number: int) -> Path | None:
        """Find the checkpoint that a stage starts from: the stage before it, else `init`, else none."""
        before = [earlier for earlier in self.config.stages.numbered() if earlier < number]
        if not before:
            return self.config.init
        path = checkpoint.stage_file(self.checkpoints, before[-1])
        if not path.is_file():
            raise SourceError(f"{path}: missing; run --stage {before[-1]} first, or leave it out of the stages")
        return path

    def _prepare_folder(self) -> None:
        try:
            self.checkpoints.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise SourceError(f"{self.checkpoints}: cannot be made: {error.strerror}") from None
        write_atomically(self.folder / CONFIG_FILE, loading.dump(self.config).encode())


def differences(old: Any, new: Any, may_change: tuple[str, ...], key: str = "") -> Iterator[tuple[str, Any, Any]]:
    """Find dotted keys whose values differ, with both values, but those that fit a pattern of `may_change`."""
    if isinstance(old, dict) and isinstance(new, dict):
        for name in dict.fromkeys([*old, *new]):
            below = f"{key}.{name}" if key else name
            yield from differences(old.get(name), new.get(name), may_change, below)
    elif old != new and not any(fnmatch(key, pattern) for pattern in may_change):
        yield key, old, new
