"""The simulator by hand, and what issue 7 asks of the controllers on it; everything follows from seeds."""

import dataclasses
import json
import subprocess
from functools import partial

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sam2lite_core.bench import controller_real, controller_simulation
from sam2lite_core.bench.controller_real import RealSettings, Step, cpu_load
from sam2lite_core.bench.controller_simulation import Trace, compare, figures, most_in_a_row, settling_frames, simulate
from sam2lite_core.bench.simulated_devices import DEVICES, SCENARIOS, Device
from sam2lite_core.cli import app
from sam2lite_core.errors import ConfigurationError
from sam2lite_core.report.figures import controller as control_figure

SCENARIO = {scenario.name: scenario for scenario in SCENARIOS}
NAMES = [device.name for device in DEVICES]
SEEDS = range(3)


def trace(expected, measured=None, scale=None, deadline_ms=10.0):
    """A run at 100 Hz."""
    expected = np.array(expected, float)
    return Trace(
        np.arange(len(expected)) * 0.01,
        expected,
        expected if measured is None else np.array(measured, float),
        np.ones(len(expected)) if scale is None else np.array(scale),
        np.full(len(expected), 8),
        deadline_ms,
    )


# ---- issue 7 --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("device", DEVICES, ids=NAMES)
def test_predictive_answers_a_doubled_load_in_three_frames_and_then_holds_still(device):
    for seed in SEEDS:
        result = figures(simulate(device, SCENARIO["step"], "predictive", seed), SCENARIO["step"])
        assert result["settling_frames"] <= 3
        assert result["missed_after_percent"] <= 1.0
        assert result["most_switches_in_100"] <= 2


@pytest.mark.parametrize("device", DEVICES, ids=NAMES)
def test_plain_answers_a_doubled_load_in_fifteen_frames(device):
    """The paper's claim."""
    for seed in SEEDS:
        result = figures(simulate(device, SCENARIO["step"], "plain", seed), SCENARIO["step"])
        assert result["settling_frames"] <= 15


@pytest.mark.parametrize("device", DEVICES, ids=NAMES)
def test_plain_misses_three_per_cent_at_most_once_it_has_settled(device):
    results = [figures(simulate(device, SCENARIO["step"], "plain", seed), SCENARIO["step"]) for seed in range(10)]
    assert np.mean([result["missed_after_percent"] for result in results]) <= 3.0


@pytest.mark.parametrize("device", DEVICES, ids=NAMES)
def test_predictive_holds_the_deadline_while_a_device_throttles(device):
    run = simulate(device, SCENARIO["throttle"], "predictive", 0)
    assert 100.0 * run.missed.mean() <= 1.0
    # Throughout: in no ten seconds more than one frame in fifty either.
    assert most_in_a_row(run.missed, 300) <= 6
    assert run.scale[-1] <= run.scale[0]


@pytest.mark.parametrize("device", DEVICES[:3], ids=NAMES[:3])
@pytest.mark.parametrize("deadline_ms", [33.0, 75.0])
def test_predictive_keeps_up_under_cpu_load_and_is_back_three_seconds_after_it(device, deadline_ms):
    """At 75 ms there are 40 frames for it; issue 7 asks the same of the real tracker.

    The fourth device is too slow: the 95th percentile of its lowest rung lies beyond the deadline.
    """
    slower = dataclasses.replace(device, full_ms=device.full_ms * deadline_ms / 33.0)
    for seed in SEEDS:
        run = simulate(slower, SCENARIO["hog"], "predictive", seed, deadline_ms)
        assert 100.0 * run.after(11.0, 30.0).missed.mean() <= 5.0
        former = np.percentile(run.after(5.0, 10.0).scale, 50, method="lower")
        assert run.after(30.0, 33.0).scale.max() >= former


# ---- the simulator --------------------------------------------------------------------------------------------------


