"""Frames that are about to be replaced are held back, so that masks stay younger than a period and a step."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from sam2lite_ros.tracker.freshness import KNOWN_INTERVALS, LATE, Freshness

PERIOD_S = 1 / 30


def steady(count=KNOWN_INTERVALS + 1):
    freshness = Freshness()
    for index in range(count):
        freshness.seen(index * PERIOD_S)
    return freshness


@pytest.mark.parametrize(
    ("waited", "receive", "held"),
    [
        (0.0, 0.0, False),
        (0.7, 0.0, False),
        (0.8, 0.0, True),
        (1.2, 0.0, True),
        (1.3, 0.0, False),  # late: not for ever
        (0.6, 0.4, True),  # long on its way: held earlier
        (0.45, 0.9, False),  # but never before half a period
        (0.7, 50.0, False),  # clocks that differ say nothing
        (0.7, -3.0, False),
    ],
)
def test_when_a_frame_is_held_back(waited, receive, held):
    """All in periods."""
    hold = steady().hold_s(waited * PERIOD_S, receive * PERIOD_S)
    assert (hold > 0.0) == held
    if held:
        assert hold == pytest.approx((LATE - waited) * PERIOD_S)


def test_a_frame_is_not_held_until_it_is_too_old_to_be_taken():
    hold = steady().hold_s(0.8 * PERIOD_S, 0.1 * PERIOD_S, limit_s=PERIOD_S)
    assert 0.0 < hold < 0.1 * PERIOD_S
    assert steady().hold_s(0.8 * PERIOD_S, 0.3 * PERIOD_S, limit_s=PERIOD_S) == 0.0


def test_nothing_is_held_back_before_the_period_is_known():
    assert steady(3).hold_s(0.9 * PERIOD_S) == 0.0


def test_late_frames_and_stamps_that_jump_back_do_not_change_the_period():
    freshness = steady()
    for at in (10.0, 9.0, 9.0):
        freshness.seen(at)
    assert freshness.hold_s(0.7 * PERIOD_S) == 0.0
    assert freshness.hold_s(0.9 * PERIOD_S) > 0.0


@given(
    transport_ms=st.lists(st.floats(0.5, 12.0), min_size=120, max_size=120),
    steps_ms=st.lists(st.floats(1.0, 250.0), min_size=120, max_size=120),
)
@example(transport_ms=[0.5, 6.0] * 60, steps_ms=[28.5] * 120)
@example(transport_ms=[12.0] * 120, steps_ms=[45.0] * 120)
def test_every_mask_is_younger_than_a_period_and_a_step(transport_ms, steps_ms):
    """A camera at 30 Hz over a transport of .5 to 12 ms, steps of any length: age = period + step at most."""
    sent = [index * PERIOD_S for index in range(120)]
    arrivals = [at + delay / 1e3 for at, delay in zip(sent, transport_ms, strict=True)]
    freshness, noted, now, taken = Freshness(), 0, 0.0, -1

    def receive_until(moment):
        nonlocal noted
        while noted < len(arrivals) and arrivals[noted] <= moment:
            freshness.seen(sent[noted])
            noted += 1

    for step_ms in steps_ms:
        receive_until(now)
        if noted == len(arrivals):
            break
        if noted - 1 == taken:  # nothing waits: the next frame is taken when it comes
            now = arrivals[noted]
            receive_until(now)
        if noted == len(arrivals):
            break
        frame = noted - 1
        hold = freshness.hold_s(now - arrivals[frame], transport_ms[frame] / 1e3)
        # One that was on its way for a quarter of a period longer than this one comes too late to be waited for.
        late = arrivals[noted] > arrivals[frame] + LATE * PERIOD_S * (1.0 - 1e-9)
        if hold > 0.0:
            now = min(now + hold, arrivals[noted])
            receive_until(now)
        taken = noted - 1
        if taken > KNOWN_INTERVALS:
            assert late or now - sent[taken] <= PERIOD_S + 1e-9
        now += step_ms / 1e3
