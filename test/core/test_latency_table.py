"""The latency table by hand: interpolation, order, corrections; and what is measured into one."""

import math

import pytest

from sam2lite_core.control.latency_table import LatencyTable
from sam2lite_core.control.measuring import boxes, measure_table, moving_frames
from sam2lite_core.errors import ConfigurationError
from sam2lite_core.frame.resolution import RUNGS

TABLE = LatencyTable((0.5, 0.6, 0.7), (2, 8), ((8.0, 10.0), (10.0, 14.0), (15.0, 20.0)))


@pytest.mark.parametrize(
    ("scale", "window", "time"),
    [(0.5, 8, 10.0), (0.5, 2, 8.0), (0.5, 5, 9.0), (0.6, 3, 10.0 + 4.0 / 6), (0.7, 1, 15.0), (0.7, 12, 20.0)],
)
def test_times_between_windows_are_interpolated(scale, window, time):
    assert TABLE.time_ms(scale, window) == pytest.approx(time)


def test_saving_is_a_share_of_the_step():
    assert TABLE.saving(0.5, 8, 2) == pytest.approx(0.2)


@pytest.mark.parametrize(
    ("budget", "rungs", "scale"),
    [
        (10.0, (0.5, 0.6, 0.7), 0.5),
        (12.0, (0.5, 0.6, 0.7), 0.55),
        (14.0, (0.5, 0.6, 0.7), 0.6),
        (17.0, (0.5, 0.6, 0.7), 0.65),
        (23.0, (0.5, 0.6, 0.7), 0.75),  # the slope between the last two goes on
        (8.0, (0.5, 0.6, 0.7), 0.45),
        (1e6, (0.5, 0.6, 0.7), 1.2),
        (1e-6, (0.5, 0.6), 0.25),
        (13.0, (0.6,), 0.1),
        (14.0, (0.6,), 1.1),
    ],
)
def test_the_scale_that_fits(budget, rungs, scale):
    assert TABLE.fitting_scale(budget, 8, rungs) == pytest.approx(scale)


def test_rungs_that_cost_the_same_fit_together():
    """A small camera picture is never enlarged, so the upper rungs are one size."""
    flat = LatencyTable(RUNGS, (8,), ((5.0,), (6.0,), (7.0,), (7.0,), (7.0,), (7.0,)))
    assert flat.fitting_scale(7.0, 8, RUNGS) > 1.0
    assert flat.fitting_scale(6.9, 8, RUNGS) == pytest.approx(0.69)


def test_impossible_times_are_brought_into_order():
    table = LatencyTable((0.5, 1.0), (2, 8), ((10.0, 9.0), (8.0, 500.0)))
    # A longer window is not cheaper, a higher rung neither, and twice the scale costs at most eight times as much.
    assert table.times_ms == ((10.0, 10.0), (10.0, 80.0))


def test_a_correction_meets_its_own_row_fully_and_the_others_by_distance():
    table = LatencyTable((0.5, 0.6, 0.7), (8,), ((10.0,), (14.0,), (20.0,)))
    corrected = table.scaled(0.7, 2.0, 0.9)
    assert corrected.time_ms(0.7, 8) == pytest.approx(40.0)
    assert corrected.time_ms(0.6, 8) == pytest.approx(14.0 * 2**0.9)
    assert corrected.time_ms(0.5, 8) == pytest.approx(10.0 * 2**0.81)
    # What was measured wins over a lower rung that seems dearer, and over a higher one that seems cheaper.
    assert table.scaled(0.7, 0.4, 0.0).times_ms == ((8.0,), (8.0,), (8.0,))
    assert table.scaled(0.5, 3.0, 0.0).times_ms == ((30.0,), (30.0,), (30.0,))
    assert table.saving(0.6, 8, 8) == 0.0


def test_a_correction_keeps_what_a_window_saves():
    corrected = TABLE.scaled(0.6, 1.5, 0.95)
    assert [corrected.saving(rung, 8, 2) for rung in corrected.rungs] == pytest.approx(
        [TABLE.saving(rung, 8, 2) for rung in TABLE.rungs]
    )


@pytest.mark.parametrize(
    ("rungs", "windows", "times", "message"),
    [
        ((0.6, 0.5), (8,), ((1.0,), (1.0,)), r"rungs \(0.6, 0.5\)"),
        ((0.5,), (), ((),), r"windows \(\)"),
        ((0.5, 0.6), (8,), ((1.0,),), "2 rungs and 1 windows needs a time for each"),
        ((0.5,), (8,), ((0.0,),), r"step times \[0.0\] ms"),
        ((0.5,), (8,), ((math.nan,),), r"step times \[nan\] ms"),
    ],
)
def test_tables_of_the_wrong_shape_are_refused(rungs, windows, times, message):
    with pytest.raises(ConfigurationError, match=message):
        LatencyTable(rungs, windows, times)


def test_a_rung_that_is_not_there_is_named():
    with pytest.raises(ConfigurationError, match=r"scale 0.65 .* 0.5, 0.6, 0.7"):
        TABLE.time_ms(0.65, 8)


def test_measuring_takes_medians_and_leaves_the_warm_up_out():
    calls = []

    def step(scale, window):
        calls.append((scale, window))
        warming = [c for c in calls if c[0] == scale] == [(scale, 8)]
        return 1000.0 if warming else 100.0 * scale**2 * (0.9 if window == 2 else 1.0)

    table = measure_table(step, repeats=2)
    assert len(calls) == len(RUNGS) * 5
    for rung in RUNGS:
        assert table.time_ms(rung, 8) == pytest.approx(100.0 * rung**2)
        assert table.time_ms(rung, 2) == pytest.approx(90.0 * rung**2)
    assert table.spread == 0.02


def test_measuring_notes_how_much_steps_scatter():
    laps = iter([10.0, *[9.0, 10.0, 11.0, 10.0]] * len(RUNGS))
    table = measure_table(lambda scale, window: next(laps), repeats=2)
    # The shorter window took 9 and 11, so it saves nothing; 9, 10, 11, 10 scatter around 10.
    expected = math.sqrt((math.log(0.9) ** 2 + math.log(1.1) ** 2) / 3)
    assert table.spread == pytest.approx(expected) and table.saving(0.5, 8, 2) == 0.0


def test_frames_to_measure_with_move():
    frames = moving_frames(50, 70)
    first, second = next(frames), next(frames)
    assert first.shape == (50, 70, 3) and first.dtype.name == "uint8"
    assert (second[:, 2:] == first[:, :-2]).all() and (first != second).any()
    prompts = boxes(3, 50, 70)
    assert [prompt.object_id for prompt in prompts] == [1, 2, 3]
    prompts[0].check_inside(50, 70)
