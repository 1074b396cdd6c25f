"""Energy counters, on folders and a library made for the test; no machine is asked."""

import sys
import time
import types
from pathlib import Path

import pytest

from sam2lite_core.bench import energy
from sam2lite_core.errors import ConfigurationError


def rapl(root: Path, number: int = 0, counter: int = 0, most: int = 1_000_000) -> Path:
    folder = root / "class" / "powercap" / f"intel-rapl:{number}"
    folder.mkdir(parents=True)
    for name, value in (("name", f"package-{number}"), ("energy_uj", counter), ("max_energy_range_uj", most)):
        (folder / name).write_text(f"{value}\n")
    return folder


def rail(root: Path, channel: int, name: str, millivolts: int, milliamperes: int) -> None:
    folder = root / "bus" / "i2c" / "drivers" / "ina3221" / "1-0040" / "hwmon" / "hwmon3"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"in{channel}_label").write_text(f"{name}\n")
    (folder / f"in{channel}_input").write_text(f"{millivolts}\n")
    (folder / f"curr{channel}_input").write_text(f"{milliamperes}\n")


@pytest.fixture
def gpus(monkeypatch) -> list[int]:
    """Millijoules that two GPUs have counted, behind a library like pynvml."""
    counted = [1000, 5000]
    library = types.ModuleType("counted_gpus")
    library.nvmlInit = lambda: None
    library.nvmlDeviceGetCount = lambda: len(counted)
    library.nvmlDeviceGetHandleByIndex = lambda index: index
    library.nvmlDeviceGetTotalEnergyConsumption = lambda index: counted[index]
    monkeypatch.setitem(sys.modules, "counted_gpus", library)
    return counted


def test_rapl_counts_on_through_its_wraps(tmp_path) -> None:
    folder = rapl(tmp_path, counter=900_000)
    meters, missing = energy.open_meters(tmp_path, "no_such_library")
    assert [meter.name for meter in meters] == ["rapl package-0"]
    assert any("nvidia-ml-py" in reason for reason in missing)
    counted = []
    for value in (950_000, 100_000, 100_000, 50_000):
        (folder / "energy_uj").write_text(str(value))
        counted.append(meters[0].joules())
    # 50 mJ; then 50 mJ to the end and 100 after it; nothing; round once more, less 50.
    assert counted == pytest.approx([0.05, 0.2, 0.2, 1.15])


def test_parts_of_a_package_are_not_counted_twice(tmp_path) -> None:
    rapl(tmp_path, 0)
    rapl(tmp_path, 1)
    (tmp_path / "class" / "powercap" / "intel-rapl:0:0").mkdir()
    meters, _ = energy.open_meters(tmp_path, "no_such_library")
    assert [meter.name for meter in meters] == ["rapl package-0", "rapl package-1"]


def test_a_counter_that_cannot_be_read_is_told(tmp_path) -> None:
    (rapl(tmp_path) / "energy_uj").unlink()
    with energy.opened_gauge(tmp_path, "no_such_library") as gauge:
        assert gauge.summary.startswith("not measurable here: ")
        assert "RAPL: intel-rapl:0 cannot be read (No such file or directory)" in gauge.summary
        assert gauge.per_step(lambda: 7, 3) == (7, None)


def test_a_machine_without_any_counter_says_so(tmp_path) -> None:
    with energy.opened_gauge(tmp_path, "no_such_library") as gauge:
        expected = "no RAPL counter; NVML: nvidia-ml-py is not installed; no Jetson rails"
        assert gauge.summary == f"not measurable here: {expected}"


def test_gpus_are_summed_up_and_shared_by_the_steps(tmp_path, gpus) -> None:
    with energy.opened_gauge(tmp_path, "counted_gpus") as gauge:
        assert gauge.summary == "nvml"

        def work() -> str:
            gpus[0] += 300
            gpus[1] += 700
            return "done"

        assert gauge.per_step(work, 4) == ("done", {"nvml": 250.0})
        with pytest.raises(ConfigurationError, match="energy of 0 steps"):
            gauge.per_step(work, 0)


def test_a_driver_that_refuses_is_told(tmp_path, gpus, monkeypatch) -> None:
    def refuse() -> None:
        raise RuntimeError("Driver Not Loaded")

    monkeypatch.setattr(sys.modules["counted_gpus"], "nvmlInit", refuse)
    assert "NVML: Driver Not Loaded" in energy.open_meters(tmp_path, "counted_gpus")[1]


@pytest.mark.parametrize(
    ("rails", "name", "watts"),
    [
        ({"VDD_IN": (5000, 2000), "VDD_CPU_GPU_CV": (5000, 800)}, "jetson VDD_IN", 10.0),
        ({"GPU": (4000, 500), "CPU": (5000, 200)}, "jetson GPU+CPU", 3.0),
    ],
)
def test_jetson_rails_become_energy(tmp_path, monkeypatch, rails, name, watts) -> None:
    for channel, (label, (millivolts, milliamperes)) in enumerate(rails.items(), start=1):
        rail(tmp_path, channel, label, millivolts, milliamperes)
    monkeypatch.setattr(energy, "RAIL_PERIOD_S", 0.001)
    (meter,) = energy.open_meters(tmp_path, "no_such_library")[0]
    try:
        assert meter.name == name and meter._watts() == pytest.approx(watts)
        for _ in range(1000):  # nobody but its own thread reads it
            if meter._total > 0.0:
                break
            time.sleep(0.01)
        assert meter._total > 0.0
    finally:
        meter.close()
    assert not meter._thread.is_alive()


def test_trapezoids_between_readings(tmp_path, monkeypatch) -> None:
    rail(tmp_path, 1, "VDD_IN", 5000, 1000)
    monkeypatch.setattr(energy, "RAIL_PERIOD_S", 1000.0)
    clock = iter([10.0, 12.0])
    monkeypatch.setattr(energy.time, "monotonic", lambda: next(clock))
    meter = energy.JetsonMeter(energy.jetson_rails(tmp_path))
    rail(tmp_path, 1, "VDD_IN", 5000, 3000)
    # 5 W, then 15 W two seconds later.
    assert meter.joules() == pytest.approx(20.0)
    meter.close()
