"""Your own SAM 2.1 or EdgeTAM behind the same tracker, through transformers: `backend="transformers"`.

The model comes from a local folder in Hugging Face's layout; nothing is downloaded. Frames are resized to the model's
own square (1024 px unless its config.json says otherwise), as it was trained; there is no resolution scale. Every
object has a session of its own and shares the frame's features: in a common one EdgeTAM fails (transformers 5.23) when
an object joins the others later, and SAM 2 then hardens the masks that it remembers of all of them. Sessions forget
what no later frame can read, so that memory stays bounded however long the stream is.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from sam2lite_core.backends.base import BackendSettings
from sam2lite_core.backends.foreign import FrameInputs
from sam2lite_core.backends.model_files import ModelInfo
from sam2lite_core.backends.torch import choose_device
from sam2lite_core.backends.transformers import session as transformers_session
from sam2lite_core.errors import BackendError
from sam2lite_core.graph_io import StepOutputs
from sam2lite_core.types import Prompt

MAX_OBJECTS = 64
"""Time and memory grow with every object; a bound, so that prompts cannot use up the machine."""

NOWHERE = -20.0
"""Logit of an object that is LOST."""

Entries = dict[str, dict[int, dict[str, Any]]]
"""What a session keeps between frames: by kind of frame, then by frame, what was stored of it."""


class TransformersBackend:
    """Runs Sam2VideoModel or EdgeTamVideoModel, fp32, on the CPU or a CUDA device."""

    name = "transformers"

    def __init__(self, settings: BackendSettings) -> None:
        """Load the model onto a device.

        Raises:
            ModelFileError: the folder is missing, of another model, or incomplete.
            BackendError: a precision or device that this backend does not have, or a package that is not installed.
        """
        if settings.precision not in ("auto", "fp32"):
            raise BackendError(f"backend transformers has no precision {settings.precision!r}; choose auto or fp32")
        self._device = choose_device(settings.device, self.name)
        if settings.threads is not None:
            torch.set_num_threads(settings.threads)  # of the whole process: torch has no other
        self._model = transformers_session.load_model(settings.folder, self._device)
        self.input_size = transformers_session.input_side(self._model)
        self.window = int(self._model.num_maskmem) - 1
        count = sum(parameter.numel() for parameter in self._model.parameters())
        kind = str(self._model.config.model_type)
        self.info = ModelInfo(kind, MAX_OBJECTS, 0, {"total": count}, note=f"from {settings.folder}")
        self._sessions: dict[int, Any] = {}

    def reset(self) -> None:
        """Forget every object."""
        self._sessions.clear()

    def step_frame(self, inputs: FrameInputs) -> StepOutputs:
        """Run one frame for every object and update their sessions.

        A prompt's mask is the answer on its frame; a box and points beside it add nothing. A prompt by box or points
        is read without the memory, as on an object's first frame.

        Raises:
            BackendError: torch or transformers failed; the sessions are as before the step.
        """
        restore = self.keep()
        try:
            with torch.inference_mode():
                return self._step(inputs)
        except Exception as error:  # transformers raises whatever its many parts raise
            restore()
            raise BackendError(f"transformers failed on a frame of {inputs.image.shape[:2]}: {error}") from error

    def keep(self) -> Callable[[], None]:
        """Remember every session as it is; calling the result brings them back."""
        kept = {number: _entries(session) for number, session in self._sessions.items()}

        def restore() -> None:
            self._sessions = {number: self._session(number, held) for number, held in kept.items()}

        return restore

    def memory_bytes(self) -> int:
        """Bytes that the sessions hold between frames."""
        tensors = (
            value
            for session in self._sessions.values()
            for frames in session.output_dict_per_obj[0].values()
            for entry in frames.values()
            for value in entry.values()
        )
        return sum(tensor.numel() * tensor.element_size() for tensor in tensors)

    def _step(self, inputs: FrameInputs) -> StepOutputs:
        for gone in set(self._sessions) - inputs.followed:
            del self._sessions[gone]
        image = torch.from_numpy(np.require(inputs.image, requirements=["C", "W"])).to(self._device)
        pixels = transformers_session.to_pixels(image, self.input_size)
        shown = {prompt.object_id: prompt for prompt in inputs.prompts}
        logits, scores, features = [], [], None
        for number in inputs.object_ids:
            if number not in self._sessions:
                self._sessions[number] = self._session(number)
            session = self._sessions[number]
            if number in shown:
                self._show(session, inputs, shown[number])
            if features is not None:
                session.cache.cache_vision_features(inputs.frame, features)
            answer = self._model(inference_session=session, frame=pixels, frame_idx=inputs.frame)
            features = session.cache.get_vision_features(inputs.frame)
            transformers_session.forget(session, self._model, inputs.frame)
            logits.append(answer.pred_masks[0, 0].float())
            scores.append(answer.object_score_logits.flatten()[0].float())
        presence = torch.sigmoid(torch.stack(scores)).cpu().numpy()
        masks = torch.stack(logits).cpu().numpy()
        masks[presence < inputs.presence_threshold] = NOWHERE
        return StepOutputs(masks, presence, self._tokens())

    def _session(self, number: int, held: Entries | None = None) -> Any:
        """A session for one object, with what an earlier one kept."""
        session = transformers_session.new_session(self._model, *self.input_size, self._device)
        index = session.obj_id_to_idx(number)
        session.processed_frames = {}
        if held is not None:
            session.output_dict_per_obj[index] = _copied(held)
        return session

    def _show(self, session: Any, inputs: FrameInputs, prompt: Prompt) -> None:
        if prompt.mask is not None:
            mask = transformers_session.to_mask(torch.from_numpy(prompt.mask).to(self._device), self.input_size)
            session.add_mask_inputs(0, inputs.frame, mask[None, None])
        else:
            height, width = inputs.image.shape[:2]
            points = transformers_session.to_points(prompt, (height, width), self.input_size)
            session.add_point_inputs(0, inputs.frame, points)
        session.obj_with_new_inputs.append(prompt.object_id)

    def _tokens(self) -> int:
        features = (
            entry["maskmem_features"]
            for session in self._sessions.values()
            for frames in session.output_dict_per_obj[0].values()
            for entry in frames.values()
            if "maskmem_features" in entry
        )
        return sum(feature.numel() // feature.shape[-1] for feature in features)


def _entries(session: Any) -> Entries:
    return _copied(session.output_dict_per_obj[0])


def _copied(entries: Entries) -> Entries:
    """The same tensors in dictionaries of their own: the models replace tensors and never write into them."""
    return {kind: {frame: dict(entry) for frame, entry in frames.items()} for kind, frames in entries.items()}
