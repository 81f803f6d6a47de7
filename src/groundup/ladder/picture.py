"""The picture of the ladder: the loss of each rung, at equal time and at equal tokens."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from groundup.files import open_whole
from groundup.ladder.report import TITLES, Row

BETTER, WORSE, GREY, SEED = "#2b8a3e", "#d9480f", "#868e96", "#0b6bcb"


def draw(tables: Mapping[str, Sequence[Row]], path: Path) -> None:
    """Draw the ladder to a PNG file, which is replaced at once.

    Each rung is a line, the first one lowest. A dot is a seed, and a bar the step from the median
    of the rung below to the rung's own.

    Args:
        tables: The rows of the tables `time` and `tokens`.
        path: The file.
    """
    # matplotlib takes a third of a second: only who draws pays
    from matplotlib.figure import Figure

    height = 1.6 + 0.34 * max(len(rows) for rows in tables.values())
    figure = Figure(figsize=(11, height), dpi=120, layout="constrained")
    panels = figure.subplots(1, 2, sharey=True)
    for axes, (table, rows) in zip(panels, tables.items(), strict=True):
        _draw_table(axes, rows)
        axes.set_title(TITLES[table], loc="left")
        axes.set_xlabel("validation loss (nats a token), lower is better")
        axes.spines[["top", "right", "left"]].set_visible(False)
        axes.tick_params(left=False)
        axes.grid(axis="x", color="#dee2e6", lw=0.7)
        axes.set_axisbelow(True)
    with open_whole(path) as file:
        figure.savefig(file, format="png")


def _draw_table(axes: Any, rows: Sequence[Row]) -> None:
    finite = [loss for row in rows for loss in row.losses if math.isfinite(loss)]
    low, high = min(finite, default=0.0), max(finite, default=1.0)
    span = max(high - low, 0.1)
    for place, row in enumerate(rows):
        colour = GREY
        if not math.isfinite(row.median):
            axes.text(high, place, "diverged", color=WORSE, va="center", ha="right", fontsize=8)
        if row.change is not None:
            shown, below = f"{row.change:+.3f}", row.median - row.change
            if float(shown):
                colour = BETTER if row.change < 0 else WORSE
            bar = {"lw": 5, "alpha": 0.35, "solid_capstyle": "butt"}
            axes.plot([below, row.median], [place, place], color=colour, **bar)
            beside = min(max(*row.losses, below), high) + 0.02 * span
            axes.text(beside, place, shown, color=colour, va="center", fontsize=8)
        axes.plot(row.losses, [place] * len(row.losses), "o", color=SEED, ms=3.5, alpha=0.6)
        axes.plot(row.median, place, "|", color=colour, ms=14, mew=2.2)
    axes.set_yticks(range(len(rows)), [row.rung.name for row in rows])
    axes.set_xlim(low - 0.05 * span, high + 0.14 * span)
