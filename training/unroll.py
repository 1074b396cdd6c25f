"""A clip through the student with its bounded memory, and the loss of what it predicts."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from sam2lite_core.model.decoder import PROMPT_CHANNELS
from sam2lite_core.model.encoder import Features
from sam2lite_core.model.student import Prediction, Student
from sam2lite_core.preprocess import averaging_matrix, spot
from training import losses
from training.gated_memory import GatedMemory


@dataclass(frozen=True)
class LossWeights:
    """Weights of the loss terms (equation 13; correspondence, share and presence are ours)."""

    mask: float = 1.0
    iou: float = 1.0
    edge: float = 0.15
    correspondence: float = 0.5
    share: float = 0.3
    presence: float = 0.1
    budget: float = 0.2


@dataclass(frozen=True)
class UnrollConfig:
    """How a clip is unrolled in training.

    Attributes:
        budgets: bank sizes to draw from; rendered frames are small, so budgets bind only when they are small too.
        pooled: whether memory tokens cover 2x2 patches, as on the robot.
        own_masks: probability that a later frame's own prediction is remembered rather than the truth.
        drop_warp: probability that a clip gets no warped previous mask on a frame, so that it is not leaned on; at the
            start and from 40 % of the run on.
        corrupt_warp: probability that the warped mask is damaged.
        joins_late: probability that an object is shown on a later frame than the first.
        shown_again: probability per frame that a followed object is prompted again.
        edge_from: share of the run after which the edge loss counts; before, it teaches flat masks.
        hard_share: share of pixels that the cross-entropy counts as hardest.
        gated: probability that the gate decides what a batch remembers; otherwise chance does, which prefers patches
            near objects, so that the other policies stay fair to compare with.
        temperature: of the gate's relaxation, at the start and at the end of the run (methodology section 2.4).
    """

    budgets: tuple[int, ...] = (48, 96, 160)
    pooled: bool = True
    own_masks: float = 0.75
    drop_warp: tuple[float, float] = (0.5, 0.3)
    corrupt_warp: float = 0.15
    joins_late: float = 0.15
    shown_again: float = 0.05
    edge_from: float = 0.3
    hard_share: float = 0.25
    gated: float = 0.75
    temperature: tuple[float, float] = (1.0, 0.1)
    weights: LossWeights = LossWeights()


def one_hot(labels: Tensor, count: int) -> Tensor:
    """(…, H, W) uint8 labels to (…, count, H, W) float masks of labels 1..count."""
    numbers = torch.arange(1, count + 1, device=labels.device, dtype=labels.dtype).view(-1, 1, 1)
    return (labels.unsqueeze(-3) == numbers).float()


def token_pool(rows: int, columns: int, pooled: bool) -> tuple[Tensor, Tensor]:
    """Weights from patches to tokens: 2x2 patches a token as at scale 1, or a token per patch."""
    step = 2 if pooled else 1
    row_weights, column_weights = (
        torch.from_numpy(averaging_matrix(n, -(-n // step))) for n in (rows, columns)
    )
    return row_weights, column_weights


def warp(previous: Tensor, flow: Tensor) -> Tensor:
    """Carry (N, K, h, w) along backward flow (N, h, w, 2) in units of width and height; the edges repeat."""
    height, width = previous.shape[-2:]
    x = (torch.arange(width, device=flow.device) + 0.5) / width
    y = (torch.arange(height, device=flow.device) + 0.5) / height
    grid = torch.stack([x.expand(height, width), y.unsqueeze(1).expand(height, width)], dim=-1) + flow
    return F.grid_sample(previous, grid * 2.0 - 1.0, padding_mode="border", align_corners=False)


def random_prompts(truth: Tensor, generator: torch.Generator) -> Tensor:
    """Box or point rasters for frame 0, at stride 4.

    Half of the objects get their box (corners jittered), the others one to three points inside, a third of them with a
    point outside as well.

    Args:
        truth: (N, K, h, w) true shares at stride 4.

    Returns:
        (N, K, 3, h, w) rasters: box, positive, negative.
    """
    batch, count, height, width = truth.shape
    out = torch.zeros(batch, count, PROMPT_CHANNELS, height, width)

    def uniform(low: float, high: float) -> float:
        return low + (high - low) * float(torch.rand((), generator=generator))

    for n in range(batch):
        for k in range(count):
            mask = truth[n, k] > 0.5
            if not mask.any():
                continue
            rows, columns = mask.any(1).nonzero().flatten(), mask.any(0).nonzero().flatten()
            if uniform(0, 1) < 0.5:
                y0, y1, x0, x1 = int(rows[0]), int(rows[-1]) + 1, int(columns[0]), int(columns[-1]) + 1
                jitter = [round(uniform(-0.05, 0.05) * (y1 - y0)), round(uniform(-0.05, 0.05) * (x1 - x0))]
                out[
                    n, k, 0, max(y0 + jitter[0], 0) : y1 + jitter[0], max(x0 + jitter[1], 0) : x1 + jitter[1]
                ] = 1.0
                continue
            inner = -F.max_pool2d(-truth[n, k][None, None], 5, 1, 2)[0, 0] > 0.5
            inside = (inner if inner.any() else mask).nonzero()
            for _ in range(int(uniform(1, 3.99)) if uniform(0, 1) < 0.4 else 1):
                y, x = inside[int(uniform(0, len(inside) - 0.01))].tolist()
                out[n, k, 1] = torch.maximum(out[n, k, 1], torch.from_numpy(spot(height, width, x, y)))
            if uniform(0, 1) < 0.3:
                outside = (~mask).nonzero()
                if len(outside):
                    y, x = outside[int(uniform(0, len(outside) - 0.01))].tolist()
                    out[n, k, 2] = torch.from_numpy(spot(height, width, x, y))
    return out


def corrupt(warped: Tensor, generator: torch.Generator, probability: float) -> Tensor:
    """Damage some warped masks as real ones are: shifted, eroded, dilated or with a block missing. (N, K, h, w)."""
    out = warped.clone()
    for n in range(len(out)):
        if float(torch.rand((), generator=generator)) >= probability:
            continue
        kind = int(torch.randint(4, (), generator=generator))
        if kind == 0:
            shift = torch.randint(-6, 7, (2,), generator=generator).tolist()
            out[n] = torch.roll(out[n], shift, (-2, -1))
        elif kind == 1:
            out[n] = F.max_pool2d(out[n], 5, 1, 2)
        elif kind == 2:
            out[n] = -F.max_pool2d(-out[n], 5, 1, 2)
        else:
            y, x = (torch.rand(2, generator=generator) * torch.tensor(out.shape[-2:]) * 0.7).long().tolist()
            out[n, :, y : y + out.shape[-2] // 3, x : x + out.shape[-1] // 3] = 0.0
    return out


def frame_features(features: Features, batch: int, t: int) -> Features:
    """Features of frame t out of those of N * T frames encoded together."""
    return Features(*(f.reshape(batch, -1, *f.shape[1:])[:, t] for f in features))


def frame_loss(
    prediction: Prediction, truth: Tensor, exists: Tensor, config: UnrollConfig, progress: float
) -> tuple[Tensor, dict[str, Tensor]]:
    """Mask, IoU, edge and presence loss of one frame.

    Args:
        prediction: of K objects.
        truth: (N, K, H, W) true masks at full size.
        exists: (N, K) 1 for objects that the clip has.
        progress: of the run, 0..1.
    """
    target = F.avg_pool2d(truth, 2)
    mask_out = (1.0 - exists).unsqueeze(-1).unsqueeze(-1) * -20.0
    relative = F.interpolate(
        prediction.logits + mask_out, scale_factor=2.0, mode="bilinear", align_corners=False
    )
    probability = torch.softmax(torch.cat([torch.zeros_like(relative[:, :1]), relative], dim=1), dim=1)[:, 1:]
    visible = exists * (truth.flatten(2).sum(-1) > 0).float()
    weights = config.weights
    parts = {
        "mask": losses.mask_cross_entropy(relative, target, config.hard_share),
        "iou": losses.soft_iou(probability, target, visible),
        "edge": losses.edge(probability, target, visible),
        "presence": losses.presence_loss(prediction.presence, visible, exists),
    }
    counted = {name: value for name, value in parts.items() if name != "edge" or progress >= config.edge_from}
    total = torch.stack([getattr(weights, name) * value for name, value in counted.items()]).sum()
    return total, parts


class Unroller:
    """Runs clips through the student frame by frame and adds up the losses."""

    def __init__(self, student: Student, config: UnrollConfig, generator: torch.Generator) -> None:
        self.student = student
        self.config = config
        self.generator = generator

    def _chance(self, *shape: int) -> Tensor:
        return torch.rand(shape, generator=self.generator)

    def _gate(self, budget: int, progress: float) -> GatedMemory:
        """What remembers this batch: the gate, or chance."""
        start, end = self.config.temperature
        temperature = start * (end / start) ** min(1.0, progress)
        learned = float(self._chance()) < self.config.gated
        return GatedMemory(self.student if learned else None, budget, temperature, self.generator)

    def __call__(self, clip: dict[str, Tensor], progress: float) -> tuple[Tensor, dict[str, float]]:
        """Loss of a batch of clips as `training.data` makes them, and its parts; progress of the run: 0..1."""
        student, config = self.student, self.config
        images = clip["images"].permute(0, 1, 4, 2, 3).float()
        batch, frames = images.shape[:2]
        count = int(clip["count"].max())
        exists = (torch.arange(count) < clip["count"].unsqueeze(1)).float()
        features, key = student.encode(images.flatten(0, 1).contiguous(memory_format=torch.channels_last))
        key = key.reshape(batch, frames, *key.shape[1:])
        truth = one_hot(clip["labels"], count)
        slots = torch.eye(count).expand(batch, -1, -1)
        budget = config.budgets[int(torch.randint(len(config.budgets), (), generator=self.generator))]
        remembered = self._gate(budget, progress)

        first = self._first_frames(truth, exists)
        total = torch.zeros(())
        parts: dict[str, list[Tensor]] = {}
        previous = torch.zeros_like(F.avg_pool2d(truth[:, 0], 4))
        trusted = torch.zeros_like(exists)
        for t in range(frames):
            current = frame_features(features, batch, t)
            followed, new = exists * (first <= t), exists * (first == t)
            true = truth[:, t] * followed.unsqueeze(-1).unsqueeze(-1)
            # Operators also show again what is followed already.
            shown = torch.maximum(new, followed * (self._chance(batch, count) < config.shown_again) * (t > 0))
            prompts = None
            if shown.any():
                prompts = random_prompts(
                    F.avg_pool2d(true, 4) * shown.unsqueeze(-1).unsqueeze(-1), self.generator
                )
            warped = torch.zeros_like(previous)
            bank = remembered.begin_frame(exists, student.variant.key_width)
            if t > 0:
                # Where a LOST object went is unknown, not "nowhere"; the tracker does the same.
                warped = self._warped(previous, clip["flow"][:, t], progress) * trusted.unsqueeze(
                    -1
                ).unsqueeze(-1)
            window = torch.full((batch,), 8.0)
            logits = student.attention_logits(key[:, t], bank, window) + remembered.log_kept().unsqueeze(1)
            readout = student.read(key[:, t], bank, slots, logits)
            prediction = student.decode(current, readout, warped, prompts)
            loss, named = frame_loss(prediction, true, followed, config, progress)
            if t > 0:
                named["share"] = losses.share_loss(readout.share, readout.evidence, F.avg_pool2d(true, 16))
                loss = loss + config.weights.share * named["share"]
            total = total + loss * (0.75 if t == 0 else 1.0)
            for name, value in named.items():
                parts.setdefault(name if t else f"prompt_{name}", []).append(value.detach())
            previous, trusted = self._remembered(prediction, true, followed, new)
            self._write(
                remembered, current, key[:, t], previous, trusted, slots, clip["motion"][:, t], t, new
            )
        flat = key.flatten(3).transpose(2, 3)
        pairs = [(t, 0) for t in range(1, frames)] + [(t, t - 1) for t in range(2, frames)]
        match = losses.correspondence(flat, clip["places"].flatten(2, 3), pairs)
        spent = remembered.budget_loss()
        total = total / frames + config.weights.correspondence * match + config.weights.budget * spent
        values = {name: float(torch.stack(seen).mean()) for name, seen in parts.items()}
        values |= {"correspondence": float(match.detach()), "budget": float(spent.detach())}
        return total, {**values, **remembered.statistics()}

    def _first_frames(self, truth: Tensor, exists: Tensor) -> Tensor:
        """The frame on which each object is shown, (N, K): 0 for most, later for some that are visible then."""
        frames = truth.shape[1]
        visible = truth.flatten(3).sum(-1) > 0  # (N, T, K)
        when = torch.randint(frames, exists.shape, generator=self.generator)
        seen = torch.gather(visible, 1, when.unsqueeze(1)).squeeze(1)
        late = (self._chance(*exists.shape) < self.config.joins_late) & seen
        return when * late

    def _warped(self, previous: Tensor, flow: Tensor, progress: float) -> Tensor:
        warped = warp(corrupt(previous, self.generator, self.config.corrupt_warp), flow) * 2.0 - 1.0
        kept = (
            (self._chance(len(previous)) >= self.config.drop_warp[int(progress >= 0.4)])
            .float()
            .view(-1, 1, 1, 1)
        )
        return warped * kept

    def _remembered(
        self, prediction: Prediction, truth: Tensor, followed: Tensor, new: Tensor
    ) -> tuple[Tensor, Tensor]:
        """The masks (N, K, h, w) that go to memory, and which of them are trusted (N, K)."""
        pooled = F.avg_pool2d(truth, 4)
        own = prediction.probability.detach() * followed.unsqueeze(-1).unsqueeze(-1)
        # A new object is remembered as the operator meant it: a misread click would punish faithful tracking.
        pick = (self._chance(len(truth), 1) < self.config.own_masks).float() * (1.0 - new)
        pick = pick.unsqueeze(-1).unsqueeze(-1)
        masks = pick * own + (1.0 - pick) * pooled
        present = (truth.flatten(2).sum(-1) > 0).float() * followed
        return masks, present

    def _write(
        self, remembered: GatedMemory, current: Features, key: Tensor, masks: Tensor, trusted: Tensor, slots: Tensor,
        motion: Tensor, t: int, new: Tensor,
    ) -> None:  # fmt: skip
        frame = torch.full((len(masks),), float(t))
        pool = token_pool(key.shape[-2], key.shape[-1], self.config.pooled)
        fresh = self.student.tokens(current, key, masks, trusted, slots, motion.unsqueeze(1), frame, pool)
        remembered.write(fresh, self.student.affinity(masks, slots, pool), new)
