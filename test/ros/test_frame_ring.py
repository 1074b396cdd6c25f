"""The last second of frames: found by stamp, refused by name, reduced."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sensor_msgs.msg import Image

from sam2lite_core.errors import InvalidFrameError, InvalidPromptError
from sam2lite_ros.conversions import rgb_to_image, rgb_to_jpeg
from sam2lite_ros.tracker.frame_ring import FrameRing, HeldFrame, seconds, shrink

MS = 1_000_000


def ring_of(*stamps_ms, **options):
    ring = FrameRing(**options)
    for sequence, stamp in enumerate(stamps_ms, start=1):
        ring.push(HeldFrame(Image(), stamp * MS, sequence))
    return ring


def test_frames_are_found_by_stamp_and_zero_means_the_newest():
    ring = ring_of(5000, 5033, 5066)
    assert ring.find(5033 * MS).sequence == 2
    assert ring.find(0).sequence == 3


def test_older_than_a_second_is_gone_and_the_refusal_names_the_oldest_held():
    ring = ring_of(5000, 5500, 6000, 6001)
    assert len(ring.since(0)) == 3
    with pytest.raises(InvalidPromptError, match=r"5\.000000000.*oldest held is 5\.500000000.*newest 6\.001000000"):
        ring.find(5000 * MS)


def test_exactly_a_second_is_held():
    assert len(ring_of(5000, 6000).since(0)) == 2


def test_an_empty_ring_says_that_no_image_came():
    with pytest.raises(InvalidPromptError, match="no image"):
        FrameRing().find(0)


def test_time_that_goes_back_starts_over():
    ring = ring_of(5000, 5033, 1000)
    assert len(ring.since(0)) == 1
    assert ring.find(1000 * MS).sequence == 3


def test_the_number_is_bounded_when_stamps_stand_still():
    assert len(ring_of(*[0] * 50, max_frames=10).since(0)) == 10


def test_since_gives_what_came_later_in_order():
    assert [frame.sequence for frame in ring_of(1, 2, 3, 4).since(2)] == [3, 4]


@given(st.lists(st.integers(0, 5000), max_size=60))
def test_the_ring_holds_exactly_the_last_second_since_time_last_went_back(stamps):
    ring = ring_of(*stamps, max_frames=1000)
    run = []
    for stamp in stamps:
        run = [stamp] if run and stamp < run[-1] else [*run, stamp]
    held = len(ring.since(0))
    assert held == sum(stamp >= run[-1] - 1000 for stamp in run) if run else held == 0


@pytest.mark.parametrize(
    ("size", "expected"), [((480, 854), (480, 854)), ((1080, 1920), (480, 853)), ((1920, 1080), (853, 480))]
)
def test_shrink_brings_the_short_side_down_and_never_up(size, expected):
    assert shrink(np.zeros((*size, 3), np.uint8), 480).shape[:2] == expected


@pytest.mark.parametrize(
    ("size", "compressed", "held"),
    [((960, 1280), False, (480, 640)), ((96, 128), False, (96, 128)), ((960, 1280), True, (480, 640))],
)
def test_reducing_changes_what_is_kept_and_not_what_is_loaded(size, compressed, held):
    image = np.full((*size, 3), 90, np.uint8)
    message = rgb_to_jpeg(image) if compressed else rgb_to_image(image)
    kept = HeldFrame(message, 0, 1)
    before, source = kept.load()
    kept.reduce()
    after, source_after = kept.load()
    assert before.shape[:2] == after.shape[:2] == held
    assert source == source_after == size
    assert np.array_equal(before, after)
    # Only a large raw image is replaced by a smaller one.
    assert (kept.load()[0] is after) == (not compressed and size != held)


def test_a_bad_large_image_is_refused_when_it_is_loaded_and_not_before():
    kept = HeldFrame(Image(height=960, width=1280, encoding="rgb8", step=3840), 0, 1)
    kept.reduce()
    with pytest.raises(InvalidFrameError, match="0 bytes"):
        kept.load()


def test_stamps_are_written_with_nine_digits():
    assert seconds(5_000_000_007) == "5.000000007"
