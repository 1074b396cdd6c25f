"""Draw the memory bank at work in a real run; needs `pip install 'sam2lite[figures,torch]'`.

    python -m sam2lite_core.report.figures.memory --out docs/figures
    python -m sam2lite_core.report.figures.memory --source clip.mp4 --mask first.png --out figures

`memory_timeline.png` shows which frames the bank keeps (the paper's figure 1), `memory_attention.png` what one patch of
a frame reads from the remembered ones.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sam2lite_core.errors import ConfigurationError, Sam2LiteError
from sam2lite_core.frame import resolution
from sam2lite_core.frame.resolution import BASE_SHORT_SIDE
from sam2lite_core.graph_io import BankSnapshot, FloatArray
from sam2lite_core.report.figures.memory_record import (
    HIGH_MOTION,
    HIGH_UNCERTAINTY,
    KINDS,
    MemoryRecord,
    attention_by_frame,
    inner_point,
    record_memory,
)
from sam2lite_core.report.plots import hide_frame
from sam2lite_core.tracker import Tracker
from sam2lite_core.types import Prompt
from sam2lite_core.variants import MAX_WINDOW, PATCH

COLOURS = {"anchor": "#d64545", "change": "#f0932b", "recent": "#3a9d5d", "other": "#5b7fb8"}
DISCARDED = "#d5d9de"
LABELS = {
    "anchor": "anchor: written by a prompt",
    "change": f"change point: motion ≥ {HIGH_MOTION:g} patch a frame or uncertainty ≥ {HIGH_UNCERTAINTY:g} bit",
    "recent": f"recent: at most {MAX_WINDOW} frames old",
    "other": "kept for another reason",
}
THUMBNAILS = 6
SHOWN = 5
"""Remembered frames in the picture of the attention."""


def draw_timeline(record: MemoryRecord) -> Any:
    """Draw which frames the bank keeps at the end, and over time, as a matplotlib figure."""
    from matplotlib.figure import Figure
    from matplotlib.patches import Patch

    counts = record.counts()
    total = len(counts)
    figure = Figure(figsize=(11, 8.6), dpi=130, layout="constrained")
    grid = figure.add_gridspec(3, THUMBNAILS, height_ratios=[1.15, 1.5, 4.2])
    for place, index in enumerate(np.linspace(0, total - 1, THUMBNAILS).round().astype(int)):
        axes = figure.add_subplot(grid[0, place])
        axes.imshow(record.frames[index])
        if record.label_maps[index].any():
            axes.contour(record.label_maps[index] > 0, [0.5], colors="white", linewidths=1.2)
        axes.set_title(f"frame {index}", fontsize=9)
        axes.set_axis_off()
    _draw_final(figure.add_subplot(grid[1, :]), counts[-1], record.budget)
    _draw_history(figure.add_subplot(grid[2, :]), counts)
    handles = [Patch(color=COLOURS[kind], label=LABELS[kind]) for kind in KINDS]
    handles.append(Patch(color=DISCARDED, label="discarded"))
    figure.legend(handles=handles, loc="outside lower center", ncols=2, fontsize=9, frameon=False)
    return figure


def _draw_final(axes: Any, counts: NDArray[np.int64], budget: int) -> None:
    """Draw tokens by source frame after the last frame, stacked by kind; frames with none left are grey."""
    total, bottom = len(counts), np.zeros(len(counts))
    for kind, column in zip(KINDS, counts.T, strict=True):
        axes.bar(range(total), column, bottom=bottom, width=0.9, color=COLOURS[kind])
        bottom += column
    # The bar of the prompt frame's anchors is cut and labelled: it would press all others flat.
    top = max(4.0, 1.35 * float(np.sort(bottom)[-2])) if total > 1 else float(bottom.max())
    for frame in np.flatnonzero(bottom > top):
        axes.annotate(f"{int(bottom[frame])}", (frame + 0.6, 0.86 * top), fontsize=9)
    gone = np.flatnonzero(bottom == 0)
    axes.bar(gone, np.full(len(gone), 0.03 * top), width=0.9, color=DISCARDED)
    axes.set_xlim(-0.6, total - 0.4)
    axes.set_ylim(0, top)
    axes.yaxis.get_major_locator().set_params(integer=True)
    axes.set_ylabel("tokens kept")
    sources = np.count_nonzero(bottom)
    title = f"after frame {total - 1}: {int(bottom.sum())} of {budget} tokens, from {sources} of {total} frames"
    axes.set_title(title, fontsize=10, loc="left")
    hide_frame(axes, 9)


def _draw_history(axes: Any, counts: NDArray[np.int64]) -> None:
    """Draw the bank after every frame t by source frame b: colour is the commonest kind, strength the number."""
    from matplotlib.colors import to_rgb

    total = len(counts)
    number = counts.sum(axis=-1)
    palette = np.array([to_rgb(COLOURS[kind]) for kind in KINDS])
    colour = palette[counts.argmax(axis=-1)]
    usual = max(1.0, float(np.percentile(number[number > 0], 95))) if number.any() else 1.0
    strength = np.where(number > 0, 0.35 + 0.65 * np.sqrt(np.minimum(number / usual, 1.0)), 0.0)[..., None]
    written = np.tril(np.ones((total, total), bool))[..., None]
    background = np.where(written, np.array(to_rgb(DISCARDED)), 1.0)
    axes.imshow(np.where(strength > 0, colour * strength + (1 - strength), background), aspect="auto")
    axes.set_xlabel("frame that wrote the tokens")
    axes.set_ylabel("bank after frame")
    axes.set_title("how it came to that: strong colours stand for many tokens", fontsize=10, loc="left")
    hide_frame(axes, 9)


def draw_attention(
    frames: Sequence[NDArray[np.uint8]],
    query_frame: int,
    query: tuple[int, int],
    bank: BankSnapshot,
    attention: FloatArray,
    cells: tuple[int, int],
) -> Any:
    """Draw what one patch reads: its frame, and the frames that it reads most from, with their tokens.

    `frames` are (T, H, W, 3) uint8 RGB, `query` is a pixel (x, y), `bank` that before the query frame, `attention` (S,)
    over its rows, `cells` rows and columns of a frame's token grid.
    """
    from matplotlib.figure import Figure

    ranked = attention_by_frame(bank, attention)
    chosen = sorted(list(ranked)[:SHOWN])
    columns = min(3, len(chosen) + 1)
    rows = -(-(len(chosen) + 1) // columns)
    height, width = frames[0].shape[:2]
    figure = Figure(figsize=(11, 0.6 + rows * (11 / columns * height / width + 0.35)), dpi=130, layout="constrained")
    first = figure.add_subplot(rows, columns, len(chosen) + 1)
    first.imshow(frames[query_frame])
    first.plot(*query, marker="*", markersize=16, color="#ffe14d", markeredgecolor="black")
    first.set_title(f"frame {query_frame} asks at the star", fontsize=10, fontweight="bold")
    first.set_axis_off()
    peak = float(attention.max())
    for place, birth in enumerate(chosen, start=1):
        axes = figure.add_subplot(rows, columns, place)
        _draw_tokens(axes, frames[birth], bank, attention, birth, cells, peak)
        used = int(((bank.column("valid") > 0.5) & (bank.column("birth") == birth)).sum())
        axes.set_title(f"frame {birth}: {ranked[birth]:.0%} of the attention, {used} tokens", fontsize=10)
    rest = abs(1.0 - sum(ranked[birth] for birth in chosen))  # rounding may leave less than nothing
    title = f"what one patch reads from {len(ranked)} remembered frame{'s' * (len(ranked) > 1)}"
    figure.suptitle(f"{title} ({rest:.0%} from frames not shown)", fontsize=11)
    return figure


def _draw_tokens(
    axes: Any, image: NDArray[np.uint8], bank: BankSnapshot, attention: FloatArray, birth: int,
    cells: tuple[int, int], peak: float,
) -> None:  # fmt: skip
    """Draw a dimmed frame with its tokens in the bank, as hot as they are read."""
    from matplotlib import colormaps
    from matplotlib.patches import Rectangle

    height, width = image.shape[:2]
    axes.imshow((image * 0.45).astype(np.uint8))
    tall, wide = height / cells[0], width / cells[1]
    for slot in np.flatnonzero((bank.column("valid") > 0.5) & (bank.column("birth") == birth)):
        x, y = bank.column("x")[slot] * width, bank.column("y")[slot] * height
        share = float(attention[slot]) / peak
        face = (*colormaps["inferno"](0.25 + 0.75 * share)[:3], 0.15 + 0.8 * share)
        axes.add_patch(Rectangle((x - wide / 2, y - tall / 2), wide, tall, facecolor=face, edgecolor="white", lw=0.4))
    axes.set_axis_off()


def ask(tracker: Tracker, record: MemoryRecord, prompts: Sequence[Prompt], query_frame: int, scale: float) -> Any:
    """Track up to a frame, ask from inside its largest object, and draw what that patch reads; needs backend torch."""
    backend: Any = tracker.backend
    if backend.name != "torch":
        raise ConfigurationError(f"backend {backend.name} does not show its attention; choose torch")
    labels = record.label_maps[query_frame]
    ids, areas = np.unique(labels[labels > 0], return_counts=True)
    largest = labels == ids[areas.argmax()] if len(ids) else np.zeros(labels.shape, bool)
    x, y = inner_point(largest)
    tracker.reset()
    for index in range(query_frame):
        tracker.step(record.frames[index], prompts if index == 0 else ())
    height, width = labels.shape
    size = resolution.network_size(height, width, scale, BASE_SHORT_SIDE)
    image = resolution.resize(record.frames[query_frame], *size)
    attention = backend.attention(image, MAX_WINDOW)
    row, column = int(y * size[0] / height) // PATCH, int(x * size[1] / width) // PATCH
    cells = resolution.token_grid(height, width, size, BASE_SHORT_SIDE)
    return draw_attention(record.frames, query_frame, (x, y), backend.bank(), attention[row, column], cells)


def last_tracked(record: MemoryRecord) -> int:
    """Return the last frame on which anything is tracked."""
    return max(index for index, labels in enumerate(record.label_maps) if index == 0 or labels.any())


def load_clip(source: str | None, mask: Path | None, limit: int) -> tuple[list[NDArray[np.uint8]], list[Prompt]]:
    """Load the clip to draw, rendered without a source, and the prompts of its first frame."""
    from sam2lite_core.media.label_map import read_label_map
    from sam2lite_core.media.open import open_source
    from sam2lite_core.scenes.clip import render_clip

    if source is None:
        clip = render_clip(0, frames=limit)
        frames, labels = list(clip.frames), clip.label_maps[0]
    elif mask is None:
        raise ConfigurationError(f"{source} needs --mask, a label map of its first frame")
    else:
        with open_source(source, limit=limit) as opened:
            frames = [frame.image for frame in opened]
        labels = read_label_map(mask)
    prompts = [Prompt(object_id=int(i), mask=labels == i) for i in np.unique(labels) if i]
    if not prompts:
        raise ConfigurationError(f"{mask} shows no object")
    return frames, prompts


def main(arguments: Sequence[str] | None = None) -> None:
    """Run a clip and write both pictures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder to write the pictures to")
    parser.add_argument("--source", help="folder of frames or video file; a rendered clip by default")
    parser.add_argument("--mask", type=Path, help="label map of the source's first frame")
    parser.add_argument("--frames", type=int, default=60)
    parser.add_argument("--query-frame", type=int, help="frame that asks; the last with a tracked object by default")
    parser.add_argument("--variant", default="tiny")
    parser.add_argument("--model", type=Path, help="folder of an exported model")
    parser.add_argument("--policy", default="learned", help="learned, fifo, random or uniform")
    parser.add_argument("--scale", type=float, default=1.0)
    parser.add_argument("--threads", type=int)
    args = parser.parse_args(arguments)
    try:
        frames, prompts = load_clip(args.source, args.mask, args.frames)
        chosen = {"scale": args.scale, "memory_policy": args.policy, "threads": args.threads, "model_path": args.model}
        tracker = Tracker(args.variant, "torch", **chosen)
        record = record_memory(tracker, frames, prompts)
        asking = last_tracked(record) if args.query_frame is None else args.query_frame
        if not 0 < asking < len(frames):
            raise ConfigurationError(f"query frame {asking} is not in 1..{len(frames) - 1}")
        args.out.mkdir(parents=True, exist_ok=True)
        draw_timeline(record).savefig(args.out / "memory_timeline.png", bbox_inches="tight")
        picture = ask(tracker, record, prompts, asking, args.scale)
        picture.savefig(args.out / "memory_attention.png", bbox_inches="tight")
    except Sam2LiteError as error:
        raise SystemExit(f"memory_figures: {error}") from None


if __name__ == "__main__":
    main()
