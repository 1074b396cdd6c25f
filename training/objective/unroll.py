"""A clip through the student with its bounded memory, and the loss of what it predicts."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sam2lite_core.model import bank as memory
from sam2lite_core.model.bank import Bank
from sam2lite_core.model.encoder import Features
from sam2lite_core.model.student import Prediction, Readout, Shown, Student
from training.config.objective import UnrollConfig
from training.data.tensors import frame_features, one_hot, token_pool, warp
from training.objective import losses, selection
from training.objective.corruption import corrupt, random_prompts
from training.objective.distillation import frame_distillation
from training.objective.gated_bank import GatedMemory
from training.teachers.base import Teacher, TeacherError, TeacherTargets
from training.teachers.image_features import ImageTeacher


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
    relative = F.interpolate(prediction.logits + mask_out, scale_factor=2.0, mode="bilinear", align_corners=False)
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

    def __init__(
        self,
        student: Student,
        config: UnrollConfig,
        generator: torch.Generator,
        teacher: Teacher | None = None,
        projection: nn.Module | None = None,
        seen: tuple[ImageTeacher, nn.Module] | None = None,
    ) -> None:
        """Set up.

        Args:
            student: to train.
            config: how.
            generator: on the CPU, so that a run is the same on every device.
            teacher: who shows where to look; None leaves the terms that need one out.
            projection: from the student's readout to the teacher's width, see `readout_projection`.
            seen: who shows what is in the pictures, and the projection of the encoder's features to its; None leaves
                that term out.

        Raises:
            ConfigurationError: the selection does not exist.
            TeacherError: the teacher has a readout to match, and there is no projection.
        """
        wanted = teacher is not None and teacher.readout_width > 0 and config.weights.readout > 0
        if wanted and projection is None:
            raise TeacherError(
                "the teacher's readout needs a projection of the student's; make one, or set the weight readout to 0"
            )
        selection.check(config.selection)
        self.student = student
        self.config = config
        self.generator = generator
        self.teacher = teacher
        self.projection = projection
        self.seen = seen

    def _chance(self, *shape: int) -> Tensor:
        return torch.rand(shape, generator=self.generator)

    def _gate(self, budget: int, progress: float) -> GatedMemory:
        """What remembers this batch: the gate, chance or a fixed rule."""
        config = self.config
        start, end = config.temperature
        temperature = start * (end / start) ** min(1.0, progress)
        learned = float(self._chance()) < config.gated
        student = self.student if learned else None
        keep = config.keep if config.weights.gate > 0 else None
        return GatedMemory(student, budget, temperature, self.generator, config.selection, keep)

    def __call__(self, clip: dict[str, Tensor], progress: float) -> tuple[Tensor, dict[str, float]]:
        """Loss of a batch of clips, and its parts.

        Args:
            clip: as `training.data` makes them, on the student's device.
            progress: of the run, 0..1.
        """
        student, config = self.student, self.config
        images = clip["images"].permute(0, 1, 4, 2, 3).float()
        batch, frames = images.shape[:2]
        device = images.device
        count = int(clip["count"].max())
        exists = (torch.arange(count, device=device) < clip["count"].unsqueeze(1)).float()
        features, key = student.encode(images.flatten(0, 1).contiguous(memory_format=torch.channels_last))
        key = key.reshape(batch, frames, *key.shape[1:])
        truth = one_hot(clip["labels"], count)
        slots = torch.eye(count, device=device).expand(batch, -1, -1)
        pool = token_pool(key.shape[-2], key.shape[-1], config.pooled, device)
        budget = config.budgets[int(torch.randint(len(config.budgets), (), generator=self.generator))]
        remembered = self._gate(budget, progress)
        targets = None if self.teacher is None else self.teacher.targets(clip)

        first = self._first_frames(truth, exists)
        total = torch.zeros((), device=device)
        parts: dict[str, list[Tensor]] = {}
        previous = torch.zeros_like(F.avg_pool2d(truth[:, 0], 4))
        trusted = torch.zeros_like(exists)
        for t in range(frames):
            current = frame_features(features, batch, t)
            followed, new = exists * (first <= t), exists * (first == t)
            true = truth[:, t] * followed.unsqueeze(-1).unsqueeze(-1)
            prompts = self._prompts(true, followed, new, t)
            warped = self._seen_before(true) if t == 0 else torch.zeros_like(previous)
            bank = remembered.begin_frame(exists, student.variant.key_width)
            if t > 0:
                # Where a LOST object went is unknown, not "nowhere"; the tracker does the same.
                warped = self._warped(previous, clip["flow"][:, t], progress)
                warped = warped * trusted.unsqueeze(-1).unsqueeze(-1)
            window = torch.full((batch,), 8.0, device=device)
            logits = student.attention_logits(key[:, t], bank, window, pool)
            remembered.watch(logits)
            readout = student.read(key[:, t], bank, slots, logits + remembered.log_kept().unsqueeze(1))
            shown = None if prompts is None else Shown(prompts, key[:, t])
            prediction = student.decode(current, readout, warped, shown)
            loss, named = frame_loss(prediction, true, followed, config, progress)
            if t > 0:
                named["share"] = losses.share_loss(readout.share, readout.evidence, F.avg_pool2d(true, 16))
                loss = loss + config.weights.share * named["share"]
            if t > 0 and targets is not None:
                held = remembered.kept() & memory.readable(bank, window)
                taught = self._distil(targets, t, bank, held, readout, prediction, followed)
                loss, named = loss + taught[0], named | taught[1]
            total = total + loss * (0.75 if t == 0 else 1.0)
            for name, value in named.items():
                parts.setdefault(name if t else f"prompt_{name}", []).append(value.detach())
            previous, trusted = self._remembered(prediction, true, followed, new)
            self._write(remembered, current, key[:, t], previous, trusted, slots, clip["motion"][:, t], t, new, pool)
        extra = {"budget": remembered.budget_loss()}
        if config.weights.correspondence > 0:
            extra["correspondence"] = self._correspondence(key, clip["places"])
        if self.seen is not None and config.weights.features > 0:
            extra["features"] = self._features(images, features.stride16, *self.seen)
        if config.weights.gate > 0:
            extra["gate"] = remembered.supervision_loss()
        total = total / frames
        for name, value in extra.items():
            total = total + getattr(config.weights, name) * value
        values = {name: float(torch.stack(seen).mean()) for name, seen in parts.items()}
        values |= {name: float(value.detach()) for name, value in extra.items()}
        return total, {**values, **remembered.statistics()}

    def _features(self, images: Tensor, found: Tensor, teacher: ImageTeacher, projection: nn.Module) -> Tensor:
        """What an image teacher says of some frames. images: (N, T, 3, H, W); found: (N T, C, h, w)."""
        batch, frames = images.shape[:2]
        # The teacher costs as much as the student; neighbouring frames show nearly the same.
        taught = torch.randperm(frames, generator=self.generator)[: self.config.feature_frames]
        found = found.reshape(batch, frames, *found.shape[1:])[:, taught].flatten(0, 1)
        told = teacher(images[:, taught].flatten(0, 1))
        return losses.features(projection(found.flatten(2).transpose(1, 2)), told)

    def _correspondence(self, key: Tensor, places: Tensor) -> Tensor:
        """InfoNCE of every frame's keys with the first frame's and the one before. key: (N, T, C, h, w)."""
        frames = key.shape[1]
        pairs = [(t, 0) for t in range(1, frames)] + [(t, t - 1) for t in range(2, frames)]
        return losses.correspondence(key.flatten(3).transpose(2, 3), places.flatten(2, 3), pairs)

    def _distil(
        self, targets: TeacherTargets, t: int, bank: Bank, held: Tensor, readout: Readout, prediction: Prediction,
        followed: Tensor,
    ) -> tuple[Tensor, dict[str, Tensor]]:  # fmt: skip
        """What the teacher says of a frame: the weighted sum, and its parts."""
        weights = self.config.weights
        parts = frame_distillation(targets, t, bank, held, readout, prediction, followed, self.projection)
        weighted = [getattr(weights, name) * value for name, value in parts.items() if hasattr(weights, name)]
        return torch.stack(weighted).sum(), parts

    def _prompts(self, true: Tensor, followed: Tensor, new: Tensor, t: int) -> Tensor | None:
        """Rasters of the objects shown on this frame, None where none is; operators also show followed ones again."""
        again = (self._chance(*followed.shape) < self.config.shown_again).to(followed.device)
        shown = torch.maximum(new, followed * again * (t > 0))
        if not shown.any():
            return None
        return random_prompts(F.avg_pool2d(true, 4) * shown.unsqueeze(-1).unsqueeze(-1), self.generator)

    def _first_frames(self, truth: Tensor, exists: Tensor) -> Tensor:
        """The frame on which each object is shown, (N, K): 0 for most, later for some that are visible then."""
        frames = truth.shape[1]
        visible = truth.flatten(3).sum(-1) > 0  # (N, T, K)
        when = torch.randint(frames, exists.shape, generator=self.generator).to(exists.device)
        seen = torch.gather(visible, 1, when.unsqueeze(1)).squeeze(1)
        late = (self._chance(*exists.shape) < self.config.joins_late).to(exists.device) & seen
        return when * late

    def _seen_before(self, true: Tensor) -> Tensor:
        """Damaged masks, -1..1, of some of the objects that frame 0 shows, as when followed ones are shown again."""
        known = (self._chance(*true.shape[:2], 1, 1) < self.config.seen_before).float().to(true.device)
        if not known.any():
            return torch.zeros_like(F.avg_pool2d(true, 4))
        return (corrupt(F.avg_pool2d(true, 4), self.generator, 0.8) * 2.0 - 1.0) * known

    def _warped(self, previous: Tensor, flow: Tensor, progress: float) -> Tensor:
        warped = warp(corrupt(previous, self.generator, self.config.corrupt_warp), flow) * 2.0 - 1.0
        kept = self._chance(len(previous)) >= self.config.drop_warp[int(progress >= 0.4)]
        kept = kept.float().view(-1, 1, 1, 1).to(warped.device)
        return warped * kept

    def _remembered(
        self, prediction: Prediction, truth: Tensor, followed: Tensor, new: Tensor
    ) -> tuple[Tensor, Tensor]:
        """The masks (N, K, h, w) that go to memory, and which of them are trusted (N, K)."""
        pooled = F.avg_pool2d(truth, 4)
        own = prediction.probability.detach() * followed.unsqueeze(-1).unsqueeze(-1)
        # A new object is remembered as the operator meant it: a misread click would punish faithful tracking.
        pick = (self._chance(len(truth), 1) < self.config.own_masks).to(new.device).float() * (1.0 - new)
        pick = pick.unsqueeze(-1).unsqueeze(-1)
        masks = pick * own + (1.0 - pick) * pooled
        present = (truth.flatten(2).sum(-1) > 0).float() * followed
        return masks, present

    def _write(
        self, remembered: GatedMemory, current: Features, key: Tensor, masks: Tensor, trusted: Tensor, slots: Tensor,
        motion: Tensor, t: int, new: Tensor, pool: tuple[Tensor, Tensor],
    ) -> None:  # fmt: skip
        frame = torch.full((len(masks),), float(t), device=masks.device)
        fresh = self.student.tokens(current, key, masks, trusted, slots, motion.unsqueeze(1), frame, pool)
        remembered.write(fresh, self.student.affinity(masks, slots, pool), new)
