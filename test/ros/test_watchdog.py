"""A step that hangs, by a clock of our own."""

import pytest

from sam2lite_core.errors import BackendError
from sam2lite_ros.tracker.watchdog import STALL_S, Watchdog


@pytest.fixture
def watch():
    now = [100.0]
    return Watchdog(lambda: now[0]), now


@pytest.mark.parametrize(("passed", "stalled"), [(0.0, 0.0), (STALL_S, 0.0), (STALL_S + 2.0, STALL_S + 2.0)])
def test_a_step_hangs_once_it_has_taken_too_long(watch, passed, stalled):
    dog, now = watch
    with dog.watching():
        now[0] += passed
        assert dog.stalled_s == stalled
    assert dog.stalled_s == 0.0


def test_each_step_has_its_own_time(watch):
    dog, now = watch
    for _ in range(3):
        with dog.watching():
            now[0] += 0.8 * STALL_S
            assert dog.stalled_s == 0.0
    now[0] += 10 * STALL_S
    assert dog.stalled_s == 0.0
    assert not dog.give_up()


def test_a_step_that_was_given_up_has_no_result_and_no_successor(watch):
    dog, now = watch
    with pytest.raises(BackendError, match="given it up"), dog.watching():
        assert not dog.give_up()
        now[0] += 2 * STALL_S
        assert dog.give_up()
    with pytest.raises(BackendError, match="given it up"), dog.watching():
        pytest.fail("the next step must not begin")


def test_the_error_of_a_step_is_its_own(watch):
    dog, _ = watch
    with pytest.raises(ValueError, match="odd"), dog.watching():
        raise ValueError("odd")
    assert dog.stalled_s == 0.0
