"""A film of two spotted disks that move over a background of its own."""

import cv2
import numpy as np

HEIGHT, WIDTH, FRAMES = 240, 432, 6


def background() -> np.ndarray:
    rng = np.random.default_rng(0)
    return cv2.resize(rng.integers(60, 120, (15, 27, 3), np.uint8), (WIDTH, HEIGHT))


def disk(x: int, y: int, radius: int = 40) -> np.ndarray:
    canvas = np.zeros((HEIGHT, WIDTH), np.uint8)
    cv2.circle(canvas, (x, y), radius, 1, -1)
    return canvas.astype(bool)


def _paste(image: np.ndarray, x: int, colour: tuple[int, int, int]) -> None:
    spots = np.random.default_rng(1).uniform(0.4, 1.0, (12, 12)).astype(np.float32)
    shades = cv2.resize(spots, (81, 81), interpolation=cv2.INTER_CUBIC)[..., None]
    inside = disk(x, 120)
    image[inside] = (shades * np.array(colour)).clip(0, 255).astype(np.uint8)[inside[80:161, x - 40 : x + 41]]


def film(blue_leaves: int = FRAMES) -> list[np.ndarray]:
    """A red disk moves right by 6 px a frame, a blue one left, until it is gone from frame `blue_leaves` on."""
    images = []
    for t in range(FRAMES):
        image = background()
        _paste(image, 90 + 6 * t, (240, 60, 40))
        if t < blue_leaves:
            _paste(image, 330 - 6 * t, (40, 60, 250))
        images.append(image)
    return images
