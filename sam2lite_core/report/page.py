"""Render the sections into one HTML file that needs no other."""

import importlib.util
from collections.abc import Sequence
from pathlib import Path

from sam2lite_core import __version__
from sam2lite_core.errors import ConfigurationError
from sam2lite_core.files import write_atomically
from sam2lite_core.report.inputs import Inputs, read_inputs


def write_report(
    folders: Sequence[Path], out: Path, title: str = "SAM2-Lite report", deadline_ms: float = 50.0
) -> Inputs:
    """Make a report of folders that hold results at any depth, or JSON files; the deadline is drawn into a plot.

    Raises:
        ConfigurationError: Jinja2 or matplotlib is not installed, or the deadline is not positive.
        SourceError: a folder or file is missing or has nothing to show, a result is damaged, or the page cannot be
            written.
    """
    missing = [name for name in ("jinja2", "matplotlib") if importlib.util.find_spec(name) is None]
    if missing:
        raise ConfigurationError(f"a report needs {' and '.join(missing)}: pip install 'sam2lite[report]'")
    if not deadline_ms > 0:
        raise ConfigurationError(f"deadline {deadline_ms} ms is not positive")
    inputs = read_inputs(folders)
    write_atomically(out, render(inputs, title, deadline_ms).encode())
    return inputs


def what_was_found(inputs: Inputs) -> list[str]:
    """Count the results of each kind, in words; kinds without any are left out."""
    kinds = (
        (len(inputs.runs), "evaluation", ""),
        (len(inputs.policies), "table", " of policies"),
        (len(inputs.bags), "bag", ""),
        (len(inputs.benches), "measurement", " of speed"),
        (len(inputs.figures), "picture", " of the memory"),
    )
    return [counted(number, thing) + of_what for number, thing, of_what in kinds if number]


def counted(number: int, thing: str) -> str:
    """Write a number and what it counts, as in `1 bag` and `2 bags`."""
    return f"{number} {thing}{'' if number == 1 else 's'}"


def render(inputs: Inputs, title: str, deadline_ms: float) -> str:
    """Render the page as text."""
    import jinja2

    from sam2lite_core.report.sections import make_sections

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    measured = [run.evaluation.machine for run in inputs.runs if run.evaluation.machine]
    measured += [bench["machine"] for bench in inputs.benches.values()]
    measured += [bag.machine for bag in inputs.bags.values()]
    machines = dict.fromkeys(f"{machine['cpu']}, {counted(machine['cores'], 'core')}" for machine in measured)
    facts = "; ".join([*what_was_found(inputs), *machines])
    page = environment.get_template("page.html").render(
        title=title, facts=facts, sections=make_sections(inputs, deadline_ms), version=__version__
    )
    return page + "\n"
