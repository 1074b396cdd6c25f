"""Draw masks over frames, and lay pictures out on sheets."""

import colorsys
import math
from collections.abc import Mapping, Sequence
from functools import lru_cache

import cv2
import numpy as np
from numpy.typing import NDArray

from sam2lite_core.errors import InvalidFrameError
from sam2lite_core.types import ObjectState, TrackedObject, check_image

Image = NDArray[np.uint8]

_GOLDEN_RATIO = (math.sqrt(5) - 1) / 2
_FONT = cv2.FONT_HERSHEY_SIMPLEX


@lru_cache(maxsize=65536)
def object_colour(object_id: int) -> tuple[int, int, int]:
    """Return the fixed colour (red, green, blue), 0..255, of an object; hues advance by the golden ratio."""
    hue = (0.02 + object_id * _GOLDEN_RATIO) % 1.0
    red, green, blue = colorsys.hsv_to_rgb(hue, 0.85, 0.95 - 0.2 * (object_id // 7 % 2))
    return round(255 * red), round(255 * green), round(255 * blue)


def draw_overlay(
    image: Image,
    label_map: NDArray[np.uint8] | NDArray[np.uint16],
    objects: Sequence[TrackedObject] | None = None,
    *,
    opacity: float = 0.45,
    names: Mapping[int, str] | None = None,
) -> Image:
    """Draw a label map over its frame: translucent fill, contour, and a tag per object.

    Args:
        image: (H, W, 3) uint8 RGB.
        label_map: (H, W) ids, 0 = background.
        objects: the tracker's report; tags then show scores, and lost objects are listed in the corner.
        opacity: of the fill, 0..1.
        names: names to show in place of ids.

    Returns:
        A new (H, W, 3) uint8 RGB image.

    Raises:
        InvalidFrameError: the image is no frame, or the label map has another size.
    """
    height, width = check_image(image)
    if label_map.shape != (height, width):
        raise InvalidFrameError(f"label map has shape {label_map.shape}, the image {height, width}")
    canvas = image.copy()
    shown = {entry.object_id: entry for entry in objects or ()}
    names = names or {}
    thickness = max(1, round(min(height, width) / 300))
    tags: list[tuple[str, tuple[int, int, int], tuple[int, int]]] = []
    for object_id in (int(value) for value in np.unique(label_map) if value != 0):
        mask = (label_map == object_id).view(np.uint8)
        colour = object_colour(object_id)
        _blend(canvas, mask, colour, opacity)
        contours, _ = cv2.findContours(mask, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE)
        cv2.drawContours(canvas, contours, -1, colour, thickness, cv2.LINE_AA)
        entry = shown.get(object_id)
        text = names.get(object_id, str(object_id)) + (f" {entry.score:.2f}" if entry else "")
        x, y, _, _ = cv2.boundingRect(mask)
        tags.append((text, colour, (x, y)))
    # Tags come last: another object's fill must not cover them.
    for text, colour, corner in tags:
        _draw_tag(canvas, text, colour, corner)
    lost = [entry.object_id for entry in objects or () if entry.state == ObjectState.LOST]
    line = round(26 * _text_scale(canvas) / 0.5)
    for row, object_id in enumerate(lost, 1):
        text = f"{names.get(object_id, object_id)} lost"
        _draw_tag(canvas, text, object_colour(object_id), (4, 4 + row * line))
    return canvas


def contact_sheet(images: Sequence[Image], columns: int = 4, captions: Sequence[str] | None = None) -> Image:
    """Lay pictures out in a grid of cells of the first picture's size, each with its caption below.

    Args:
        images: (H, W, 3) uint8 RGB each.
        columns: pictures in a row, at most.
        captions: one line per picture.

    Returns:
        (rows · cell height, columns · cell width, 3) uint8 RGB.

    Raises:
        InvalidFrameError: no picture, `columns` below 1, or another number of captions than of pictures.
    """
    if not images or columns < 1:
        raise InvalidFrameError(f"a sheet of {len(images)} pictures in {columns} columns; give at least 1 of each")
    if captions is not None and len(captions) != len(images):
        raise InvalidFrameError(f"{len(captions)} captions for {len(images)} pictures; give one each")
    height, width = check_image(images[0])
    scale, gap = _text_scale(images[0]), max(4, width // 80)
    strip = round(36 * scale) if captions else 0
    columns = min(columns, len(images))
    rows = math.ceil(len(images) / columns)
    step_y, step_x = height + strip + gap, width + gap
    sheet = np.full((rows * step_y + gap, columns * step_x + gap, 3), 24, np.uint8)
    for index, image in enumerate(images):
        top, left = gap + index // columns * step_y, gap + index % columns * step_x
        sheet[top : top + height, left : left + width] = fit_image(image, height, width)
        if captions:
            baseline = (left + gap // 2, top + height + round(24 * scale))
            cv2.putText(sheet, captions[index], baseline, _FONT, scale, (225, 225, 225), _pen(scale), cv2.LINE_AA)
    return sheet


def fit_image(image: Image, height: int, width: int) -> Image:
    """Scale an (h, w, 3) uint8 image into a black (height, width, 3) one, proportions kept; no copy at that size."""
    if image.shape[:2] == (height, width):
        return image
    ratio = min(height / image.shape[0], width / image.shape[1])
    inner = max(1, round(image.shape[0] * ratio)), max(1, round(image.shape[1] * ratio))
    scaled = cv2.resize(image, inner[::-1], interpolation=cv2.INTER_AREA if ratio < 1 else cv2.INTER_LINEAR)
    box = np.zeros((height, width, 3), np.uint8)
    top, left = (height - inner[0]) // 2, (width - inner[1]) // 2
    box[top : top + inner[0], left : left + inner[1]] = scaled
    return box


def _blend(canvas: Image, mask: NDArray[np.uint8], colour: tuple[int, int, int], opacity: float) -> None:
    """Tint the canvas where the mask is set; touching only its bounding box saves most of the time."""
    x, y, w, h = cv2.boundingRect(mask)
    part, inside = canvas[y : y + h, x : x + w], mask[y : y + h, x : x + w, None] != 0
    tinted = cv2.addWeighted(part, 1 - opacity, np.full_like(part, colour), opacity, 0)
    np.copyto(part, tinted, where=inside)


def _text_scale(image: Image) -> float:
    """Return a font scale that reads alike at any image size; 0.5 at 480 px."""
    height, width = check_image(image)
    return max(0.35, 0.5 * min(height, width) / 480)


def _pen(scale: float) -> int:
    """Return the stroke width of a font scale, pixels."""
    return max(1, round(2 * scale))


def _draw_tag(canvas: Image, text: str, colour: tuple[int, int, int], corner: tuple[int, int]) -> None:
    """Write text on a filled box whose lower left corner is `corner`, moved inside the canvas."""
    scale = _text_scale(canvas)
    (width, height), baseline = cv2.getTextSize(text, _FONT, scale, _pen(scale))
    pad = max(2, round(6 * scale))
    box_width, box_height = width + 2 * pad, height + baseline + pad
    left = min(max(corner[0], 0), max(canvas.shape[1] - box_width, 0))
    top = min(max(corner[1] - box_height - 2, 0), max(canvas.shape[0] - box_height, 0))
    cv2.rectangle(canvas, (left, top), (left + box_width, top + box_height), colour, cv2.FILLED)
    # Rec. 601 luma decides which text colour can be read on the tag.
    luma = 0.299 * colour[0] + 0.587 * colour[1] + 0.114 * colour[2]
    ink = (0, 0, 0) if luma > 130 else (255, 255, 255)
    cv2.putText(canvas, text, (left + pad, top + pad + height), _FONT, scale, ink, _pen(scale), cv2.LINE_AA)
