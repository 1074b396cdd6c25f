"""Compare a frame's arithmetic and bytes with the machine's peaks: `sam2lite bench roofline`.

A frame takes at least the longer of its arithmetic at the machine's peak and its bytes at the machine's bandwidth.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sam2lite_core.bench.tables import table

OVERHEAD = 2.0
"""A frame that takes so many times its floor is bound by neither arithmetic nor bytes."""


@dataclass(frozen=True)
class Floor:
    """The least time of a frame on a machine.

    Attributes:
        arithmetic_ms: its operations at the peak rate.
        bytes_ms: its products' operands and results at the rate of a copy, each moved once.
        unfused_ms: the operands and results of every operation at that rate, without fusion or cache.
    """

    arithmetic_ms: float
    bytes_ms: float
    unfused_ms: float

    @property
    def least_ms(self) -> float:
        """Return the roof: the longer of arithmetic and bytes."""
        return max(self.arithmetic_ms, self.bytes_ms)


def floor(cost: dict[str, float], peak: dict[str, float]) -> Floor:
    """Compute the floor of a frame from a row of `traffic.rows` and a peak of `peaks.measure`."""
    bandwidth = peak["gbyte_per_s"] * 1e6
    return Floor(
        cost["flops"] / (peak["gflop_per_s"] * 1e6), cost["product_bytes"] / bandwidth, cost["all_bytes"] / bandwidth
    )


def bound(floors: Floor, measured_ms: float | None) -> str:
    """Name what bounds a frame: the roof's side, or "small operations" far below the roof."""
    if measured_ms is not None and measured_ms > OVERHEAD * floors.least_ms:
        return "small operations"
    return "arithmetic" if floors.arithmetic_ms >= floors.bytes_ms else "bytes"


def markdown(content: dict[str, Any], profiles: Sequence[dict[str, Any]] = (), threads: int = 2) -> str:
    """Write the roofline as a Markdown table.

    Args:
        content: `peaks` and `rows`; where no peak was measured with these threads, the counts stand alone.
        profiles: rows of `sam2lite bench parts`: times to set beside the roof of the same variant, scale and threads.
        threads: of the peak to set the frames against.
    """
    peak = next((entry for entry in content["peaks"] if entry["threads"] == threads), None)
    times = {(entry["variant"], entry["scale"]): entry["graph_ms"] for entry in profiles if entry["threads"] == threads}
    head = [
        *("variant", "scale", "GFLOP", "MB of products", "MB of everything", "operations", "FLOP/byte"),
        *("arithmetic ms", "bytes ms", "bytes ms, nothing fused", "graph ms", "of the roof", "bound by"),
    ]
    body = []
    for row in content["rows"]:
        measured = times.get((row["variant"], row["scale"]))
        body.append(
            [
                row["variant"],
                f"{row['scale']:g}",
                f"{row['flops'] / 1e9:.1f}",
                f"{row['product_bytes'] / 1e6:.0f}",
                f"{row['all_bytes'] / 1e6:.0f}",
                row["operations"],
                f"{row['flops'] / row['product_bytes']:.0f}",
                *_against(None if peak is None else floor(row, peak), measured),
            ]
        )
    return "\n".join(table(head, body)) + "\n"


def _against(floors: Floor | None, measured: float | None) -> list[str]:
    """Write the cells that need a peak, a measured time, or both."""
    time = "-" if measured is None else f"{measured:.1f}"
    if floors is None:
        return ["-", "-", "-", time, "-", "-"]
    share = "-" if measured is None else f"{100 * floors.least_ms / measured:.0f} %"
    bounds = (floors.arithmetic_ms, floors.bytes_ms, floors.unfused_ms)
    return [*(f"{value:.1f}" for value in bounds), time, share, bound(floors, measured)]


def peaks_markdown(peaks: Sequence[dict[str, float]]) -> str:
    """Write the machine's peaks as a Markdown table; a sentence where none were measured."""
    if not peaks:
        return "Not measured yet on a quiet machine.\n"
    head = ("threads", "GFLOP/s, fp32 product", "GB/s, copy", "FLOP/byte at the ridge")
    rows = []
    for entry in peaks:
        flops, bandwidth = entry["gflop_per_s"], entry["gbyte_per_s"]
        rows.append((entry["threads"], f"{flops:.0f}", f"{bandwidth:.1f}", f"{flops / bandwidth:.0f}"))
    return "\n".join(table(head, rows)) + "\n"
