"""What a figure was measured on: it belongs beside every figure."""

import os
import platform
from importlib import metadata
from pathlib import Path

from sam2lite_core.evaluation.runs.team import Team

PACKAGES = ("numpy", "opencv-python-headless", "onnxruntime", "torch", "transformers")


def cpu_model() -> str:
    """Name of the processor as Linux gives it; the architecture elsewhere."""
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith(("model name", "Model")):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def usable_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def describe_machine() -> dict[str, str | int]:
    """Processor, cores, system and versions of what does the work."""
    facts: dict[str, str | int] = {
        "cpu": cpu_model(),
        "cores": usable_cores(),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
    }
    for package in PACKAGES:
        try:
            facts[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return facts


def describe_machines(team: Team) -> dict[str, str | int]:
    """The machine of the main process; with others in the team, how many processes, and every kind of processor."""
    machines = team.gather([describe_machine()])
    if team.count == 1:
        return machines[0]
    processors = " + ".join(dict.fromkeys(str(machine["cpu"]) for machine in machines))
    return {**machines[0], "cpu": processors, "processes": team.count}


def resident_mb() -> float:
    """Resident memory of this process, MB; Linux only.

    Raises:
        OSError: there is no /proc here.
    """
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6
