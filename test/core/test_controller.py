"""The controller against hand-computed steps, and on simulated devices that slow down and recover."""

import math
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sam2lite_core.control.base import LONG, ControllerConfig, ControllerState, DeviceLatency, snap_down, state_at
from sam2lite_core.control.latency_table import LatencyTable
from sam2lite_core.control.learning import learn
from sam2lite_core.control.plain import DeadlineController
from sam2lite_core.control.predictive import ladder
from sam2lite_core.control.registry import make_controller
from sam2lite_core.errors import ConfigurationError
from sam2lite_core.frame.resolution import RUNGS

DEADLINE = 40.0
SETPOINT = 0.8 * DEADLINE


def drive(controller, state, full_ms, frames):
    """Run a device whose step takes `full_ms` at full scale and grows with the square of the scale."""
    states = []
    for _ in range(frames):
        state = controller.update(state, full_ms * state.scale**2)
        states.append(state)
    return states


configs = st.builds(
    lambda deadline, scales, windows: ControllerConfig(
        deadline_ms=deadline,
        min_scale=min(scales),
        max_scale=max(scales),
        min_window=min(windows),
        max_window=max(windows),
    ),
    st.floats(1, 500),
    st.tuples(st.sampled_from(RUNGS), st.sampled_from(RUNGS)),
    st.tuples(st.integers(2, 8), st.integers(2, 8)),
)
times = st.lists(st.one_of(st.floats(0, 2000), st.just(0.0)), max_size=60)


@settings(max_examples=150, deadline=None)
@given(configs, times)
def test_choices_stay_within_limits_and_change_slowly(config, measured):
    controller = make_controller("plain", config)
    state = controller.start()
    for time in measured:
        before, state = state, controller.update(state, time)
        assert state.scale in RUNGS
        assert config.min_scale <= state.scale <= config.max_scale
        assert config.min_window <= state.window <= config.max_window
        assert abs(state.fine_scale - before.fine_scale) <= 0.05 + 1e-12
        assert abs(state.fine_window - before.fine_window) <= 1 + 1e-9
        assert abs(state.integral) <= config.integral_limit
        assert state.scale <= state.fine_scale + 1e-9
        # The window only gives way where the scale has nothing left to give.
        assert state.window == config.max_window or state.scale == config.min_scale


@settings(max_examples=60, deadline=None)
@given(configs, times)
def test_the_same_inputs_give_the_same_states(config, measured):
    runs = []
    for _ in range(2):
        controller = make_controller("plain", config)
        state = controller.start()
        for time in measured:
            state = controller.update(state, time)
        runs.append(state)
    assert runs[0] == runs[1]


def test_two_steps_by_hand():
    """Equation 12 with e = (32 - actual) / 32, the derivative smoothed by 0.7 and 0.3."""
    controller = DeadlineController(ControllerConfig(deadline_ms=DEADLINE))
    first = controller.update(controller.start(), 40.0)  # e = -0.25
    assert first.error == pytest.approx(-0.25)
    assert first.integral == pytest.approx(-0.25)
    assert first.fine_scale == pytest.approx(1 - 0.1 * 0.25 - 0.01 * 0.25)
    assert (first.scale, first.window) == (0.9, 8)
    second = controller.update(first, 36.0)  # e = -0.125, jump +0.125
    assert second.derivative == pytest.approx(0.3 * 0.125)
    change = 0.1 * -0.125 + 0.01 * -0.375 + 0.05 * 0.0375
    assert second.fine_scale == pytest.approx(first.fine_scale + change)


def test_one_stall_costs_at_most_one_clipped_change():
    controller = DeadlineController(ControllerConfig(deadline_ms=DEADLINE))
    stalled = controller.update(controller.start(), 5000.0)
    assert stalled.error == -1
    assert stalled.fine_scale == pytest.approx(0.95)


@pytest.mark.parametrize("ideal", [0.55, 0.62, 0.7, 0.78, 0.85, 0.93])
def test_settles_around_the_scale_that_fits(ideal):
    """The ideal scale meets the setpoint exactly, so only the rungs beside it stay in use."""
    full = SETPOINT / ideal**2
    controller = DeadlineController(ControllerConfig(deadline_ms=DEADLINE))
    states = drive(controller, controller.start(), full, 400)[100:]
    assert all(abs(state.scale - ideal) < 0.1 + 1e-9 for state in states)
    mean = sum(full * state.scale**2 for state in states) / len(states)
    assert mean == pytest.approx(SETPOINT, rel=0.05)


