"""The end of spinning: ordinary when rclpy was shut down, an error otherwise."""

import pytest
import rclpy
from rclpy.executors import ExternalShutdownException

from sam2lite_ros.spinning import spin_until_shutdown


class TrippingExecutor:
    """Ends its spin with an error, after shutting rclpy down or not."""

    def __init__(self, error: BaseException, shut_down: bool) -> None:
        self.error, self.shut_down = error, shut_down

    def spin(self) -> None:
        if self.shut_down:
            rclpy.shutdown()
        raise self.error


@pytest.mark.parametrize("error", [RuntimeError("dead context"), ExternalShutdownException(), KeyboardInterrupt()])
def test_whatever_the_executor_says_of_a_dead_context_is_an_end(isolated_ros, error) -> None:
    rclpy.init()
    try:
        spin_until_shutdown(TrippingExecutor(error, shut_down=True))
    finally:
        rclpy.try_shutdown()


def test_an_error_while_the_context_lives_is_an_error(isolated_ros) -> None:
    rclpy.init()
    try:
        with pytest.raises(RuntimeError, match="ours"):
            spin_until_shutdown(TrippingExecutor(RuntimeError("ours"), shut_down=False))
    finally:
        rclpy.try_shutdown()
