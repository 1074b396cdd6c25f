"""Keep the progress of a run, so that a resumed run makes the same next step."""

from dataclasses import dataclass

from training.config.stages import StageConfig


@dataclass
class Progress:
    """Progress of a run; checkpoints hold it as `position`.

    Attributes:
        stage: its number, 1..3.
        step: optimiser steps done in the stage.
        total_step: optimiser steps done in all stages.
        spent: seconds spent in the stage, without interruptions.
        phase: number within the stage, over all rounds.
        next_batch: number of the phase's next batch, over all processes.
        clips: clips trained on.
        skipped: bad samples left out.
        best: lowest validation loss of the stage so far; None before the first.
    """

    stage: int
    step: int = 0
    total_step: int = 0
    spent: float = 0.0
    phase: int = 0
    next_batch: int = 0
    clips: int = 0
    skipped: int = 0
    best: float | None = None

    def share(self, stage: StageConfig, total: int | None) -> float:
        """Return the share of the stage that is done, 0..1. total: its steps, None where the clock ends it."""
        if total is not None:
            return min(1.0, self.step / total)
        assert stage.minutes is not None  # StageConfig sees to it
        return min(1.0, self.spent / (60.0 * stage.minutes))


def phase_at(stage: StageConfig, share: float) -> int:
    """Return the number of the phase that a share of the stage falls into, counted over all rounds."""
    done = min(stage.rounds - 1, int(share * stage.rounds))
    within = share * stage.rounds - done
    for index, phase in enumerate(stage.phases):
        if within < phase.until:
            return done * len(stage.phases) + index
    return stage.rounds * len(stage.phases) - 1


def stage_steps(stage: StageConfig, clips_per_epoch: int, batches_per_step: int) -> int | None:
    """Count the optimiser steps of a stage, of so many batches each; None where the clock ends it."""
    if stage.steps is not None:
        return stage.steps
    if stage.epochs is None:
        return None
    # Phases may have batches of their own: each phase takes its share of the steps.
    starts = (0.0, *(phase.until for phase in stage.phases))
    clips_per_step = sum(
        (phase.until - start) * phase.batch * batches_per_step
        for start, phase in zip(starts, stage.phases, strict=False)
    )
    return max(1, round(stage.epochs * clips_per_epoch / clips_per_step))
