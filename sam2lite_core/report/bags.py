"""Tabulate bags that were played to the node: how it kept up, and what that cost."""

from sam2lite_core.report.inputs import BagRun, Inputs
from sam2lite_core.report.views import BAG, Section, TableView, number, per_cent

TITLE = "Bags, played to the node"
WITHOUT_MASK = "frames without a mask of their own"


def bags(inputs: Inputs) -> Section:
    """Tabulate frames and times, and scores and their parts; a row a bag."""
    if not inputs.bags:
        return Section("bags", TITLE, missing=f"No bag: {BAG}")
    times = TableView(
        ("bag", "topic", "rate", "frames", "lost on the way", "processed", "dropped", "deadline ms", "missed",
         "age p50 ms", "p95", "p99", "longest"),
        [_times(name, bag) for name, bag in inputs.bags.items()],
        "Lost on the way: frames that had not reached the node when it published its last mask. Dropped: by the node, "
        "for a newer one or for their age. Missed: processed frames whose mask came after the deadline. Age: from the "
        "image's stamp until its mask.",
    )  # fmt: skip
    scores = TableView(
        ("bag", "J&F offline", "resolution, window", "node", "J&F processed", WITHOUT_MASK, "J&F all frames"),
        [_scores(name, bag) for name, bag in inputs.bags.items()],
        "Per cent, and points between: what the deadline chose and the node itself lead from the offline run to the "
        f"frames that were processed; {WITHOUT_MASK} (lost on the way, dropped, or not published) have the last one "
        "before them, and lead to all frames.",
    )
    return Section("bags", TITLE, [times, scores])


def _times(name: str, bag: BagRun) -> tuple[str, ...]:
    """Frames, deadline and ages of a bag."""
    limit = bag.deadline["ms"]
    missed = "–" if limit is None else str(bag.deadline["missed"])
    frames = bag.frames
    lost = frames["in_bag"] - frames["received"]
    counts = map(str, (frames["in_bag"], lost, frames["processed"], frames["dropped"]))
    ages = (number(bag.age_ms.get(key)) for key in ("p50", "p95", "p99", "max"))
    return (name, bag.topic, f"{bag.rate:g}×", *counts, number(limit), missed, *ages)


def _scores(name: str, bag: BagRun) -> tuple[str, ...]:
    """Scores of a bag, and what leads from one to the next."""

    def points(part: str) -> str:
        return f"{100 * bag.why[part]:+.1f}" if part in bag.why else "–"

    return (
        name, per_cent(bag.jf["offline"]), points("resolution_and_window"), points("node"),
        per_cent(bag.jf["processed"]), points("dropped_frames"), per_cent(bag.jf["all_frames"]),
    )  # fmt: skip
