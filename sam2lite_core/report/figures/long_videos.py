"""Draw accuracy over minutes."""

from typing import Any

import numpy as np

COLOURS = {"learned": "#1f6fb4", "fifo": "#d2691e", "random": "#8a8f98", "uniform": "#3d9970"}


def draw(content: dict[str, Any]) -> Any:
    """Draw J&F by minute, all sequences' mean, then each sequence, as a matplotlib figure."""
    from matplotlib.figure import Figure

    summary, names = content["policies"], content["sequences"]
    figure = Figure(figsize=(3.2 * (len(names) + 1), 3.4), dpi=110, layout="constrained")
    panels = figure.subplots(1, len(names) + 1, sharey=True, squeeze=False)[0]
    for panel, name in zip(panels, ["mean", *names], strict=True):
        for policy, row in summary.items():
            values = row if name == "mean" else row["sequences"][name]
            minutes = 100.0 * np.array([values["first_pass"], *values["minutes"]])
            panel.plot(range(len(minutes)), minutes, marker="o", ms=4, label=policy, color=COLOURS.get(policy))
        panel.set_title(name, fontsize=10, loc="left")
        panel.set_xticks(range(len(minutes)), ["once", *map(str, range(1, len(minutes)))])
        panel.set_xlabel("minute")
        panel.grid(axis="y", alpha=0.3)
        panel.spines[["top", "right"]].set_visible(False)
    panels[0].set_ylabel("J&F, %")
    panels[0].legend(frameon=False, fontsize=8)
    return figure
