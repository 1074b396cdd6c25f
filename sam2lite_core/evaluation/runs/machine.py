"""Describe the machine that figures were measured on."""

import contextlib
import os
import platform
from importlib import metadata
from pathlib import Path

from sam2lite_core.evaluation.runs.team import Team

PACKAGES = ("numpy", "opencv-python-headless", "onnxruntime", "torch", "transformers")


def cpu_model() -> str:
    """Return the name of the processor as Linux gives it; the architecture elsewhere."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith(("model name", "Model")):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def usable_cores() -> int:
    """Count the cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def describe_machine() -> dict[str, str | int]:
    """Describe processor, cores, system and versions of the libraries."""
    facts: dict[str, str | int] = {
        "cpu": cpu_model(),
        "cores": usable_cores(),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
    }
    for package in PACKAGES:
        with contextlib.suppress(metadata.PackageNotFoundError):
            facts[package] = metadata.version(package)
    return facts


def describe_machines(team: Team) -> dict[str, str | int]:
    """Describe the main process's machine; of a team also the number of processes and all kinds of processor."""
    machines = team.gather([describe_machine()])
    if team.count == 1:
        return machines[0]
    processors = " + ".join(dict.fromkeys(str(machine["cpu"]) for machine in machines))
    return {**machines[0], "cpu": processors, "processes": team.count}


def resident_mb() -> float:
    """Return the resident memory of this process, MB; raise OSError where there is no /proc."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6
