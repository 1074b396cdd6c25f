"""Apply a camera's effects to clips: colour jitter, motion blur, exposure, grain, compression."""

import cv2
import numpy as np
from numpy.typing import NDArray

from training.data.clip import FloatArray


def jitter(rng: np.random.Generator, image: NDArray[np.uint8], amount: float) -> NDArray[np.uint8]:
    """Change brightness, contrast and saturation by up to `amount` (methodology section 4.2)."""
    gain, bias, saturation = rng.uniform(1 - amount, 1 + amount, 3)
    table = np.clip((np.arange(256) - 128) * gain + 128 * bias, 0, 255).astype(np.uint8)
    changed = cv2.LUT(image, table)
    grey = cv2.cvtColor(cv2.cvtColor(changed, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)
    return np.asarray(cv2.addWeighted(changed, float(saturation), grey, float(1 - saturation), 0), dtype=np.uint8)


def motion_kernel(rng: np.random.Generator, length: int) -> FloatArray:
    """Draw a (length, length) kernel of motion blur that sums to 1: a line from left to right."""
    kernel = np.zeros((length, length), np.float32)
    cv2.line(kernel, (0, int(rng.integers(length))), (length - 1, int(rng.integers(length))), 1.0)
    return np.asarray(kernel / kernel.sum(), dtype=np.float32)


def _camera(rng: np.random.Generator, images: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Apply exposure drift, blur, grain and compression to all frames of a clip."""
    drift = rng.normal(0, 0.03, len(images)).cumsum() if rng.random() < 0.5 else np.zeros(len(images))
    blur = int(rng.choice([3, 5])) if rng.random() < 0.3 else 0
    kernel = motion_kernel(rng, blur) if blur else None
    grain = rng.uniform(2, 8) if rng.random() < 0.3 else 0.0
    quality = int(rng.integers(30, 90)) if rng.random() < 0.3 else 0
    grey = rng.random() < 0.03
    out = []
    for image, gain in zip(images, drift, strict=True):
        if gain:
            image = cv2.convertScaleAbs(image, alpha=float(np.clip(1 + gain, 0.6, 1.5)))
        if kernel is not None:
            image = cv2.filter2D(image, -1, kernel)
        if grain:
            noise = rng.integers(-int(grain) - 1, int(grain) + 2, image.shape, dtype=np.int16)
            image = np.clip(image + noise, 0, 255).astype(np.uint8)
        if quality:
            image = cv2.imdecode(cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, quality])[1], cv2.IMREAD_COLOR)
        if grey:
            image = cv2.cvtColor(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)
        out.append(image)
    return np.stack(out)
