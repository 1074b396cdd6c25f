"""Serve operators: services, and topics for clicks."""

from collections.abc import Awaitable, Callable
from concurrent.futures import Future
from functools import partial
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
from sam2lite_ros.tracker.prompts import (
    PromptRequest,
    request_from_box,
    request_from_click,
    request_from_point,
    request_from_service,
)
from sam2lite_ros.tracker.worker import TrackingWorker


class OperatorInterface:
    """The services add_object, remove_object and reset; the topics prompt_point, prompt_click and prompt_box.

    They exist from start to shutdown: a request in the wrong state gets an answer that names the state.
    """

    def __init__(self, node: Node, worker: Callable[[], TrackingWorker | None], state: Callable[[], str]) -> None:
        """Offer the services and topics; `worker` gives the active inference thread, `state` the lifecycle label."""
        self._node = node
        self._worker = worker
        self._state = state
        # In the node's own group, a request that awaits the inference thread would hold up images, diagnostics and
        # lifecycle transitions.
        group = ReentrantCallbackGroup()
        self._serve(AddObject, "~/add_object", self._add_object, group)
        self._serve(RemoveObject, "~/remove_object", self._remove_object, group)
        self._serve(Trigger, "~/reset", self._reset, group)
        node.create_subscription(PointStamped, "~/prompt_point", partial(self._prompt, request_from_point), 10)
        # rqt_image_view sends clicks without a header; remap this to its IMAGE_mouse_left topic.
        node.create_subscription(Point, "~/prompt_click", partial(self._prompt, request_from_click), 10)
        node.create_subscription(RegionOfInterest, "~/prompt_box", partial(self._prompt, request_from_box), 10)

    def _serve(self, kind: Any, name: str, work: Callable[[Any, Any], Awaitable[str]], group: Any) -> None:
        """Offer a service whose work returns the message; a request must never take the node down."""

        async def answer(request: Any, response: Any) -> Any:
            try:
                response.message = await work(request, response)
                response.success = True
            except (Sam2LiteError, MailboxClosedError) as error:
                response.success, response.message = False, str(error)
            except Exception as error:
                response.success, response.message = False, f"unexpected {type(error).__name__}: {error}"
            if not response.success:
                self._node.get_logger().warning(f"request refused: {response.message}")
            return response

        self._node.create_service(kind, name, answer, callback_group=group)

    async def _add_object(self, request: Any, response: Any) -> str:
        response.object_id = await self._done(self._active().add_object(request_from_service(request)))
        return f"following object {response.object_id}"

    async def _remove_object(self, request: Any, _: Any) -> str:
        await self._done(self._active().remove_object(int(request.object_id)))
        return f"object {request.object_id} is no longer followed"

    async def _reset(self, *_: Any) -> str:
        await self._done(self._active().reset())
        return "all objects and memory are forgotten"

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

    def _prompt(self, read: Callable[[Any], PromptRequest], message: Any) -> None:
        """Post a prompt that nobody waits for; its outcome is logged."""
        try:
            self._active().add_object(read(message)).add_done_callback(self._log_prompt)
        except (Sam2LiteError, MailboxClosedError) as error:
            self._node.get_logger().warning(f"prompt refused: {error}")

    def _log_prompt(self, work: "Future[Any]") -> None:
        error = work.exception()
        if error is None:
            self._node.get_logger().info(f"following object {work.result()}")
        else:
            self._node.get_logger().warning(f"prompt refused: {error}")
