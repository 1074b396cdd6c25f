"""Log frames that were not tracked."""

from time import monotonic
from typing import Any

from sam2lite_core.errors import Sam2LiteError
from sam2lite_ros.tracker.inputs import THROTTLE_S

MOST_MESSAGES = 64
"""Different messages whose times are remembered."""


class FrameLog:
    """Throttled log of failed and dropped frames; the inference thread writes it."""

    def __init__(self, logger: Any) -> None:
        self._logger = logger
        self._logged: dict[str, float] = {}

    def frame_failed(self, error: Exception) -> None:
        """Log a frame that could not be used."""
        kind = "" if isinstance(error, Sam2LiteError) else f"unexpected {type(error).__name__}: "
        text = f"frame not tracked: {kind}{error}"
        # Each message has a throttle of its own: a stream of one kind must not hide another.
        if monotonic() - self._logged.get(text, -THROTTLE_S) >= THROTTLE_S:
            if len(self._logged) >= MOST_MESSAGES:
                self._logged.clear()
            self._logged[text] = monotonic()
            self._logger.error(text)

    def frame_too_old(self, age_ms: float, limit_ms: float) -> None:
        """Log a frame that was dropped for its age."""
        self._logger.warning(
            f"frame dropped: {age_ms:.0f} ms old, max_frame_age_ms is {limit_ms:.0f}; replays need use_sim_time",
            throttle_duration_sec=THROTTLE_S,
        )
