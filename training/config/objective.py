"""Configuration of the losses and of how a clip is unrolled."""

from pydantic import NonNegativeFloat, NonNegativeInt
from pydantic.dataclasses import dataclass

from training.config.fields import STRICT, Counts, Share


@dataclass(frozen=True, config=STRICT)
class KeepConfig:
    """What counts as worth keeping.

    Attributes:
        floor: share of the best tokens' mean attention below which a token is not worth its place.
        similarity: cosine of keys from which tokens may be duplicates; attention to a duplicate counts for the older
            one, so that a static scene is worth few tokens.
        reach: largest distance of duplicates, as a share of the frame.
    """

    floor: Share = 0.1
    similarity: float = 0.9
    reach: float = 0.1


@dataclass(frozen=True, config=STRICT)
class LossWeights:
    """Weights of the loss terms of `training.objective.losses`; 0 leaves a term out.

    Equation 13 is mask = iou = 1, attention = 1, readout = .5, edge = .3, budget = .2; methodology section 1.3 is
    mask = iou = 1, edge = .5, attention = .3, readout = .2.

    Attributes:
        mask: cross-entropy of the masks, hard pixels twice.
        iou: of the masks.
        edge: gradient matching.
        attention: KL to the teacher's attention in common bins (equation 4); needs a teacher.
        readout: distance to the teacher's readout (equation 7); needs a teacher that has one.
        output: distance to the teacher's masks (equation 1); needs a teacher that has them.
        features: distance of the encoder's features to an image teacher's; needs one.
        correspondence: InfoNCE on keys with true correspondence; counts on rendered clips.
        share: memory's opinion of each object's share.
        presence: whether an object is in sight.
        budget: of the gate (equation 10).
        gate: supervision of the gate by what an unbounded memory reads later.
    """

    mask: NonNegativeFloat = 1.0
    iou: NonNegativeFloat = 1.0
    edge: NonNegativeFloat = 0.15
    attention: NonNegativeFloat = 1.0
    readout: NonNegativeFloat = 0.5
    output: NonNegativeFloat = 0.0
    features: NonNegativeFloat = 1.0
    correspondence: NonNegativeFloat = 0.5
    share: NonNegativeFloat = 0.3
    presence: NonNegativeFloat = 0.1
    budget: NonNegativeFloat = 0.2
    gate: NonNegativeFloat = 0.0


@dataclass(frozen=True, config=STRICT)
class UnrollConfig:
    """How a clip is unrolled in training.

    Attributes:
        budgets: bank sizes to draw from; rendered frames are small, so budgets bind only when they are small too.
        pooled: whether memory tokens cover 2x2 patches, as on the robot.
        own_masks: probability that a later frame's own prediction is remembered rather than the truth.
        teacher_forcing: remember new objects by their ground truth, and trust exactly the objects that are visible;
            else remember what a robot would.
        exact_memory: drop tokens as a robot does, with nothing left for the gate to learn from.
        drop_warp: probability that a clip gets no warped previous mask on a frame, so that it is not leaned on; at the
            start and from 40 % of the run on.
        corrupt_warp: probability that the warped mask is damaged.
        joins_late: probability that an object is shown on a later frame than the first.
        shown_again: probability per frame that a followed object is prompted again.
        seen_before: probability that an object of frame 0 has a damaged mask from before, for clips of one frame that
            teach prompts alone.
        edge_from: share of the run after which the edge loss counts; before, it teaches flat masks.
        hard_share: share of pixels that the cross-entropy counts as hardest.
        selection: how it is decided what stays in memory, see `training.objective.selection`: straight_through,
            log_probability or softmax (the gate learns), fifo, random or unbounded (fixed rules).
        gated: probability that the gate decides what a batch remembers; otherwise chance does, which prefers patches
            near objects, so that the other policies stay fair to compare with. Fixed rules always decide.
        temperature: of the gate's relaxation, at the start and at the end of the run (methodology section 2.4).
        feature_frames: frames of a clip that an image teacher speaks of, drawn anew for each batch.
        keep: what the gate is told was worth keeping, where weights.gate is above 0.
        weights: of the losses.
    """

    budgets: Counts = (48, 96, 160)
    pooled: bool = True
    own_masks: Share = 0.75
    teacher_forcing: bool = True
    exact_memory: bool = False
    drop_warp: tuple[Share, Share] = (0.5, 0.3)
    corrupt_warp: Share = 0.15
    joins_late: Share = 0.15
    shown_again: Share = 0.05
    seen_before: Share = 0.0
    edge_from: Share = 0.3
    hard_share: Share = 0.25
    selection: str = "straight_through"
    gated: Share = 0.75
    temperature: tuple[float, float] = (1.0, 0.1)
    feature_frames: NonNegativeInt = 2
    keep: KeepConfig = KeepConfig()
    weights: LossWeights = LossWeights()
