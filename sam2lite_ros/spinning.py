"""Spin until somebody ends the process."""

import rclpy
from rclpy.executors import Executor, ExternalShutdownException


def spin_until_shutdown(executor: Executor) -> None:
    """Serve callbacks until rclpy is shut down, by a signal or by the program.

    A signal that invalidates the context between two waits causes an error of the C layer instead of
    `ExternalShutdownException`; that is an ordinary end too.
    """
    try:
        executor.spin()
    except (KeyboardInterrupt, ExternalShutdownException):
        return
    except Exception:
        if rclpy.ok():
            raise