def test_a_step_by_hand():
    device = Device("hand", 20.0, fixed=0.2, windowed=0.25)
    # 4 ms stay; 16 ms shrink to a quarter; three quarters of the window are gone, and with them 3/16 of those.
    assert device.step_ms(0.5, 2) == pytest.approx(4.0 + 4.0 * (1 - 0.25 * 0.75))
    assert device.step_ms(1.0, 8, load=2.0) == pytest.approx(40.0)


def test_scatter_has_the_noise_that_it_claims():
    generator = np.random.default_rng(0)
    factors = np.array([Device("hand", 20.0, noise=0.05).scatter(generator) for _ in range(20_000)])
    assert factors.mean() == pytest.approx(1.0, abs=0.002)
    assert factors.std() == pytest.approx(0.05, rel=0.03)


@pytest.mark.parametrize(("windowed", "off_by"), [(0.0, 1e-9), (0.2, 0.03)])
def test_without_noise_a_device_is_measured_as_it_is(windowed, off_by):
    """The window's saving is pooled over the rungs, which is a little off where part of a step is fixed."""
    device = Device("hand", 20.0, noise=0.0, windowed=windowed)
    table = device.measure(np.random.default_rng(0))
    for rung in table.rungs:
        for window in (2, 5, 8):
            assert table.time_ms(rung, window) == pytest.approx(device.step_ms(rung, window), rel=off_by)


def test_the_noise_of_a_run_follows_from_its_seed():
    short = [simulate(DEVICES[0], SCENARIO["bursts"], "plain", seed) for seed in (4, 4, 5)]
    assert np.array_equal(short[0].measured_ms, short[1].measured_ms)
    assert not np.array_equal(short[0].measured_ms, short[2].measured_ms)


@pytest.mark.parametrize(
    ("expected", "from_s", "frames"),
    [
        ([5] * 20, 0.0, 0),
        ([5] * 5 + [20] * 3 + [5] * 12, 0.05, 3),
        ([20] * 2 + [5] * 9 + [20] + [5] * 10, 0.0, 12),  # nine calm frames are not ten
        ([5] * 5 + [10.0] * 12, 0.05, 0),  # on the deadline is within it
    ],
)
def test_settling_frames(expected, from_s, frames):
    assert settling_frames(trace(expected), from_s) == frames


def test_a_load_that_nothing_can_hold_never_settles():
    with pytest.raises(ConfigurationError, match="no choice brings the steps"):
        settling_frames(trace([20] * 30), 0.0)
    weak = Device("weak", 200.0)
    result = figures(simulate(weak, SCENARIO["step"], "predictive", 0), SCENARIO["step"])
    assert result["settling_frames"] is None and "overshoot" not in result


@given(st.lists(st.booleans(), max_size=60), st.integers(1, 20))
def test_most_in_a_row_is_what_looking_everywhere_finds(events, length):
    starts = range(max(1, len(events) - length + 1))
    brute = max(sum(events[start : start + length]) for start in starts)
    assert most_in_a_row(np.array(events, bool), length) == brute


def test_figures_by_hand():
    scale = [1.0] * 10 + [0.8] * 5 + [0.9] * 5
    run = trace([5] * 20, measured=[5] * 15 + [12] * 5, scale=scale)
    result = figures(run, SCENARIO["steady"])
    assert result["missed_percent"] == pytest.approx(25.0)
    assert result["mean_scale"] == pytest.approx(0.925)
    # 20 frames of 10 ms: two changes in a fifth of a second
    assert result["switches_a_minute"] == pytest.approx(600.0)


@pytest.mark.parametrize("values", [{"full_ms": 0.0}, {"full_ms": 5.0, "fixed": 1.0}, {"full_ms": 5.0, "noise": -0.1}])
def test_impossible_devices_are_refused(values):
    with pytest.raises(ConfigurationError, match="positive time"):
        Device("wrong", **values)


# ---- the command ----------------------------------------------------------------------------------------------------


