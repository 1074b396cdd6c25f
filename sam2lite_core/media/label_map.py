"""Read and write label maps as PNG files: (H, W) arrays of an object's id at each of its pixels and 0 elsewhere."""

import struct
import zlib
from pathlib import Path
from typing import cast

import cv2
import numpy as np
from numpy.typing import NDArray

from sam2lite_core.errors import SourceError
from sam2lite_core.files import write_atomically
from sam2lite_core.media.overlay import object_colour

LabelMap = NDArray[np.uint8] | NDArray[np.uint16]

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_HEADER_END = len(_SIGNATURE) + 8 + 13 + 4  # signature, then length, type, 13 bytes and checksum of IHDR
_BIT_DEPTH, _COLOUR_TYPE = 24, 25  # offsets of these two bytes of IHDR
_GREY, _INDEXED = 0, 3


def read_label_map(path: str | Path, *, keep_ids: bool = False) -> LabelMap:
    """Read a label map from an indexed or greyscale PNG of 8 or 16 bits.

    In a file of 0 and 255 only, as of DAVIS 2016, 255 becomes 1 unless `keep_ids`.

    Returns:
        (H, W) uint8, or uint16 from a 16-bit file.

    Raises:
        SourceError: the file is missing, no PNG, damaged, or in colour.
    """
    path = Path(path)
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise SourceError(f"{path}: no such mask file") from None
    except OSError as error:
        raise SourceError(f"{path}: cannot be read: {error.strerror}") from None
    return decode_label_map(data, str(path), keep_ids=keep_ids)


def decode_label_map(data: bytes, name: str = "mask", *, keep_ids: bool = False) -> LabelMap:
    """Decode the bytes of a PNG label map, which errors call `name`; see `read_label_map`.

    Raises:
        SourceError: the bytes are no PNG, damaged, or in colour.
    """
    if len(data) < _HEADER_END or not data.startswith(_SIGNATURE):
        raise SourceError(f"{name}: not a PNG file; label maps are PNG, since other formats blur the ids")
    depth, colour_type = data[_BIT_DEPTH], data[_COLOUR_TYPE]
    if colour_type == _INDEXED:
        data = _with_colour_type(data, _GREY)
    decoded = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    if decoded is None:
        raise SourceError(f"{name}: damaged PNG file")
    if decoded.ndim == 3 and decoded.shape[2] == 3 and (decoded == decoded[..., :1]).all():
        decoded = decoded[..., 0]
    if decoded.ndim != 2:
        raise SourceError(f"{name}: a colour picture of {decoded.shape[2]} channels; give a greyscale or indexed PNG")
    if depth < 8:
        # libpng spreads 1, 2 and 4 bit greys over 0..255; indices must come back as they were.
        decoded = decoded // (255 // (2**depth - 1))
    if not keep_ids and colour_type != _INDEXED and np.array_equal(np.unique(decoded[decoded != 0]), [255]):
        decoded = (decoded != 0).astype(np.uint8)
    return cast(LabelMap, decoded)


def encode_label_map(label_map: NDArray[np.generic], *, indexed: bool = False) -> bytes:
    """Encode a label map as PNG: 8-bit when every id fits, else 16-bit.

    Args:
        label_map: (H, W) of any integer or boolean dtype, ids 0..65535.
        indexed: add a palette in the overlay's colours, for ids up to 255; readers that expand palettes (OpenCV)
            then no longer see the ids.

    Raises:
        SourceError: another shape, or ids outside the range.
    """
    if label_map.ndim != 2 or label_map.size == 0:
        raise SourceError(f"label map has shape {label_map.shape}, expected (H, W)")
    largest, smallest = int(label_map.max()), int(label_map.min())
    limit = 255 if indexed else 65535
    if smallest < 0 or largest > limit:
        raise SourceError(f"label map holds id {smallest if smallest < 0 else largest}, outside 0..{limit}")
    encoded, data = cv2.imencode(".png", label_map.astype(np.uint8 if largest <= 255 else np.uint16))
    if not encoded:
        raise SourceError(f"label map of shape {label_map.shape} could not be encoded as PNG")
    return _with_palette(data.tobytes()) if indexed else data.tobytes()


def write_label_map(path: str | Path, label_map: NDArray[np.generic], *, indexed: bool = False) -> None:
    """Write a label map as PNG; see `encode_label_map`. The file appears whole or not at all.

    Raises:
        SourceError: the label map cannot be encoded, or the file not written.
    """
    write_atomically(path, encode_label_map(label_map, indexed=indexed))


def _chunk(kind: bytes, body: bytes) -> bytes:
    """Build a PNG chunk: length, type, body, checksum."""
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def _with_colour_type(data: bytes, colour_type: int) -> bytes:
    """Return a PNG with another colour type in its header: indexed pixels are laid out like greyscale ones.

    OpenCV would turn an indexed PNG into colours and drop the indices.
    """
    start = len(_SIGNATURE) + 8
    header = data[start:_COLOUR_TYPE] + bytes([colour_type]) + data[_COLOUR_TYPE + 1 : _HEADER_END - 4]
    body = data[_HEADER_END:]
    if colour_type == _GREY:
        body = b"".join(chunk for kind, chunk in _chunks(body) if kind not in (b"PLTE", b"tRNS", b"bKGD", b"hIST"))
    return _SIGNATURE + _chunk(b"IHDR", header) + body


def _with_palette(data: bytes) -> bytes:
    """Turn an 8-bit greyscale PNG into an indexed one, coloured like the overlay."""
    palette = bytes(3) + b"".join(bytes(object_colour(object_id)) for object_id in range(1, 256))
    indexed = _with_colour_type(data, _INDEXED)
    return indexed[:_HEADER_END] + _chunk(b"PLTE", palette) + indexed[_HEADER_END:]


def _chunks(data: bytes) -> list[tuple[bytes, bytes]]:
    """Split PNG chunks into (type, whole chunk); one that is cut short is left to the decoder."""
    chunks, position = [], 0
    while position + 8 <= len(data):
        length = int.from_bytes(data[position : position + 4], "big")
        end = position + 12 + length
        chunks.append((data[position + 4 : position + 8], data[position:end]))
        position = end
    return chunks
