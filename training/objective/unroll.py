"""Unroll the student and its memory over a clip, and compute the loss of its predictions."""

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sam2lite_core.graph_io import PromptTensors
from sam2lite_core.model import bank as memory_bank
from sam2lite_core.model.bank import Bank
from sam2lite_core.model.step import ROBOT, Memory, Remember, StepResult, UnboundedMemory, step
from sam2lite_core.model.student import DecodedMasks, Student
from training.config.objective import UnrollConfig
from training.data.play import WINDOW, EncodedClips, encode_clips, step_inputs
from training.data.tensors import token_pool, warp
from training.objective import losses, selection
from training.objective.corruption import corrupt, random_prompts
from training.objective.distillation import frame_distillation
from training.objective.gated_bank import GatedMemory
from training.teachers.base import Teacher, TeacherError, TeacherTargets
from training.teachers.image_features import ImageTeacher


def frame_loss(
    prediction: DecodedMasks, truth: Tensor, exists: Tensor, config: UnrollConfig, progress: float
) -> tuple[Tensor, dict[str, Tensor]]:
    """Compute the mask, IoU, edge and presence loss of one frame.

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
            student, config: to train, and how.
            generator: on the CPU, so that a run is the same on every device.
            teacher: shows where to look; None leaves the terms that need one out.
            projection: from the student's readout to the teacher's width, see `readout_projection`.
            seen: an image teacher, and the projection of the encoder's features to its; None leaves that term out.

        Raises:
            ConfigurationError, TeacherError: an unknown selection, or a projection is missing.
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

    def _memory(self, budget: int, progress: float) -> tuple[Memory, str]:
        """Choose the memory of this batch, and the retention policy that goes with it."""
        config = self.config
        if config.selection == "unbounded":
            return UnboundedMemory(), "fifo"
        if config.selection in selection.FIXED:
            return ROBOT, config.selection
        if float(self._chance()) >= config.gated:
            # Of a robot's policies only the learned one leaves room in the bank.
            return selection.ChanceMemory(selection.Chance.drawn(self._batch, self.generator)), "random"
        start, end = config.temperature
        temperature = start * (end / start) ** min(1.0, progress)
        keep = config.keep if config.weights.gate > 0 else None
        memory = GatedMemory(budget, temperature, self.generator, config.selection, keep, exact=config.exact_memory)
        return memory, "learned"

    def __call__(self, clip: dict[str, Tensor], progress: float) -> tuple[Tensor, dict[str, float]]:
        """Compute the loss of a batch of clips, and its parts.

        Args:
            clip: as `training.data` makes them, on the student's device.
            progress: of the run, 0..1.
        """
        config = self.config
        clips = encode_clips(self.student, clip)
        self._batch, frames = clips.key.shape[:2]
        budget = config.budgets[int(torch.randint(len(config.budgets), (), generator=self.generator))]
        memory, policy = self._memory(budget, progress)
        targets = None if self.teacher is None else self.teacher.targets(clip)
        total = torch.zeros((), device=clips.key.device)
        parts: dict[str, list[Tensor]] = {}
        first = self._first_frames(clips.truth, clips.exists)
        for t, result in self._steps(clip, clips, first, memory, policy, budget, progress):
            followed = clips.exists * (first <= t)
            true = clips.truth[:, t] * followed.unsqueeze(-1).unsqueeze(-1)
            loss, named = frame_loss(result.decoded, true, followed, config, progress)
            if t > 0:
                readout = result.readout
                named["share"] = losses.share_loss(readout.share, readout.evidence, F.avg_pool2d(true, 16))
                loss = loss + config.weights.share * named["share"]
            if t > 0 and targets is not None:
                taught = self._distil(targets, t, result.held, result, followed)
                loss, named = loss + taught[0], named | taught[1]
            total = total + loss * (0.75 if t == 0 else 1.0)
            for name, value in named.items():
                parts.setdefault(name if t else f"prompt_{name}", []).append(value.detach())
        extra = self._clip_losses(clip, clips, memory)
        total = total / frames
        for name, value in extra.items():
            total = total + getattr(config.weights, name) * value
        values = {name: float(torch.stack(seen).mean()) for name, seen in parts.items()}
        values |= {name: float(value.detach()) for name, value in extra.items()}
        if isinstance(memory, GatedMemory):
            values |= memory.statistics()
        return total, values

    def _steps(
        self, clip: dict[str, Tensor], clips: EncodedClips, first: Tensor, memory: Memory, policy: str, budget: int,
        progress: float,
    ) -> Iterator[tuple[int, StepResult]]:  # fmt: skip
        """Run the student's step on every frame."""
        student, config, exists = self.student, self.config, clips.exists
        batch, frames = clips.key.shape[:2]
        device = exists.device
        pool = token_pool(clips.key.shape[-2], clips.key.shape[-1], config.pooled, device)
        capacity = 1 if memory.grows else budget
        bank = memory_bank.empty_bank(batch, capacity, student.variant.key_width, exists.shape[1], device)
        previous, trusted = torch.zeros_like(F.avg_pool2d(clips.truth[:, 0], 4)), torch.zeros_like(exists)
        for t in range(frames):
            followed, new = exists * (first <= t), exists * (first == t)
            true = clips.truth[:, t] * followed.unsqueeze(-1).unsqueeze(-1)
            prompt = self._prompts(true, followed, new, t)
            if t == 0:
                warped = self._seen_before(true)
            else:
                # The place of a LOST object is unknown, not "nowhere"; the tracker does the same.
                warped = self._warped(previous, clip["flow"][:, t], progress)
                warped = warped * trusted.unsqueeze(-1).unsqueeze(-1)
            inputs = step_inputs(warped, exists, clip["motion"][:, t], t, budget, policy, pool)
            result = step(
                student, inputs, bank, prompt, memory=memory, encoded=clips.frame(t), followed=followed,
                remember=self._remember(true, followed, new), raw_readout=True,
            )  # fmt: skip
            bank, trusted = result.bank, result.present
            previous = result.masks if config.teacher_forcing else result.carried().detach()
            yield t, result

    def _clip_losses(self, clip: dict[str, Tensor], clips: EncodedClips, memory: Memory) -> dict[str, Tensor]:
        """Compute the unweighted losses of a whole clip by name."""
        weights, nothing = self.config.weights, torch.zeros((), device=clips.key.device)
        gated = memory if isinstance(memory, GatedMemory) else None
        extra = {"budget": gated.budget_loss() if gated else nothing}
        if weights.correspondence > 0:
            extra["correspondence"] = self._correspondence(clips.key, clip["places"])
        if self.seen is not None and weights.features > 0:
            images = clip["images"].permute(0, 1, 4, 2, 3).float()
            extra["features"] = self._features(images, clips.features.stride16, *self.seen)
        if weights.gate > 0:
            extra["gate"] = gated.supervision_loss() if gated else nothing
        return extra

    def _features(self, images: Tensor, found: Tensor, teacher: ImageTeacher, projection: nn.Module) -> Tensor:
        """Compute the loss to an image teacher on some frames. images: (N, T, 3, H, W); found: (N T, C, h, w)."""
        batch, frames = images.shape[:2]
        # The teacher costs as much as the student; neighbouring frames show nearly the same.
        taught = torch.randperm(frames, generator=self.generator)[: self.config.feature_frames]
        found = found.reshape(batch, frames, *found.shape[1:])[:, taught].flatten(0, 1)
        told = teacher(images[:, taught].flatten(0, 1))
        return losses.features(projection(found.flatten(2).transpose(1, 2)), told)

    def _correspondence(self, key: Tensor, places: Tensor) -> Tensor:
        """Compute InfoNCE of every frame's keys with the first frame's and the one before. key: (N, T, C, h, w)."""
        frames = key.shape[1]
        pairs = [(t, 0) for t in range(1, frames)] + [(t, t - 1) for t in range(2, frames)]
        return losses.correspondence(key.flatten(3).transpose(2, 3), places.flatten(2, 3), pairs)

    def _distil(
        self, targets: TeacherTargets, t: int, held: Bank, result: StepResult, followed: Tensor
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Compute the teacher's losses of a frame: the weighted sum, and its parts."""
        weights = self.config.weights
        window = torch.full((len(followed),), WINDOW, device=followed.device)
        kept = memory_bank.readable(held, window)
        parts = frame_distillation(targets, t, held, kept, result.readout, result.decoded, followed, self.projection)
        weighted = [getattr(weights, name) * value for name, value in parts.items() if hasattr(weights, name)]
        return torch.stack(weighted).sum(), parts

    def _prompts(self, true: Tensor, followed: Tensor, new: Tensor, t: int) -> PromptTensors | None:
        """Draw prompts of new objects; operators also show followed ones again. None where no object is shown."""
        again = (self._chance(*followed.shape) < self.config.shown_again).to(followed.device)
        shown = torch.maximum(new, followed * again * (t > 0))
        if not shown.any():
            return None
        visible = F.avg_pool2d(true, 4) * shown.unsqueeze(-1).unsqueeze(-1)
        rasters = random_prompts(visible, self.generator)
        return PromptTensors(rasters, torch.zeros_like(visible), torch.zeros_like(shown), shown)

    def _first_frames(self, truth: Tensor, exists: Tensor) -> Tensor:
        """Draw the frame on which each object is shown, (N, K): 0 for most, later for some that are visible then."""
        frames = truth.shape[1]
        visible = truth.flatten(3).sum(-1) > 0  # (N, T, K)
        when = torch.randint(frames, exists.shape, generator=self.generator).to(exists.device)
        seen = torch.gather(visible, 1, when.unsqueeze(1)).squeeze(1)
        late = (self._chance(*exists.shape) < self.config.joins_late).to(exists.device) & seen
        return when * late

    def _seen_before(self, true: Tensor) -> Tensor:
        """Draw damaged masks, -1..1, of some objects of frame 0, as if they had been followed."""
        known = (self._chance(*true.shape[:2], 1, 1) < self.config.seen_before).float().to(true.device)
        if not known.any():
            return torch.zeros_like(F.avg_pool2d(true, 4))
        return (corrupt(F.avg_pool2d(true, 4), self.generator, 0.8) * 2.0 - 1.0) * known

    def _warped(self, previous: Tensor, flow: Tensor, progress: float) -> Tensor:
        warped = warp(corrupt(previous, self.generator, self.config.corrupt_warp), flow) * 2.0 - 1.0
        kept = self._chance(len(previous)) >= self.config.drop_warp[int(progress >= 0.4)]
        kept = kept.float().view(-1, 1, 1, 1).to(warped.device)
        return warped * kept

    def _remember(self, truth: Tensor, followed: Tensor, new: Tensor) -> Remember:
        """Choose what goes to memory: own masks, or with teacher forcing some ground truth."""

        def choose(_: DecodedMasks, probability: Tensor, present: Tensor) -> tuple[Tensor, Tensor]:
            return probability.detach(), present

        def forced(decoded: DecodedMasks, *_: Tensor) -> tuple[Tensor, Tensor]:
            own = decoded.probability.detach() * followed.unsqueeze(-1).unsqueeze(-1)
            # A new object is remembered as the operator meant it: a misread click would punish faithful tracking.
            pick = (self._chance(len(truth), 1) < self.config.own_masks).to(new.device).float() * (1.0 - new)
            pick = pick.unsqueeze(-1).unsqueeze(-1)
            visible = (truth.flatten(2).sum(-1) > 0).float() * followed
            return pick * own + (1.0 - pick) * F.avg_pool2d(truth, 4), visible

        return forced if self.config.teacher_forcing else choose
