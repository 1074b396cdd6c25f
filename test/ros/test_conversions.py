"""Image messages to arrays and back: every encoding against hand-made bytes, and what must be refused."""

import struct
import zlib
from contextlib import nullcontext as does_not_raise
from contextlib import suppress
from unittest import mock

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from sensor_msgs.msg import CompressedImage, Image

from sam2lite_core.errors import ConfigurationError, InvalidFrameError
from sam2lite_core.media import encoded_size
from sam2lite_core.media.encoded_size import check_encoded_size
from sam2lite_core.media.image_messages import SUPPORTED_ENCODINGS, compressed_to_rgb
from sam2lite_ros.conversions import (
    fill_data,
    image_to_rgb,
    label_map_to_image,
    label_map_to_png,
    prompt_mask,
    rgb_to_image,
    rgb_to_jpeg,
    to_rgb,
)

RED, GREEN, BLUE = (255, 0, 0), (0, 255, 0), (0, 0, 255)


def message(encoding, height, width, step, data):
    made = Image(height=height, width=width, encoding=encoding, step=step)
    made.data.frombytes(bytes(data))
    return made


@pytest.mark.parametrize(
    ("encoding", "data", "pixels"),
    [
        ("rgb8", [255, 0, 0, 0, 0, 255], [RED, BLUE]),
        ("bgr8", [0, 0, 255, 255, 0, 0], [RED, BLUE]),
        ("8UC3", [0, 0, 255, 255, 0, 0], [RED, BLUE]),
        ("rgba8", [255, 0, 0, 7, 0, 0, 255, 9], [RED, BLUE]),
        ("bgra8", [0, 0, 255, 7, 255, 0, 0, 9], [RED, BLUE]),
        ("8UC4", [0, 0, 255, 7, 255, 0, 0, 9], [RED, BLUE]),
        ("mono8", [3, 200], [(3, 3, 3), (200, 200, 200)]),
        ("8UC1", [3, 200], [(3, 3, 3), (200, 200, 200)]),
    ],
)
def test_each_packed_encoding_becomes_rgb(encoding, data, pixels):
    assert image_to_rgb(message(encoding, 1, 2, len(data), data)).tolist() == [[list(p) for p in pixels]]


# ITU-R BT.601, studio swing: Y 81 U 90 V 240 is red, Y 145 U 54 V 34 green.
@pytest.mark.parametrize(
    ("encoding", "data", "colour"),
    [
        ("yuv422", [90, 81, 240, 81], RED),
        ("uyvy", [54, 145, 34, 145], GREEN),
        ("yuv422_yuy2", [81, 90, 81, 240], RED),
        ("yuyv", [145, 54, 145, 34], GREEN),
    ],
)
def test_each_yuv_order_becomes_rgb(encoding, data, colour):
    image = image_to_rgb(message(encoding, 1, 2, 4, data))
    assert image.shape == (1, 2, 3)
    assert np.abs(image.astype(int) - np.array(colour)).max() <= 3


def test_every_supported_encoding_is_covered_by_a_table_above():
    assert set(SUPPORTED_ENCODINGS) == {
        "rgb8", "bgr8", "8UC3", "rgba8", "bgra8", "8UC4", "mono8", "8UC1", "yuv422", "uyvy", "yuv422_yuy2", "yuyv",
    }  # fmt: skip


@settings(max_examples=50, deadline=None)
@given(
    st.integers(1, 9).flatmap(lambda h: st.integers(1, 9).map(lambda w: (h, w))),
    st.integers(0, 13),
    st.sampled_from(["rgb8", "bgr8"]),
    st.data(),
)
def test_row_padding_is_left_out_whatever_it_holds(size, padding, encoding, data):
    height, width = size
    image = data.draw(arrays(np.uint8, (height, width, 3)))
    stored = image if encoding == "rgb8" else image[..., ::-1]
    rows = np.full((height, width * 3 + padding), 77, np.uint8)
    rows[:, : width * 3] = stored.reshape(height, -1)
    made = message(encoding, height, width, width * 3 + padding, rows.tobytes())
    assert np.array_equal(image_to_rgb(made), image)


@settings(max_examples=50, deadline=None)
@given(arrays(np.uint8, st.tuples(st.integers(1, 9), st.integers(1, 9), st.just(3))), st.sampled_from(["rgb8", "bgr8"]))
def test_publishing_and_receiving_gives_the_same_image(image, encoding):
    assert np.array_equal(image_to_rgb(rgb_to_image(image, encoding)), image)


@pytest.mark.parametrize(
    ("encoding", "height", "width", "step", "length", "named"),
    [
        ("rgb8", 0, 4, 12, 48, "4x0"),
        ("rgb8", 4, 0, 0, 48, "0x4"),
        ("rgb8", 4, 4, 11, 44, "step is 11"),
        ("rgb8", 4, 4, 12, 47, "47 bytes"),
        ("rgb8", 4, 4, 12, 0, "0 bytes"),
        # A header that promises gigabytes must be refused before they are allocated.
        ("rgb8", 2**32 - 1, 2**20, 2**32 - 1, 12, "12 bytes"),
        ("yuv422", 2, 3, 6, 12, "even width"),
        ("bgr16", 2, 2, 12, 24, "bgr16"),
        ("", 2, 2, 12, 24, "rgb8, bgr8"),
        ("no_such", 2, 2, 12, 24, "rgb8, bgr8"),
    ],
)
def test_bad_messages_are_refused_by_name(encoding, height, width, step, length, named):
    with pytest.raises(InvalidFrameError, match=named):
        image_to_rgb(message(encoding, height, width, step, bytes(length)))


def test_spare_bytes_at_the_end_are_ignored():
    assert image_to_rgb(message("mono8", 1, 1, 1, [5, 6, 7])).tolist() == [[[5, 5, 5]]]


