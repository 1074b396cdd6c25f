"""Frames that are about to be replaced are held back, so that masks stay younger than a period and a step."""

from hypothesis import given
from hypothesis import strategies as st

from sam2lite_ros.freshness import KNOWN_INTERVALS, LATE, SOON, Freshness

PERIOD_S = 1 / 30


def steady(count=KNOWN_INTERVALS + 1):
    freshness = Freshness()
    for index in range(count):
        freshness.arrived(index * PERIOD_S)
    return freshness, (count - 1) * PERIOD_S


def test_a_fresh_frame_is_taken_at_once():
    freshness, last = steady()
    assert freshness.hold_s(last, last) == 0.0
    assert freshness.hold_s(last, last + 0.7 * PERIOD_S) == 0.0


def test_a_frame_is_held_back_when_the_next_is_due_but_not_for_ever():
    freshness, last = steady()
    hold = freshness.hold_s(last, last + 0.9 * PERIOD_S)
    assert abs(hold - (LATE - 0.9) * PERIOD_S) < 1e-9
    assert freshness.hold_s(last, last + 1.3 * PERIOD_S) == 0.0


def test_nothing_is_held_back_before_the_period_is_known():
    freshness, last = steady(3)
    assert freshness.hold_s(last, last + 0.9 * PERIOD_S) == 0.0


def test_one_late_frame_does_not_change_the_period():
    freshness, last = steady()
    freshness.arrived(last + 1.0)
    assert freshness.hold_s(last + 1.0, last + 1.0 + 0.7 * PERIOD_S) == 0.0
    assert freshness.hold_s(last + 1.0, last + 1.0 + 0.9 * PERIOD_S) > 0.0


@given(
    transport_ms=st.lists(st.floats(0.5, 6.0), min_size=120, max_size=120),
    steps_ms=st.lists(st.floats(1.0, 250.0), min_size=120, max_size=120),
)
def test_every_mask_is_younger_than_a_period_and_a_step(transport_ms, steps_ms):
    """A camera at 30 Hz over a transport of .5 to 6 ms, steps of any length: age = period + step at most."""
    sent = [index * PERIOD_S for index in range(120)]
    arrivals = [at + delay / 1e3 for at, delay in zip(sent, transport_ms, strict=True)]
    freshness, noted, now, taken = Freshness(), 0, 0.0, -1

    def receive_until(moment):
        nonlocal noted
        while noted < len(arrivals) and arrivals[noted] <= moment:
            freshness.arrived(arrivals[noted])
            noted += 1

    for step_ms in steps_ms:
        receive_until(now)
        if noted == len(arrivals):
            break
        if noted - 1 == taken:  # nothing waits: the next frame is taken when it comes
            now = arrivals[noted]
            receive_until(now)
        frame = noted - 1
        hold = freshness.hold_s(arrivals[frame], now)
        if hold > 0.0:
            now = min(now + hold, arrivals[noted])
            receive_until(now)
        taken = noted - 1
        if taken > KNOWN_INTERVALS:
            assert now - sent[taken] <= PERIOD_S
            assert now - arrivals[taken] <= (SOON * 1.2) * PERIOD_S
        now += step_ms / 1e3
