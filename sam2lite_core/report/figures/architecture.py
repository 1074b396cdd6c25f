"""Draw the system in one picture, as SVG, with the numbers of the code.

python -m sam2lite_core.report.figures.architecture docs/figures/architecture.svg
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from xml.sax.saxutils import escape

from sam2lite_core.files import write_atomically
from sam2lite_core.frame.motion import MOTION_SHORT_SIDE
from sam2lite_core.frame.resolution import RUNGS
from sam2lite_core.variants import MAX_WINDOW, MIN_WINDOW, VARIANTS, Variant

WIDTH, HEIGHT = 1240, 800
INK, SOFT, PAPER = "#1f2933", "#52606d", "#ffffff"
HOST, MODEL, MEMORY = ("#e4e7eb", "#9aa5b1"), ("#dcebfb", "#5a9bd5"), ("#fde8c8", "#e0962d")
TITLE_PX, TEXT_PX, LINE_PX = 16, 13, 18


@dataclass(frozen=True)
class Box:
    """A titled box: left, top, width, height in px; lines of text; fill and edge colours."""

    x: int
    y: int
    width: int
    height: int
    title: str
    lines: tuple[str, ...]
    colours: tuple[str, str]


@dataclass(frozen=True)
class Arrow:
    """An arrow through points in px, with a label at a place of its own."""

    points: tuple[tuple[int, int], ...]
    label: str = ""
    at: tuple[int, int] = (0, 0)
    dashed: bool = False


def boxes(variant: Variant) -> list[Box]:
    """Return the parts of the system, host to the left and right, the graph between them."""
    detail = ", ".join(map(str, variant.stem))
    convolutions = f"{'inverted residuals' if variant.trunk else 'conv stem'} ({detail})"
    blocks = "1 block" if variant.depth == 1 else f"{variant.depth} blocks"
    return [
        Box(50, 90, 190, 80, "Camera frame", ("any size, RGB",), HOST),
        Box(50, 240, 190, 90, "Resize", ("to the scale ρ, a rung of", f"{RUNGS[0]:g} … {RUNGS[-1]:g}"), HOST),
        Box(50, 450, 190, 100, "Optical flow", ("to the previous frame,", f"DIS at {MOTION_SHORT_SIDE} px"), HOST),
        Box(50, 600, 190, 70, "Warp", ("masks of the last frame",), HOST),
        Box(50, 690, 190, 60, "Prompts", ("points, boxes, masks",), HOST),
        Box(310, 90, 190, 120, "Encoder",
            (convolutions, f"{blocks} of width {variant.width},", "stride 16"), MODEL),
        Box(560, 90, 190, 120, "Memory read",
            ("α = softmax(qKᵀ)", "readout αV, and by the same", "α each object's share"), MODEL),
        Box(810, 90, 190, 120, "Decoder",
            (f"{variant.decoder_layers} layers, {variant.queries} queries:", "objects from readouts,",
             "the rest background"), MODEL),
        Box(810, 290, 190, 110, "Mask head",
            ("small, one per object,", "logits at stride 4,", "presence: tracked or lost"), MODEL),
        Box(560, 290, 190, 110, "Memory bank",
            (f"at most B = {variant.memory_budget} tokens:", "key, value, identity,",
             "place, age, motion, doubt"), MEMORY),
        Box(560, 460, 190, 90, "Gate and top-B", ("keep what later frames", "need; anchors stay"), MEMORY),
        Box(310, 460, 190, 90, "New tokens", ("a grid over the frame: 2×2", "patches each at scale 1"), MEMORY),
        Box(560, 660, 190, 95, "Prompt decoder",
            ("what looks like the clicks", "or the box's inside; runs", "in the prompt graph alone"), MODEL),
        Box(1060, 310, 150, 100, "Result", ("label map, boxes,", "scores, states"), HOST),
        Box(1060, 460, 150, 100, "Controller",
            ("step time → scale ρ,", f"window W = {MIN_WINDOW} … {MAX_WINDOW}"), HOST),
    ]  # fmt: skip


def arrows() -> list[Arrow]:
    """List the arrows between the boxes."""
    return [
        Arrow(((145, 170), (145, 240))),
        Arrow(((50, 130), (26, 130), (26, 500), (50, 500))),
        Arrow(((145, 550), (145, 600)), "flow", (152, 580)),
        Arrow(((240, 285), (275, 285), (275, 150), (310, 150)), "image", (246, 302)),
        Arrow(((240, 505), (310, 505)), "motion", (250, 498)),
        Arrow(((500, 150), (560, 150)), "keys", (514, 143)),
        Arrow(((405, 210), (405, 460)), "keys, values", (412, 340)),
        Arrow(((750, 150), (810, 150)), "readout", (757, 143)),
        Arrow(((905, 210), (905, 290)), "object queries", (913, 254)),
        Arrow(((405, 90), (405, 62), (1030, 62), (1030, 320), (1000, 320)), "detail at strides 4 and 8", (560, 55)),
        Arrow(((655, 290), (655, 210)), "readable tokens", (663, 254)),
        Arrow(((500, 505), (560, 505))),
        Arrow(((620, 400), (620, 460)), "all", (592, 435)),
        Arrow(((690, 460), (690, 400)), "best B", (698, 435)),
        Arrow(((870, 400), (870, 585), (405, 585), (405, 550)), "masks: identity, known, doubt", (560, 578)),
        Arrow(((240, 635), (920, 635), (920, 400)), "warped masks", (560, 628)),
        Arrow(((240, 720), (560, 720)), "rasters", (310, 713)),
        Arrow(((750, 720), (965, 720), (965, 400)), "masks from boxes, points", (760, 713)),
        Arrow(((1000, 365), (1060, 365))),
        Arrow(((1135, 410), (1135, 460)), "ms", (1142, 440)),
        Arrow(((1210, 360), (1225, 360), (1225, 775), (26, 775), (26, 635), (50, 635)),
              "masks, for the next frame", (560, 791), True),
    ]  # fmt: skip


def draw_architecture(variant: Variant) -> str:
    """Draw the picture as SVG text: a light card, which reads on white and on dark pages alike."""
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" height="{HEIGHT}" '
        f'font-family="Helvetica, Arial, \'DejaVu Sans\', sans-serif" role="img">',
        "<title>SAM2-Lite: what happens between a camera frame and its masks</title>",
        f'<defs><marker id="tip" viewBox="0 0 10 10" refX="9" refY="5" markerWidth="7" markerHeight="7" orient="auto">'
        f'<path d="M0 0 10 5 0 10z" fill="{SOFT}"/></marker></defs>',
        f'<rect width="{WIDTH}" height="{HEIGHT}" rx="18" fill="{PAPER}" stroke="#cbd2d9"/>',
        '<rect x="290" y="36" width="755" height="728" rx="14" '
        'fill="#f5f9fe" stroke="#a9cbea" stroke-dasharray="6 4"/>',
        _text(310, 28, "one graph a frame, on the device; its state never leaves it", TEXT_PX, SOFT),
        _text(50, 60, "host", TEXT_PX, SOFT),
        _text(1060, 290, "host", TEXT_PX, SOFT),
    ]
    parts += [_draw_arrow(arrow) for arrow in arrows()]
    parts += [_draw_box(box) for box in boxes(variant)]
    parts += [_pill(40, 285, "ρ"), _pill(655, 90, "W")]
    return "\n".join([*parts, "</svg>", ""])


def _text(x: int, y: int, text: str, size: int, colour: str, extra: str = "") -> str:
    return f'<text x="{x}" y="{y}" font-size="{size}" fill="{colour}" {extra}>{escape(text)}</text>'


def _draw_box(box: Box) -> str:
    fill, edge = box.colours
    middle = box.x + box.width // 2
    first = box.y + (box.height - LINE_PX * len(box.lines)) // 2 + 3
    rows = [_text(middle, first, box.title, TITLE_PX, INK, 'text-anchor="middle" font-weight="bold"')]
    for index, line in enumerate(box.lines, start=1):
        rows.append(_text(middle, first + 2 + LINE_PX * index, line, TEXT_PX, INK, 'text-anchor="middle"'))
    shape = (
        f'<rect x="{box.x}" y="{box.y}" width="{box.width}" height="{box.height}" '
        f'rx="10" fill="{fill}" stroke="{edge}"/>'
    )
    return "\n".join([shape, *rows])


def _draw_arrow(arrow: Arrow) -> str:
    path = " ".join(f"{x},{y}" for x, y in arrow.points)
    dashes = ' stroke-dasharray="5 4"' if arrow.dashed else ""
    line = f'<polyline points="{path}" fill="none" stroke="{SOFT}" stroke-width="1.6"{dashes} marker-end="url(#tip)"/>'
    return line + (_text(*arrow.at, arrow.label, TEXT_PX, SOFT) if arrow.label else "")


def _pill(x: int, y: int, text: str) -> str:
    """Draw a value that the controller sets, at the part that it sets."""
    return f'<circle cx="{x}" cy="{y}" r="12" fill="{PAPER}" stroke="{HOST[1]}"/>' + _text(
        x, y + 5, text, TEXT_PX, INK, 'text-anchor="middle" font-style="italic"'
    )


def main(arguments: Sequence[str]) -> None:
    """Write the picture to the one path that is given."""
    if len(arguments) != 1:
        raise SystemExit("usage: python -m sam2lite_core.report.figures.architecture FILE.svg")
    write_atomically(Path(arguments[0]), draw_architecture(VARIANTS["tiny"]).encode())


if __name__ == "__main__":
    main(sys.argv[1:])