def test_a_fast_device_keeps_full_quality():
    controller = DeadlineController(ControllerConfig(deadline_ms=DEADLINE))
    states = drive(controller, controller.start(), 0.9 * SETPOINT, 100)
    assert {(state.scale, state.window) for state in states} == {(1.0, 8)}


def test_throttles_down_to_the_shortest_window_and_recovers():
    controller = DeadlineController(ControllerConfig(deadline_ms=DEADLINE))
    hot = drive(controller, controller.start(), 10 * DEADLINE, 60)
    assert (hot[-1].scale, hot[-1].window) == (0.5, 2)
    first_short = next(index for index, state in enumerate(hot) if state.window < 8)
    assert hot[first_short - 1].scale == 0.5
    cool = drive(controller, hot[-1], 0.5 * SETPOINT, 60)
    assert (cool[-1].scale, cool[-1].window) == (1.0, 8)
    first_sharp = next(index for index, state in enumerate(cool) if state.scale > 0.5)
    assert cool[first_sharp].window == 8


def test_long_overload_is_forgotten_as_soon_as_a_short_one():
    """Without the clamp on the integral, recovery would take longer the longer the overload lasted."""
    controller = DeadlineController(ControllerConfig(deadline_ms=DEADLINE))
    waits = []
    for frames in (60, 3000):
        states = drive(controller, drive(controller, controller.start(), 400.0, frames)[-1], 10.0, 100)
        waits.append(next(index for index, state in enumerate(states) if state.scale == 1.0))
    assert waits[0] == waits[1]


def test_off_never_moves():
    controller = make_controller("off", ControllerConfig(max_scale=0.8, max_window=6))
    state = controller.start()
    for time in (0.0, 10.0, 1e6):
        state = controller.update(state, time)
        assert (state.scale, state.window) == (0.8, 6)


def test_resume_moves_a_state_inside_new_limits():
    state = ControllerState(0.5, 3, 0.52, 3.4, integral=-2.0, derivative=0.1, error=-1.0)
    controller = DeadlineController(ControllerConfig(deadline_ms=DEADLINE, min_scale=0.7, min_window=4))
    resumed = controller.resume(state)
    assert (resumed.scale, resumed.window, resumed.integral, resumed.error) == (0.7, 4, 0.0, None)
    assert controller.resume(replace(state, fine_scale=0.85, fine_window=7.2)).scale == 0.8


@pytest.mark.parametrize(
    ("scale", "rung"), [(1.0, 1.0), (0.999, 0.9), (0.7, 0.7), (0.3 + 0.4, 0.7), (0.55, 0.5), (0.2, 0.5)]
)
def test_snap_down(scale, rung):
    assert snap_down(scale) == rung


@pytest.mark.parametrize(
    ("settings_", "message"),
    [
        ({"deadline_ms": 0}, "deadline of 0 ms"),
        ({"deadline_ms": math.nan}, "deadline of nan ms"),
        ({"min_scale": 0.4}, "min_scale 0.4 is outside 0.5..1"),
        ({"max_scale": 1.1}, "max_scale 1.1"),
        ({"min_scale": 0.91, "max_scale": 0.99}, "no resolution rung lies between"),
        ({"min_scale": 0.9, "max_scale": 0.6}, "no resolution rung lies between"),
        ({"min_window": 1}, "min_window 1 is outside 2..8"),
        ({"min_window": 7, "max_window": 3}, "min_window 7 exceeds max_window 3"),
        ({"kp": -1}, "kp -1"),
    ],
)
def test_settings_outside_their_range_are_refused(settings_, message):
    with pytest.raises(ConfigurationError, match=message):
        ControllerConfig(**settings_)


def test_unknown_controller_names_the_choices():
    with pytest.raises(ConfigurationError, match=r"'fancy'.*plain, predictive, off"):
        make_controller("fancy", ControllerConfig())


def test_plain_needs_a_deadline():
    with pytest.raises(ConfigurationError, match="needs a deadline"):
        make_controller("plain", ControllerConfig())


@pytest.mark.parametrize("name", ["plain", "off"])
@pytest.mark.parametrize("time", [-1.0, math.nan, math.inf])
def test_impossible_times_are_refused(name, time):
    controller = make_controller(name, ControllerConfig(deadline_ms=DEADLINE))
    with pytest.raises(ConfigurationError, match="measured step time"):
        controller.update(controller.start(), time)


