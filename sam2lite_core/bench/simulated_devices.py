"""Simulate devices and loads: step times as functions of scale, window and other load."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sam2lite_core.control.latency_table import LatencyTable
from sam2lite_core.control.measuring import measure_table
from sam2lite_core.errors import ConfigurationError
from sam2lite_core.variants import MAX_WINDOW

FloatArray = NDArray[np.float64]


@dataclass(frozen=True)
class Device:
    """A device as a latency function.

    Attributes:
        full_ms: step time at scale 1 with the longest window and nothing else running, ms.
        fixed: share of that which no scale changes.
        windowed: share of the rest that is proportional to the window.
        noise: standard deviation of a step time, as a share of it.

    Raises:
        ConfigurationError: a time that is not positive, or a share outside 0..1.
    """

    name: str
    full_ms: float
    fixed: float = 0.15
    windowed: float = 0.0
    noise: float = 0.05

    def __post_init__(self) -> None:
        if self.full_ms <= 0 or not all(0 <= part < 1 for part in (self.fixed, self.windowed, self.noise)):
            raise ConfigurationError(f"{self}: give a positive time, and shares in 0..1")

    def step_ms(self, scale: float, window: int, load: float = 1.0) -> float:
        """Return the time of a step without noise, ms; `load` is the factor of everything else that runs."""
        reading = 1.0 - self.windowed * (1.0 - window / MAX_WINDOW)
        return self.full_ms * load * (self.fixed + (1.0 - self.fixed) * scale**2 * reading)

    def scatter(self, generator: np.random.Generator) -> float:
        """Return a factor of mean 1 for one step; a step may be much too slow, never much too fast."""
        sigma = np.sqrt(np.log1p(self.noise**2))
        return float(generator.lognormal(-(sigma**2) / 2, sigma))

    def measure(self, generator: np.random.Generator) -> LatencyTable:
        """Measure the table that a tracker would at configure, from a few noisy steps."""
        return measure_table(lambda scale, window: self.step_ms(scale, window) * self.scatter(generator))


@dataclass(frozen=True)
class Scenario:
    """A load over time.

    Attributes:
        name, description: one word, and words.
        seconds: how long it lasts.
        load: from seconds since the start, (T,), to the factor on step times, (T,).
        step_s: start and end of a load that a controller has to settle on; None without one.
    """

    name: str
    description: str
    seconds: float
    load: Callable[[FloatArray], FloatArray]
    step_s: tuple[float, float] | None = None


DEVICES = (
    Device("iPhone 14 Pro, tiny", 19.0),
    Device("Jetson TX2, tiny", 24.0),
    Device("Jetson Orin, base", 28.0, windowed=0.2),
    Device("Pixel 7 Pro, tiny", 31.0),
)
"""Step times at 480p from the paper's table 2; how they split is assumed."""


def _under_cpu_load(seconds: FloatArray) -> FloatArray:
    """Load one of two cores by another process, as `sam2lite bench controller --real` measured it.

    Steps take 2.3 times as long in the median; the standard deviation of their logarithm is 0.2, in spells.
    """
    generator = np.random.default_rng(0)
    own, spells = generator.normal(0.0, 0.14, seconds.shape), generator.normal(0.0, 0.14, seconds.shape)
    scatter = own + np.repeat(spells, 12)[: len(seconds)]
    return np.where((seconds >= 10.0) & (seconds < 30.0), 2.3 * np.exp(scatter), 1.0)


SCENARIOS = (
    Scenario("steady", "nothing happens", 30.0, np.ones_like),
    Scenario(
        "step",
        "load doubles after 5 s and is gone 20 s later",
        40.0,
        lambda t: np.where((t >= 5.0) & (t < 25.0), 2.0, 1.0),
        step_s=(5.0, 25.0),
    ),
    Scenario(
        "throttle",
        "speed falls by 30 % over 5 minutes and stays there for another (the paper's iPhone)",
        360.0,
        lambda t: 1.0 / (1.0 - 0.3 * np.minimum(t / 300.0, 1.0)),
    ),
    Scenario("bursts", "load doubles for half a second, every 4 s", 40.0, lambda t: np.where(t % 4.0 >= 3.5, 2.0, 1.0)),
    Scenario("hog", "another process keeps one of two cores busy from 10 to 30 s", 40.0, _under_cpu_load),
    Scenario(
        "stall", "one step in 150 takes ten times as long", 40.0, lambda t: 1.0 + 9.0 * (np.arange(len(t)) % 150 == 75)
    ),
)