def test_compressed_images_decode_and_bad_ones_are_refused():
    image = np.zeros((20, 30, 3), np.uint8)
    image[:, :15] = (200, 30, 60)
    decoded = to_rgb(rgb_to_jpeg(image, quality=95))
    assert decoded.shape == image.shape
    assert np.abs(decoded.astype(int) - image)[:, 2:12].max() < 12
    _, png = cv2.imencode(".png", image[..., ::-1])
    lossless = CompressedImage(format="png")
    fill_data(lossless, png)
    assert np.array_equal(to_rgb(lossless), image)
    for data in (b"", b"no picture", png.tobytes()[:30]):
        broken = CompressedImage(format="png")
        broken.data.frombytes(data)
        with pytest.raises(InvalidFrameError, match="png"):
            compressed_to_rgb(broken)


def png_of(height, width):
    """The beginning of a PNG file, with whatever size it announces; the checksum is right."""
    header = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + header + struct.pack(">I", zlib.crc32(header))


def jpeg_of(height, width):
    """The beginning of a JPEG file: a comment, a fill byte, the frame header."""
    comment = b"\xff\xfe" + struct.pack(">H", 5) + b"abc"
    frame = b"\xff\xff\xc2" + struct.pack(">HBHHB", 17, 8, height, width, 3)
    return b"\xff\xd8" + comment + frame


@pytest.mark.parametrize(
    ("data", "named"),
    [
        (png_of(2**31 - 1, 2**31 - 1), "2147483647x2147483647"),
        (png_of(8193, 8193), "8193x8193"),
        (jpeg_of(65535, 65535), "65535x65535"),
        (jpeg_of(65535, 65535)[:14], "no header"),
        (b"\xff\xd8\xff\xda\x00\x08", "no header"),
        (b"\xff\xd8" + b"\xff" * 50, "no header"),
        (b"BM" + bytes(60), "no header"),
        (b"II*\x00" + bytes(60), "no header"),
        (b"\x89PNG\r\n\x1a\n" + bytes(4), "no header"),
    ],
)
def test_what_a_compressed_image_would_take_is_checked_before_it_is_decoded(data, named, monkeypatch):
    monkeypatch.setattr(cv2, "imdecode", lambda *_: pytest.fail("this would allocate"))
    bomb = CompressedImage(format="bomb")
    bomb.data.frombytes(data)
    with pytest.raises(InvalidFrameError, match=named):
        to_rgb(bomb)


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=60), st.sampled_from([b"", b"\xff\xd8", b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR"]))
def test_no_header_whatever_it_holds_does_more_than_be_refused(data, start):
    with suppress(InvalidFrameError):
        check_encoded_size(start + data, "it")


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 300), st.integers(1, 300), st.sampled_from([".png", ".jpg"]), st.booleans())
def test_the_size_of_real_files_is_read_as_they_decode(height, width, ending, progressive):
    options = [cv2.IMWRITE_JPEG_PROGRESSIVE, int(progressive)] if ending == ".jpg" else []
    _, data = cv2.imencode(ending, np.zeros((height, width, 3), np.uint8), options)
    with mock.patch.object(encoded_size, "MAX_PIXELS", height * width):
        check_encoded_size(data.tobytes(), "it")
    refused = pytest.raises(InvalidFrameError, match=f"{width}x{height}")
    with mock.patch.object(encoded_size, "MAX_PIXELS", height * width - 1), refused:
        check_encoded_size(data.tobytes(), "it")


@pytest.mark.parametrize(
    ("ids", "encoding", "expectation"),
    [
        ([0, 1, 255], "mono8", does_not_raise()),
        ([0, 1, 255], "mono16", does_not_raise()),
        ([0, 256, 65535], "mono16", does_not_raise()),
        ([0, 256, 3], "mono8", pytest.raises(ConfigurationError, match="256 does not fit mono8")),
        ([0, 1, 2], "rgb8", pytest.raises(ConfigurationError, match="mono8, mono16")),
    ],
)
def test_label_maps_keep_their_ids(ids, encoding, expectation):
    labels = np.array([ids, ids[::-1]], np.uint16 if max(ids) > 255 else np.uint8)
    with expectation:
        raw = label_map_to_image(labels, encoding)
        dtype = np.uint8 if encoding == "mono8" else "<u2"
        assert (raw.height, raw.width, raw.step) == (2, 3, 3 * np.dtype(dtype).itemsize)
        assert np.array_equal(np.frombuffer(raw.data, dtype).reshape(2, 3), labels)
        png = label_map_to_png(labels, encoding)
        decoded = cv2.imdecode(np.frombuffer(png.data, np.uint8), cv2.IMREAD_UNCHANGED)
        assert decoded.dtype == (np.uint8 if encoding == "mono8" else np.uint16)
        assert np.array_equal(decoded, labels)
        assert png.format.startswith(encoding + "; png")


@pytest.mark.parametrize(
    ("encoding", "data", "expected"),
    [
        ("mono8", [0, 1, 0, 255], [[False, True], [False, True]]),
        ("8UC1", [9, 0, 0, 0], [[True, False], [False, False]]),
        # Little endian 256 has a zero low byte and is still not zero.
        ("mono16", [0, 1, 0, 0, 1, 0, 0, 0], [[True, False], [True, False]]),
    ],
)
def test_prompt_masks_take_whatever_is_not_zero(encoding, data, expected):
    assert prompt_mask(message(encoding, 2, 2, len(data) // 2, data)).tolist() == expected


def test_prompt_masks_in_colour_are_refused():
    with pytest.raises(InvalidFrameError, match="rgb8"):
        prompt_mask(message("rgb8", 1, 1, 3, [1, 2, 3]))