# ---- predictive ---------------------------------------------------------------------------------------------------


def quadratic_table(full_ms, saving=0.0, spread=0.05):
    """A device whose step grows with the square of the scale; the shortest window saves a share of it."""
    rows = tuple((full_ms * rung**2 * (1 - saving), full_ms * rung**2) for rung in RUNGS)
    return LatencyTable(RUNGS, (2, 8), rows, spread)


def predictive(full_ms=30.0, saving=0.0, spread=0.05, **changes):
    return make_controller(
        "predictive", ControllerConfig(deadline_ms=DEADLINE, **changes), quadratic_table(full_ms, saving, spread)
    )


tables = st.builds(
    lambda times, spread: LatencyTable(RUNGS, (2, 8), tuple(times), spread),
    st.lists(st.tuples(st.floats(0.1, 500), st.floats(0.1, 500)), min_size=6, max_size=6),
    st.floats(0, 0.5),
)


def assert_ordered(table):
    for lower, higher in pairwise(table.times_ms):
        assert all(low <= high * (1 + 1e-9) for low, high in zip(lower, higher, strict=True))
    assert all(short <= long * (1 + 1e-9) for short, long in table.times_ms)


@settings(max_examples=150, deadline=None)
@given(configs, tables, st.lists(st.tuples(st.floats(0, 2000), st.floats(0, 100)), max_size=80))
def test_predictive_stays_within_limits_and_climbs_slowly(config, table, measured):
    controller = make_controller("predictive", config, table)
    state = controller.start()
    last_drop = None
    for frame, (time, overhead) in enumerate(measured):
        before, state = state, controller.update(state, time, overhead)
        assert state.scale in config.rungs and config.min_window <= state.window <= config.max_window
        assert state.fine_scale <= before.fine_scale + config.max_change + 1e-9
        assert config.rungs.index(state.scale) <= config.rungs.index(before.scale) + 1
        assert state.window == config.max_window or state.scale == config.min_scale
        assert_ordered(state.device.table)
        if state.scale > before.scale or state.window > before.window:
            assert last_drop is None or frame - last_drop >= config.patience
            assert before.device.room >= config.patience - 1
        if state.scale < before.scale or state.window < before.window:
            last_drop = frame


@settings(max_examples=60, deadline=None)
@given(configs, tables, times)
def test_predictive_gives_the_same_for_the_same(config, table, measured):
    runs = []
    for _ in range(2):
        controller = make_controller("predictive", config, table)
        state = controller.start()
        for time in measured:
            state = controller.update(state, time)
        runs.append(state)
    assert runs[0] == runs[1]


@pytest.mark.parametrize(
    ("full_ms", "scale"),
    [
        # p95 = full * rung^2 * exp(1.645 * .05) = 1.0857 * full * rung^2 within the setpoint of 32 ms
        (29.0, 1.0),
        (30.0, 0.9),
        (36.0, 0.9),
        (37.0, 0.8),
        (80.0, 0.6),
        (400.0, 0.5),
    ],
)
def test_predictive_starts_where_the_95th_percentile_fits(full_ms, scale):
    assert predictive(full_ms).start().scale == scale


def test_a_doubled_load_is_answered_at_once_when_a_second_step_confirms_it():
    controller = predictive(29.0)
    first = controller.update(controller.start(), 58.0)
    assert first.scale == 1.0
    second = controller.update(first, 58.0)
    # 58 ms at full scale: .7 takes 28.4 ms, its p95 is 30.9 ms; .8 takes 37 ms.
    assert (second.scale, second.window) == (0.7, 8)
    assert second.device.table.time_ms(1.0, 8) == pytest.approx(58.0)
    assert controller.update(second, 0.49 * 58.0).scale == 0.7


@pytest.mark.parametrize("stall_ms", [60.0, 500.0, 1e5])
def test_a_single_stall_changes_nothing(stall_ms):
    controller = predictive(26.0)
    state = controller.start()
    for _ in range(20):
        state = controller.update(state, stall_ms)
        assert state.scale == 1.0
        for _ in range(15):
            state = controller.update(state, 26.0)
            assert state.scale == 1.0


