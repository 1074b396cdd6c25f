"""List and read picture files."""

import re
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from sam2lite_core.errors import SourceError

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png")


def list_images(folder: Path) -> list[Path]:
    """List the images of a folder in natural order (`2.jpg` before `10.jpg`); hidden files are left out."""
    visible = (entry for entry in folder.iterdir() if not entry.name.startswith("."))
    images = (entry for entry in visible if entry.suffix.lower() in IMAGE_SUFFIXES)
    return sorted(images, key=lambda entry: natural_key(entry.name))


def read_image(path: str | Path) -> NDArray[np.uint8]:
    """Read a JPEG or PNG picture, turned upright as its EXIF entry says.

    Returns:
        (H, W, 3) uint8 RGB.

    Raises:
        SourceError: the file is missing, cut short or no picture.
    """
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise SourceError(f"{path}: cannot be read: {error.strerror}") from None
    # Older OpenCV fills the missing part of a cut JPEG with grey instead of failing.
    cut = data.startswith(b"\xff\xd8") and data.rfind(b"\xff\xd9") < data.rfind(b"\xff\xda")
    decoded = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR) if data and not cut else None
    if decoded is None:
        raise SourceError(f"{path}: not a readable image; it is empty, cut short or of another format")
    return to_rgb(decoded)


def natural_key(name: str) -> tuple[tuple[int, str], ...]:
    """Return a sort key that orders numbers inside names by their value."""
    return tuple((int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d+)", name))


def to_rgb(bgr: NDArray[Any]) -> NDArray[np.uint8]:
    """Turn OpenCV's (H, W, 3) BGR into RGB."""
    return np.asarray(cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB), dtype=np.uint8)