def test_the_command_writes_tables_and_a_picture(monkeypatch, tmp_path, capsys):
    pytest.importorskip("matplotlib", reason="needs matplotlib: pip install 'sam2lite[figures]'")
    small = partial(compare, devices=DEVICES[1:2], scenarios=[SCENARIO["step"], SCENARIO["stall"]])
    monkeypatch.setattr(controller_simulation, "compare", small)
    monkeypatch.setattr(control_figure, "SHOWN", ("step", "stall"))
    files = {name: tmp_path / f"out.{name}" for name in ("json", "markdown", "figure")}
    options = [part for name, file in files.items() for part in (f"--{name}", str(file))]
    with pytest.raises(SystemExit) as end:
        app.main(["bench", "controller", "--seeds", "1", *options])
    assert end.value.code == 0
    rows = json.loads(files["json"].read_text())["rows"]
    assert [(row["scenario"], row["controller"]) for row in rows] == [
        (scenario, controller) for scenario in ("step", "stall") for controller in ("plain", "predictive", "off")
    ]
    text = files["markdown"].read_text()
    assert text.count("| Jetson TX2, tiny |") == 6 and text.strip() == capsys.readouterr().out.strip()
    assert files["figure"].read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--seeds", "0"], "0 seeds; give at least 1"),
        (["--real", "--figure", "x.png"], "--figure x.png shows simulated runs"),
        (["--real", "--seconds", "1"], "1.0 s with"),
        (["--json", "nowhere/x.json"], "the folder nowhere does not exist"),
    ],
)
def test_wrong_options_cost_a_line_and_code_2(options, message, capsys):
    with pytest.raises(SystemExit) as end:
        app.main(["bench", "controller", *options])
    assert end.value.code == 2 and message in capsys.readouterr().err


# ---- the real tracker -----------------------------------------------------------------------------------------------


def test_figures_of_a_real_run_by_hand():
    settings = RealSettings(before_s=2.0, hog_s=3.0, after_s=2.0)
    steps = [
        *(Step(0.5 * index, 0.0, 50.0, 0.8, 0) for index in range(4)),  # calm at .8
        Step(2.0, 0.0, 300.0, 0.8, 0),  # the first second under load does not count
        Step(3.0, 10.0, 95.0, 0.6, 0),  # in time by itself, late with its delay
        Step(3.5, 0.0, 120.0, 0.6, 0),  # missed
        Step(4.0, 0.0, 90.0, 0.6, 1),  # one frame was skipped before it
        Step(4.5, 0.0, 90.0, 0.6, 0),
        Step(5.0, 0.0, 50.0, 0.6, 0),
        Step(6.5, 0.0, 50.0, 0.8, 0),
    ]
    assert controller_real.figures(steps, settings, 100.0) == {
        "former_scale": 0.8,
        "hog_scale": 0.6,
        "missed_percent": 25.0,
        "late_percent": 60.0,
        "back_s": 1.5,
        "switches_a_minute": pytest.approx(60.0 * 2 / 6.5, abs=0.1),
    }
    assert controller_real.figures(steps[:-1], settings, 100.0)["back_s"] is None


def test_a_cpu_load_ends_with_its_block_and_by_itself():
    with cpu_load(60.0) as process, pytest.raises(subprocess.TimeoutExpired):
        process.wait(0.3)
    assert process.returncode is not None
    with cpu_load(0.05) as process:
        assert process.wait(30.0) == 0


def test_a_real_run_goes_through_calm_load_and_calm():
    settings = RealSettings(threads=1, before_s=2.0, hog_s=2.0, after_s=2.0, height=96, width=128)
    told = []
    content = controller_real.measure(settings, told.append)
    assert len(told) == 3 and content["deadline_ms"] == pytest.approx(2.5 * content["reference_step_ms"], abs=0.05)
    for run in content["controllers"].values():
        due = [step["at_s"] for step in run["steps"]]
        assert due == sorted(set(due)) and due[0] == 0.0 and 4.0 < due[-1] < 6.0
        assert all(step["step_ms"] > 0 and step["late_ms"] >= 0 for step in run["steps"])
    assert controller_real.summary(content).count("\n| p") == 2
    json.dumps(content)  # as `--json` writes it
