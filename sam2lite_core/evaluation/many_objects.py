"""Follow more objects than a model has object slots, as in BDD100K: several trackers side by side."""

from collections.abc import Callable, Sequence
from dataclasses import fields, replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from sam2lite_core.types import Prompt, StepTimings, TrackResult

if TYPE_CHECKING:
    from sam2lite_core.tracker import Tracker


class ManyObjects:
    """Follows any number of objects; a new one goes to the first tracker with a free object slot.

    A pixel that two trackers claim goes to the earlier one: their objects do not compete, as those of one tracker do.
    """

    def __init__(self, build: "Callable[[], Tracker]") -> None:
        """Build the first tracker."""
        self._build = build
        self._trackers = [build()]
        self._owner: dict[int, int] = {}

    def reset(self) -> None:
        """Forget every object and frame."""
        for tracker in self._trackers:
            tracker.reset()
        self._owner.clear()

    def step(self, image: NDArray[np.uint8], prompts: Sequence[Prompt] = ()) -> TrackResult:
        """Follow the objects into the next frame; see `Tracker.step`. Times and tokens are sums over the trackers."""
        shares: dict[int, list[Prompt]] = {}
        for prompt in prompts:
            shares.setdefault(self._place(prompt.object_id), []).append(prompt)
        in_use = range(1 + max(self._owner.values(), default=0))
        results = [self._trackers[index].step(image, shares.get(index, ())) for index in in_use]
        return results[0] if len(results) == 1 else _merge(results)

    def _place(self, object_id: int) -> int:
        """Return the index of the tracker that follows this object; build one when no slot is free."""
        if object_id not in self._owner:
            counts = np.bincount(list(self._owner.values()), minlength=len(self._trackers))
            free = [i for i, tracker in enumerate(self._trackers) if counts[i] < tracker.max_objects]
            if not free:
                self._trackers.append(self._build())
                free = [len(self._trackers) - 1]
            self._owner[object_id] = free[0]
        return self._owner[object_id]


def _merge(results: Sequence[TrackResult]) -> TrackResult:
    """Merge the results of several trackers on the same frame."""
    merged = results[0].label_map
    for result in results[1:]:
        merged = np.asarray(np.where(merged == 0, result.label_map, merged))
    objects = sorted((entry for r in results for entry in r.objects), key=lambda entry: entry.object_id)
    names = [part.name for part in fields(StepTimings)]
    timings = StepTimings(**{name: sum(getattr(r.timings, name) for r in results) for name in names})
    tokens = sum(result.memory_tokens_used for result in results)
    first = replace(results[0], label_map=merged, objects=tuple(objects))
    return replace(first, timings=timings, memory_tokens_used=tokens)
