"""Check the size that a JPEG or PNG file announces, since a decoder allocates it before it has seen the data.

OpenCV's own limit is a gigapixel, and only an environment variable that is read when it is loaded can change that.
"""

import struct

from sam2lite_core.errors import InvalidFrameError

MAX_PIXELS = 1 << 26
"""Most pixels of a compressed image, 67 million: 200 MB when decoded, more than a robot's camera has."""

_PNG = b"\x89PNG\r\n\x1a\n"
_JPEG = b"\xff\xd8"
_FILL, _SCAN = 0xFF, 0xDA
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
"""Start-of-frame markers of JPEG (ITU-T T.81, table B.1)."""
_BARE = frozenset(range(0xD0, 0xD9)) | {0x01}
"""Markers without a length."""


def check_encoded_size(data: bytes | memoryview, described: str) -> None:
    """Check that a file is a JPEG or PNG of at most `MAX_PIXELS`; `described` names it in errors.

    Raises:
        InvalidFrameError: another format, a header that is cut short, or too many pixels.
    """
    try:
        height, width = _png_size(data) if data[:8] == _PNG else _jpeg_size(data)
    except (struct.error, IndexError, ValueError) as error:
        raise InvalidFrameError(f"{described} cannot be decoded: no header of a JPEG or PNG; send one") from error
    if height * width > MAX_PIXELS:
        raise InvalidFrameError(
            f"{described} announces {width}x{height} pixels; at most {MAX_PIXELS} are decoded, send a smaller one"
        )


def _png_size(data: bytes | memoryview) -> tuple[int, int]:
    """Read height and width from the IHDR chunk, which comes first."""
    if data[12:16] != b"IHDR":
        raise ValueError("no IHDR")
    width, height = struct.unpack_from(">II", data, 16)
    return height, width


def _jpeg_size(data: bytes | memoryview) -> tuple[int, int]:
    """Read height and width from the first start-of-frame segment."""
    if data[:2] != _JPEG:
        raise ValueError("no JPEG")
    at = 2
    while True:
        if data[at] != _FILL:
            raise ValueError("no marker where one should be")
        while data[at] == _FILL:
            at += 1
        marker = data[at]
        at += 1
        if marker in _FRAMES:
            height, width = struct.unpack_from(">HH", data, at + 3)
            return height, width
        if marker == _SCAN:
            raise ValueError("pixels before their size")
        if marker not in _BARE:
            (length,) = struct.unpack_from(">H", data, at)
            at += length