def test_climbs_half_a_rung_a_frame_after_thirty_frames_of_room():
    controller = make_controller("predictive", ControllerConfig(deadline_ms=33.0), quadratic_table(90.0))
    state = controller.start()
    for _ in range(5):
        state = controller.update(state, 90.0 * 0.25)
        assert state.scale == 0.5
    for _ in range(2):  # suddenly a fifth of the time: every rung fits
        state = controller.update(state, 0.25 * 18.0)
    assert state.device.room == 1 and state.scale == 0.5
    scales = []
    for _ in range(50):
        state = controller.update(state, 18.0 * state.scale**2)
        scales.append(round(state.fine_scale, 2))
    first = scales.index(0.55)
    assert first == 28  # the thirtieth frame of room, counting the one before the loop
    assert scales[first : first + 11] == [0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95, 1.0, 1.0]
    assert state.device.room == 0


def scattered(state, load, scatter, generator):
    """Time of a step of the 29 ms device under a load that scatters it."""
    return 29.0 * state.scale**2 * load * math.exp(scatter * generator.standard_normal())


def test_a_load_that_hides_in_its_own_scatter_is_gone_after_four_faster_steps():
    """With a spread of .3 half the time is no surprise: two standard deviations, where three would be one."""
    controller, generator = predictive(29.0), np.random.default_rng(1)
    state = controller.start()
    for _ in range(200):
        state = controller.update(state, scattered(state, 2.0, 0.3, generator))
    loaded = state.device
    assert loaded.table.spread > 0.2 and loaded.home == (1.0, 8) and state.scale < 0.7
    for step in range(4):
        assert state.device.table.spread > 0.2, step
        state = controller.update(state, scattered(state, 1.0, 0.02, generator))
    gone = state.device.table
    # Not a fifth of the way each step but all of it, and on every rung what it was before the load.
    for rung in RUNGS:
        assert gone.time_ms(rung, 8) == pytest.approx(29.0 * rung**2, rel=0.06)
    assert gone.spread <= 0.1
    for _ in range(60):
        state = controller.update(state, scattered(state, 1.0, 0.02, generator))
    assert state.scale == 1.0 and (state.device.home, state.device.unloaded) == (None, None)


@pytest.mark.parametrize(
    ("deviations", "loaded", "relieved"),
    [
        # Spread .3: each has to lie beyond .3, and their mean beyond .45, from where the table was before them.
        ((-0.5, -0.5, -0.5, -0.5), True, True),
        ((-0.9, -0.9, -0.9, -0.2), True, False),
        ((-0.4, -0.4, -0.4, -0.4), True, False),
        ((-0.5, -0.5, -0.5), True, False),
        ((-0.5, -0.5, -0.5, -0.5), False, False),  # nothing has set in that could go
    ],
)
def test_what_counts_as_relief(deviations, loaded, relieved):
    table = quadratic_table(29.0, spread=0.3)
    known = DeviceLatency(
        table, settled=10, home=(1.0, 8), unloaded=quadratic_table(20.0, spread=0.04) if loaded else None
    )
    for deviation in deviations:
        before = known.table.time_ms(0.5, 8)
        known = replace(learn(known, 0.5, deviation - math.log(before / table.time_ms(0.5, 8))), settled=11)
    assert (known.table.spread < 0.1) == relieved and (known.latest == ()) == relieved
    if relieved:
        # All of the way at this rung, and the shape of before the load at the others; never calmer than it was then.
        assert known.table.time_ms(0.5, 8) == pytest.approx(math.exp(-0.5) * table.time_ms(0.5, 8))
        assert known.table.time_ms(1.0, 8) == pytest.approx(4.0 * known.table.time_ms(0.5, 8))
        assert known.table.spread == 0.04


def test_a_device_that_scatters_without_a_load_is_never_relieved():
    controller, generator = predictive(20.0, spread=0.2), np.random.default_rng(0)
    state = controller.start()
    for _ in range(5000):
        state = controller.update(state, 20.0 * state.scale**2 * math.exp(0.2 * generator.standard_normal()))
        if state.device.unloaded is None:
            assert state.device.seen == LONG


def test_on_another_ladder_it_returns_as_high_as_that_one_goes():
    controller = predictive(29.0)
    state = controller.start()
    for _ in range(30):
        state = controller.update(state, 58.0 * state.scale**2)
    assert state.device.home == (1.0, 8) and state.device.latest
    for changes in ({"max_scale": 0.7}, {"min_scale": 0.6}):
        other = predictive(29.0, **changes)
        known = other.resume(state).device
        assert (known.latest, known.settled, known.room) == ((), 0, 0)
        # The load goes: three places or five, it climbs to the best one that fits.
        resumed = other.resume(state)
        for _ in range(200):
            resumed = other.update(resumed, 29.0 * resumed.scale**2)
        assert resumed.scale == other.start().scale
        assert (resumed.device.home, resumed.device.unloaded) == (None, None)


