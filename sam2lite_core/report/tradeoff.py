"""Draw accuracy against cost (the paper's figure 4): energy where it was measured, time everywhere.

A run takes its energy from a `sam2lite bench` of the same machine and tracker. Nothing is estimated.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sam2lite_core.errors import UnknownVariantError
from sam2lite_core.report import plots
from sam2lite_core.report.inputs import Inputs, Run
from sam2lite_core.report.views import BENCH, EVAL, Picture, Section, TableView, number, per_cent, scored
from sam2lite_core.variants import DEFAULT_POLICY, get_variant

TITLE = "Accuracy against energy or time"


@dataclass(frozen=True)
class StepEnergy:
    """Energy of a step that follows one object, mJ, summed over the named meters, and the name of the measurement."""

    millijoules: float
    meters: tuple[str, ...]
    bench: str


def measured_energy(run: Run, benches: Mapping[str, Mapping[str, Any]]) -> StepEnergy | None:
    """Find the energy of a step of this run's tracker in the first measurement of the same, or None.

    The same: processor and cores, variant, backend and scale, at the default policy and budget.
    """
    if not _as_measured(run.tracker):
        return None
    machine = run.evaluation.machine
    for name, bench in benches.items():
        if any(bench["machine"].get(key) != machine.get(key) for key in ("cpu", "cores")):
            continue
        rows = [row for row in bench["latency"] if row.get("energy_mj") and _same_model(row, run.tracker)]
        if len({row.get("backend") for row in rows}) == 1:  # of several, nobody knows which one auto was
            energy: Mapping[str, float] = rows[0]["energy_mj"]
            return StepEnergy(sum(energy.values()), tuple(energy), name)
    return None


def _as_measured(tracker: Mapping[str, Any]) -> bool:
    """Tell if a run has the policy and budget that `sam2lite bench` measures."""
    if tracker.get("memory_policy") != DEFAULT_POLICY or tracker.get("scale") is None:
        return False
    try:
        own = get_variant(tracker["variant"]).memory_budget
    except UnknownVariantError:
        return False
    return tracker.get("memory_budget") in (None, own)


def _same_model(row: Mapping[str, Any], tracker: Mapping[str, Any]) -> bool:
    """Tell if a row is of the tracker's model with one object; evaluations leave precision to the backend."""
    return (
        row["objects"] == 1
        and (row["variant"], row["scale"]) == (tracker["variant"], tracker["scale"])
        and tracker.get("backend") in ("auto", row.get("backend"))
        and row.get("precision", "auto") == "auto"
    )


def tradeoff(inputs: Inputs) -> Section:
    """Draw accuracy against energy (a plot a set of meters) where there is one, against time for all."""
    runs = [run for run in scored(inputs) if run.evaluation.mean_ms]
    if not runs:
        return Section("tradeoff", TITLE, missing=f"No scored evaluation with times: {EVAL}")
    energies = {run.name: measured_energy(run, inputs.benches) for run in runs}
    pictures = []
    for protocol in dict.fromkeys(run.evaluation.protocol for run in runs):
        chosen = [run for run in runs if run.evaluation.protocol == protocol]
        pictures += _energy_pictures(protocol, chosen, energies)
        times = [(run, run.evaluation.mean_ms or 0.0) for run in chosen]
        alt = f"J&F against the mean step time, {protocol}, a point a run"
        pictures.append(Picture(plots.accuracy_against(times, "mean step, ms"), alt, f"{protocol}, against time"))
    table = _table(runs, energies) if any(energies.values()) else None
    note = "" if table else f"Against time. Energy: {_why_no_energy(inputs)}"
    return Section("tradeoff", TITLE, [table] if table else [], pictures, note=note)


def _energy_pictures(protocol: str, runs: list[Run], energies: Mapping[str, StepEnergy | None]) -> list[Picture]:
    """Draw a plot a set of meters: what one counts, another may not."""
    groups: dict[tuple[str, ...], list[tuple[Run, float]]] = {}
    for run in runs:
        energy = energies[run.name]
        if energy is not None:
            groups.setdefault(energy.meters, []).append((run, energy.millijoules))
    alt = f"J&F against the energy of a step, {protocol}, a point a run"
    title = f"{protocol}, against energy, measured with"
    return [
        Picture(plots.accuracy_against(points, "energy of a step, mJ"), alt, f"{title} {' + '.join(meters)}")
        for meters, points in groups.items()
    ]


def _table(runs: list[Run], energies: Mapping[str, StepEnergy | None]) -> TableView:
    """Tabulate accuracy, time and energy of every run."""
    rows = []
    for run in runs:
        energy = energies[run.name]
        cells = ("–", "–") if energy is None else (number(energy.millijoules), " + ".join(energy.meters))
        source = "–" if energy is None else energy.bench
        rows.append((run.name, per_cent(run.evaluation.jf), number(run.evaluation.mean_ms), *cells, source))
    caption = (
        "Energy of a step with one object, idle power included, from sam2lite bench on the same processor with the "
        "same variant, backend and scale, at the default policy and budget; a dash where none was measured."
    )
    return TableView(("run", "J&F", "step ms", "step mJ", "meters", "bench"), rows, caption)


def _why_no_energy(inputs: Inputs) -> str:
    """Say why no run has a figure."""
    if any(row.get("energy_mj") for bench in inputs.benches.values() for row in bench["latency"]):
        return "no run has the processor, variant, backend and scale of a measurement, at the default policy and budget"
    said = [bench["energy"] for bench in inputs.benches.values() if "energy" in bench]
    return said[0] if said else f"not measured; {BENCH} does, on machines that count it"
