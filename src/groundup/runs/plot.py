"""The picture of a run, losses above and learning rate below; and that of two runs, side by
side.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

AXES = {"tokens": "at equal tokens", "seconds": "at equal time"}
BLUE, ORANGE, GREEN, GREY = "#0b6bcb", "#d9480f", "#2b8a3e", "#868e96"


def plot_losses(lines: list[dict[str, Any]], path: Path, title: str) -> None:
    """Draw metrics.jsonl's `lines` to `path`, replaced in one step; nothing to draw leaves
    no file.
    """
    # matplotlib takes a third of a second: only who draws pays
    from matplotlib.figure import Figure

    steps = [line for line in lines if line["kind"] == "step"]
    evaluations = [line for line in lines if line["kind"] == "evaluation"]
    if not steps:
        return
    scored = [line for line in lines if line["kind"] == "hellaswag"]
    figure = Figure(figsize=(8, 6.8 if scored else 5.5), dpi=120, layout="constrained")
    above, *between, below = figure.subplots(
        3 if scored else 2, 1, sharex=True, height_ratios=[4, 1.4, 1] if scored else [4, 1]
    )

    above.plot(
        [line["step"] for line in steps],
        [line["loss"] for line in steps],
        color=BLUE,
        alpha=0.25,
        lw=0.8,
    )
    measured = [line for line in evaluations if line["train_loss"] is not None]
    above.plot(
        [line["step"] for line in measured],
        [line["train_loss"] for line in measured],
        color=BLUE,
        label="training",
    )
    losses = [line["validation_loss"] for line in evaluations]
    above.plot(
        [line["step"] for line in evaluations],
        losses,
        color=ORANGE,
        label="validation",
        marker="o",
        ms=3,
    )
    if learned := [line for line in evaluations if line["step"] > 0]:
        best = min(learned, key=lambda line: line["validation_loss"])
        above.annotate(
            f"best {best['validation_loss']:.4f} at step {best['step']:,}",
            (best["step"], best["validation_loss"]),
            xytext=(-8, 24),
            textcoords="offset points",
            ha="right",
            color=ORANGE,
            arrowprops={"arrowstyle": "-", "color": ORANGE},
        )
        above.legend(frameon=False)
    above.set_ylabel("loss (nats a token)")
    above.set_title(title, loc="left")

    for axes in between:
        _plot_accuracy(scored, axes)
    below.plot(
        [line["step"] for line in steps], [line["learning_rate"] for line in steps], color=GREY
    )
    below.set_ylabel("learning rate")
    below.set_ylim(bottom=0)
    below.set_xlabel("step")
    _finish(figure, path)


@dataclass(frozen=True)
class Curve:
    """A run to draw: its evaluations, of which one comes after its first step."""

    name: str
    evaluations: list[dict[str, Any]]


def plot_two(
    first: Curve,
    second: Curve,
    path: Path,
    *,
    field: str,
    unit: str,
    marks: Mapping[str, float | None],
) -> None:
    """Draw `field` of two runs over tokens and over seconds of training to `path`.

    marks: for either axis, where both are compared. Raises OSError.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 4.8), dpi=120, layout="constrained")
    panels = figure.subplots(1, 2, sharey=True)
    for axes, (axis, title) in zip(panels, AXES.items(), strict=True):
        for curve, colour in ((first, BLUE), (second, ORANGE)):
            lines = curve.evaluations
            best = min((line for line in lines if line["step"]), key=lambda line: line[field])
            label = f"{curve.name}, best {best[field]:.4f}"
            places, losses = [line[axis] for line in lines], [line[field] for line in lines]
            axes.plot(places, losses, color=colour, label=label, marker="o", ms=3, alpha=0.9)
            axes.plot(best[axis], best[field], color=colour, marker="o", ms=8, mfc="none", mew=1.4)
        if (mark := marks[axis]) is not None:
            axes.axvline(mark, color=GREY, lw=0.9, ls=(0, (4, 3)), zorder=0)
        axes.set_xlabel("tokens" if axis == "tokens" else "seconds of training")
        axes.set_xlim(left=0)
        axes.xaxis.set_major_formatter(lambda value, _: _short(value))
        axes.set_title(title, loc="left")
    panels[0].set_ylabel(f"validation loss ({unit})")
    panels[0].set_ylim(*_limits([first, second], field))
    panels[1].legend(frameon=False)
    _finish(figure, path)


def _short(number: float) -> str:
    """A number on an axis: 150K for 150,000."""
    for size, letter in ((10**9, "B"), (10**6, "M"), (10**3, "K")):
        if number >= size:
            return f"{number / size:g}{letter}"
    return f"{number:g}"


def _plot_accuracy(scored: list[dict[str, Any]], axes: Any) -> None:
    """HellaSwag's accuracy in percent with its interval, and what guessing gives."""
    steps, name = (
        [line["step"] for line in scored],
        f"{scored[-1]['convention']} {scored[-1]['measure']}",
    )
    lows, highs = ([100 * line["interval"][end] for line in scored] for end in (0, 1))
    axes.fill_between(steps, lows, highs, color=GREEN, alpha=0.15, lw=0)
    axes.plot(steps, [100 * line["accuracy"] for line in scored], color=GREEN, marker="o", ms=3)
    axes.axhline(25, color=GREY, lw=0.9, ls=(0, (4, 3)), zorder=0)
    axes.set_ylabel("HellaSwag (%)")
    axes.set_title(
        f"{name}, {scored[-1]['items']:,} items; guessing: 25%",
        loc="right",
        fontsize="small",
        color=GREY,
    )


def _limits(curves: list[Curve], field: str) -> tuple[float, float]:
    """The losses after the first step, with a margin: where a run starts from would press all else
    together.
    """
    losses = [line[field] for curve in curves for line in curve.evaluations if line["step"]]
    low, high = min(losses), max(losses)
    margin = 0.08 * (high - low) or 0.05 * low or 1.0
    return low - margin, high + margin


def _finish(figure: Any, path: Path) -> None:
    """The house's look, and the file, replaced in one step."""
    for axes in figure.axes:
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(alpha=0.2)
    temporary = path.with_name(f".{path.name}")
    figure.savefig(temporary, format="png")
    temporary.replace(path)