def test_where_a_load_drove_it_from_it_returns_although_it_would_not_have_gone_there():
    """.9 of 37 ms has its 95th percentile between setpoint and deadline: enough to stay, not enough to climb."""
    controller = predictive(37.0)
    there = state_at(ControllerConfig(deadline_ms=DEADLINE), 0.9, 8.0)
    state = controller.update(replace(there, device=DeviceLatency(quadratic_table(37.0))), 37.0 * 0.81)
    assert controller.start().scale == 0.8 and state.scale == 0.9
    for load, frames in ((2.0, 50), (1.0, 60)):
        for _ in range(frames):
            state = controller.update(state, 37.0 * load * state.scale**2)
        assert (state.scale == 0.9) == (load == 1.0)


@pytest.mark.parametrize(
    ("deadline_ms", "climb_after", "patience"),
    [(33.0, 30, 30), (33.4, 30, 30), (50.0, 30, 20), (100.0, 30, 10), (150.0, 30, 8), (150.0, 5, 5), (20.0, 90, 50)],
)
def test_patience_is_thirty_frames_but_no_more_than_a_second(deadline_ms, climb_after, patience):
    assert ControllerConfig(deadline_ms=deadline_ms, climb_after=climb_after).patience == patience


@pytest.mark.parametrize(
    ("saving", "windows"),
    [
        (0.0, [8]),
        (0.02, [8]),  # not worth it: 2 % over the whole range
        (0.07, [8, 5, 2]),  # 1.2 % a frame: three frames make 3 %
        (0.30, [8, 7, 6, 5, 4, 3, 2]),
    ],
)
def test_the_window_gives_way_below_the_lowest_rung_and_only_where_it_pays(saving, windows):
    config = ControllerConfig(deadline_ms=DEADLINE)
    levels = ladder(config, quadratic_table(30.0, saving))
    assert levels[-6:] == tuple((rung, 8) for rung in RUNGS)
    assert [window for _, window in reversed(levels[:-5])] == windows
    assert {scale for scale, _ in levels[:-5]} == {0.5}


def test_an_overload_shortens_the_window_where_that_pays_and_nowhere_else():
    for saving, window in ((0.0, 8), (0.3, 2)):
        controller = predictive(30.0, saving)
        state = controller.start()
        for _ in range(10):
            state = controller.update(state, 10 * DEADLINE)
        assert (state.scale, state.window) == (0.5, window)


def test_what_a_frame_costs_beside_the_step_leaves_less_for_it():
    controller = predictive(29.0)
    state = controller.start()
    for _ in range(40):
        state = controller.update(state, 29.0 * state.scale**2, 12.0)
    # 20 ms are left of the setpoint and 24 of what is tolerated: .8 takes 18.6 ms, its p95 is 19.7 ms or less.
    assert state.scale == 0.8
    assert state.device.overhead_ms == pytest.approx(12.0)


def test_plain_counts_what_a_frame_costs_beside_the_step():
    controller = DeadlineController(ControllerConfig(deadline_ms=DEADLINE))
    assert controller.update(controller.start(), 20.0, 20.0) == controller.update(controller.start(), 40.0)


def test_predictive_keeps_what_it_knows_when_a_setting_changes():
    controller = predictive(29.0)
    state = controller.start()
    for _ in range(3):
        state = controller.update(state, 58.0 * state.scale**2)
    other = predictive(29.0, max_scale=0.6)
    resumed = other.resume(state)
    assert resumed.scale == 0.6 and resumed.device.table == state.device.table
    plain = DeadlineController(ControllerConfig(deadline_ms=DEADLINE)).resume(state)
    assert plain.device is None and plain.scale == state.scale
    assert other.resume(ControllerState(0.5, 3, 0.52, 3.4)).window == 8


@pytest.mark.parametrize(
    ("deadline_ms", "table", "message"),
    [
        (None, quadratic_table(30.0), "'predictive' needs a deadline"),
        (40.0, None, "'predictive' needs a latency table"),
    ],
)
def test_predictive_says_what_it_needs(deadline_ms, table, message):
    with pytest.raises(ConfigurationError, match=message):
        make_controller("predictive", ControllerConfig(deadline_ms=deadline_ms), table)
