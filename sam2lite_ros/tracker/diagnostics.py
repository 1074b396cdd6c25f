"""Publish the node's health on /diagnostics once a second."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from time import monotonic

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from rclpy.node import Node

from sam2lite_ros.tracker.counters import Counts

SILENCE_S = 2.0
"""Seconds without an image after which an active node warns."""


@dataclass(frozen=True)
class Health:
    """The node's figures at one moment.

    Attributes:
        name: fully qualified node name.
        state: lifecycle state label.
        topic: resolved image topic; empty while there is no subscription.
        publishers: publishers seen on that topic.
        silent_s: seconds since the last image, or since activation.
        counts, before: totals now and at the previous diagnosis.
        period_s: seconds between the two.
        latencies: recent times from arrival to mask, ms.
        last_error: reason of the latest failed frame.
        objects: number of followed objects.
        stalled_s: seconds that a hanging step has been running; 0 when none hangs.
    """

    name: str
    state: str
    topic: str = ""
    publishers: int = 0
    silent_s: float = 0.0
    counts: Counts = field(default_factory=Counts)
    before: Counts = field(default_factory=Counts)
    period_s: float = 1.0
    latencies: Sequence[float] = ()
    last_error: str = ""
    objects: int = 0
    stalled_s: float = 0.0


class Diagnostics:
    """Publisher of the node's health; it is told of every image, so that it notices silence."""

    def __init__(self, node: Node, health: Callable[[], Health]) -> None:
        """Create the publisher; it adds times and earlier counts to the `health` of the moment."""
        self._node = node
        self._health = health
        self._publisher = node.create_publisher(DiagnosticArray, "/diagnostics", 10)
        self.restart()

    def restart(self) -> None:
        """Start counting anew, as the node does when it is activated."""
        self._before = Counts()
        self._published = self._last_image = monotonic()

    def image_arrived(self) -> None:
        """Note that the topic is alive."""
        self._last_image = monotonic()

    def publish(self) -> None:
        """Publish one diagnosis."""
        now = monotonic()
        health = replace(
            self._health(),
            before=self._before,
            period_s=max(now - self._published, 1e-3),
            silent_s=now - self._last_image,
        )
        self._before, self._published = health.counts, now
        message = DiagnosticArray(status=[diagnose(health)])
        message.header.stamp = self._node.get_clock().now().to_msg()
        self._publisher.publish(message)


def diagnose(health: Health) -> DiagnosticStatus:
    """Return the diagnosis: error for steps that hang or frames that fail, warning for missing or late ones."""
    level, message = _verdict(health)
    ordered = sorted(health.latencies)
    counts, before = health.counts, health.before
    values = {
        "state": health.state,
        "image topic": health.topic or "not subscribed",
        "publishers on it": str(health.publishers),
        "input rate (Hz)": _rate(counts.received - before.received, health.period_s),
        "output rate (Hz)": _rate(counts.processed - before.processed, health.period_s),
        **{f"frames {name}": str(getattr(counts, name)) for name in ("received", "processed", "dropped", "failed")},
        "deadlines missed": str(counts.deadlines_missed),
        "latency p50 (ms)": _percentile(ordered, 0.5),
        "latency p95 (ms)": _percentile(ordered, 0.95),
        "objects": str(health.objects),
        "last error": health.last_error,
    }
    return DiagnosticStatus(
        level=level,
        name=f"{health.name.lstrip('/')}: tracking",
        message=message,
        hardware_id="none",
        values=[KeyValue(key=key, value=value) for key, value in values.items()],
    )


def _verdict(health: Health) -> tuple[bytes, str]:
    if health.state != "active":
        return DiagnosticStatus.OK, health.state
    if health.stalled_s:
        return DiagnosticStatus.ERROR, f"the backend hangs: its step has taken {health.stalled_s:.1f} s so far"
    if health.counts.failed > health.before.failed:
        return DiagnosticStatus.ERROR, f"frames fail: {health.last_error}"
    if health.silent_s > SILENCE_S:
        hint = "check its QoS and the image_transport parameter" if health.publishers else "nobody publishes it"
        return DiagnosticStatus.WARN, f"no image on {health.topic} for {health.silent_s:.1f} s: {hint}"
    missed = health.counts.deadlines_missed - health.before.deadlines_missed
    processed = health.counts.processed - health.before.processed
    if processed and missed * 2 > processed:
        return DiagnosticStatus.WARN, f"{missed} of {processed} deadlines missed in the last {health.period_s:.1f} s"
    return DiagnosticStatus.OK, "tracking" if health.objects else "waiting for a prompt"


def _rate(frames: int, period_s: float) -> str:
    return f"{max(0, frames) / period_s:.1f}"


def _percentile(ordered: Sequence[float], share: float) -> str:
    if not ordered:
        return "-"
    return f"{ordered[min(len(ordered) - 1, int(share * len(ordered)))]:.1f}"
