"""Define the configuration of the losses and of the unroll of a clip."""

from pydantic import NonNegativeFloat, NonNegativeInt
from pydantic.dataclasses import dataclass

from training.config.fields import STRICT, Counts, Share


@dataclass(frozen=True, config=STRICT)
class KeepConfig:
    """Target of the gate: the tokens that are worth keeping.

    Attributes:
        floor: least attention of such a token, as a share of the best tokens' mean.
        similarity: least cosine of duplicates' keys; attention to a duplicate counts for the older token.
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
        edge: gradient matching.
        attention: KL to the teacher's attention in common bins (equation 4).
        readout: distance to the teacher's readout (equation 7).
        output: distance to the teacher's masks (equation 1).
        features: distance of the encoder's features to an image teacher's.
        correspondence: InfoNCE on keys, on rendered clips.
        share: of each object by memory alone.
        presence: of each object in the frame.
        budget: of the gate (equation 10).
        gate: supervision of the gate by the later reads of an unbounded memory.
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
    """Unroll of a clip in training.

    Attributes:
        budgets: bank sizes to draw from; small, so that they bind on small frames.
        pooled: memory tokens cover 2x2 patches, as on the robot.
        own_masks: probability that a later frame's prediction is remembered instead of the ground truth.
        teacher_forcing: remember new objects by their ground truth and trust exactly the visible ones; else remember
            what a robot would.
        exact_memory: drop tokens as a robot does; the gate then learns nothing.
        drop_warp: probability that a frame gets no warped previous mask, at the start and from 40 % of the run on.
        corrupt_warp: probability that the warped mask is damaged.
        joins_late: probability that an object is shown on a later frame than the first.
        shown_again: probability per frame that a followed object is prompted again.
        seen_before: probability that an object of frame 0 has a damaged earlier mask, for clips of one frame.
        edge_from: share of the run after which the edge loss counts; before, it teaches flat masks.
        hard_share: share of pixels that the cross-entropy counts as hardest.
        selection: of memory tokens, see `training.objective.selection`: straight_through, log_probability or softmax
            (the gate learns), fifo, random or unbounded (fixed rules).
        gated: probability that the gate selects a batch's tokens; otherwise chance does, in favour of patches near
            objects, for a fair comparison of the policies. Fixed rules always decide.
        temperature: of the gate's relaxation, at the start and at the end of the run (methodology section 2.4).
        feature_frames: frames of a clip with an image teacher's features, drawn anew for each batch.
        keep: target of the gate where weights.gate is above 0.
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
