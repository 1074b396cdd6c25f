"""Serve operators: services, and topics for clicks."""

from collections.abc import Awaitable, Callable
from concurrent.futures import Future
from typing import Any

from geometry_msgs.msg import Point, PointStamped
from rclpy.callback_groups import ReentrantCallbackGroup
from rclpy.node import Node
from rclpy.task import Future as RosFuture
from sensor_msgs.msg import RegionOfInterest
from std_srvs.srv import Trigger

from sam2lite_core.errors import Sam2LiteError
from sam2lite_ros.srv import AddObject, RemoveObject
from sam2lite_ros.tracker.mailbox import MailboxClosedError
from sam2lite_ros.tracker.prompts import PromptRequest, request_from_box, request_from_point, request_from_service
from sam2lite_ros.tracker.worker import TrackingWorker


class OperatorInterface:
    """The services add_object, remove_object and reset; the topics prompt_point, prompt_click and prompt_box.

    They exist from start to shutdown, so that a request in the wrong state gets an answer that names the
    state.
    """

    def __init__(self, node: Node, worker: Callable[[], TrackingWorker | None], state: Callable[[], str]) -> None:
        """Offer the services and topics.

        Args:
            node: the node that they belong to.
            worker: returns the inference thread while the node is active, else None.
            state: returns the lifecycle state's label.
        """
        self._node = node
        self._worker = worker
        self._state = state
        # In the node's own group, which runs one callback at a time, a request that awaits the inference thread would
        # keep images, diagnostics and lifecycle transitions waiting as well.
        group = ReentrantCallbackGroup()
        node.create_service(AddObject, "~/add_object", self._add_object, callback_group=group)
        node.create_service(RemoveObject, "~/remove_object", self._remove_object, callback_group=group)
        node.create_service(Trigger, "~/reset", self._reset, callback_group=group)
        node.create_subscription(PointStamped, "~/prompt_point", self._prompt_point, 10)
        # rqt_image_view sends clicks without a header; remap this to its IMAGE_mouse_left topic.
        node.create_subscription(Point, "~/prompt_click", self._prompt_click, 10)
        node.create_subscription(RegionOfInterest, "~/prompt_box", self._prompt_box, 10)

    async def _add_object(self, request: Any, response: Any) -> Any:
        async def add() -> str:
            response.object_id = await self._done(self._active().add_object(request_from_service(request)))
            return f"following object {response.object_id}"

        return await self._answer(response, add)

    async def _remove_object(self, request: Any, response: Any) -> Any:
        async def remove() -> str:
            await self._done(self._active().remove_object(int(request.object_id)))
            return f"object {request.object_id} is no longer followed"

        return await self._answer(response, remove)

    async def _reset(self, _: Any, response: Any) -> Any:
        async def reset() -> str:
            await self._done(self._active().reset())
            return "all objects and memory are forgotten"

        return await self._answer(response, reset)

    async def _answer(self, response: Any, work: Callable[[], Awaitable[str]]) -> Any:
        """Fill success and message; a request must never take the node down."""
        try:
            response.message = await work()
            response.success = True
        except (Sam2LiteError, MailboxClosedError) as error:
            response.success, response.message = False, str(error)
        except Exception as error:
            response.success, response.message = False, f"unexpected {type(error).__name__}: {error}"
        if not response.success:
            self._node.get_logger().warning(f"request refused: {response.message}")
        return response

    async def _done(self, work: "Future[Any]") -> Any:
        """Wait for the inference thread while the executor goes on receiving images."""
        bridge: RosFuture[Future[Any]] = RosFuture(executor=self._node.executor)
        # Humble wakes its executor for a future's callbacks only, not for whoever awaits it.
        bridge.add_done_callback(lambda _: None)
        work.add_done_callback(bridge.set_result)
        finished = await bridge
        assert finished is not None
        return finished.result()

    def _active(self) -> TrackingWorker:
        worker = self._worker()
        if worker is None:
            raise MailboxClosedError(f"the tracker is {self._state()}; configure and activate it first")
        if hang := worker.watchdog.hang():
            raise hang
        return worker

    def _prompt_point(self, message: PointStamped) -> None:
        self._prompt(lambda: request_from_point(message))

    def _prompt_click(self, message: Point) -> None:
        self._prompt(lambda: request_from_point(PointStamped(point=message)))

    def _prompt_box(self, message: RegionOfInterest) -> None:
        self._prompt(lambda: request_from_box(message))

    def _prompt(self, read: Callable[[], PromptRequest]) -> None:
        """Post a prompt that nobody waits for; its outcome is logged."""
        try:
            self._active().add_object(read()).add_done_callback(self._log_prompt)
        except (Sam2LiteError, MailboxClosedError) as error:
            self._node.get_logger().warning(f"prompt refused: {error}")

    def _log_prompt(self, work: "Future[Any]") -> None:
        error = work.exception()
        if error is None:
            self._node.get_logger().info(f"following object {work.result()}")
        else:
            self._node.get_logger().warning(f"prompt refused: {error}")
