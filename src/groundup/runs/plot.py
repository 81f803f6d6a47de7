"""Draws a run's losses, accuracy at a task and learning rate, or the losses of two runs."""

from array import array
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from groundup.files import is_replaced, open_whole

if TYPE_CHECKING:
    from matplotlib.figure import Figure

AXES = {"tokens": "at equal tokens", "seconds": "at equal time"}
BLUE, ORANGE, GREEN, GREY = "#0b6bcb", "#d9480f", "#2b8a3e", "#868e96"

Lines = list[dict[str, Any]]  # of metrics.jsonl


@dataclass(frozen=True)
class RunCurves:
    """What the picture of a run shows; of each step only numbers are kept, for there may be many.

    Args:
        tasks: The title of each task that can score a run, by the task's name.
        steps, losses, learning_rates: A number for each step.
        evaluations, scored: The lines of metrics.jsonl with losses and with accuracies.
    """

    tasks: Mapping[str, str]
    steps: "array[int]" = field(default_factory=lambda: array("q"))
    losses: "array[float]" = field(default_factory=lambda: array("d"))
    learning_rates: "array[float]" = field(default_factory=lambda: array("d"))
    evaluations: Lines = field(default_factory=list)
    scored: Lines = field(default_factory=list)

    def add(self, lines: Iterable[dict[str, Any]]) -> "RunCurves":
        """Add lines of metrics.jsonl, and return these curves."""
        for line in lines:
            if line["kind"] == "step":
                self.steps.append(line["step"])
                self.losses.append(line["loss"])
                self.learning_rates.append(line["learning_rate"])
            elif line["kind"] == "evaluation":
                self.evaluations.append(line)
            elif line["kind"] in self.tasks:
                self.scored.append(line)
        return self


def plot_losses(curves: RunCurves, path: Path, title: str) -> None:
    """Draw what a run measured to a PNG file, which is replaced atomically.

    Nothing is drawn where no step is recorded yet.

    Args:
        curves: What the run measured.
        path: The file.
        title: The title of the picture.
    """
    if not curves.steps:
        return
    scored = curves.scored
    figure = _new_figure(8, 6.8 if scored else 5.5)
    above, *between, below = figure.subplots(
        3 if scored else 2, 1, sharex=True, height_ratios=[4, 1.4, 1] if scored else [4, 1]
    )
    above.plot(curves.steps, curves.losses, color=BLUE, alpha=0.25, lw=0.8)
    _plot_evaluations(curves.evaluations, above)
    above.set_ylabel("loss (nats a token)")
    above.set_title(title, loc="left")
    for axes in between:
        _plot_accuracy(scored, curves.tasks[scored[-1]["kind"]], axes)
    below.plot(curves.steps, curves.learning_rates, color=GREY)
    below.set_ylabel("learning rate")
    below.set_ylim(bottom=0)
    below.set_xlabel("step")
    _finish(figure, path)


def _column(lines: Lines, name: str) -> tuple[list[int], list[float]]:
    """The steps of some lines, and a field of each."""
    return [line["step"] for line in lines], [line[name] for line in lines]


def _plot_evaluations(evaluations: Lines, axes: Any) -> None:
    """The measured losses, and what the best one is."""
    measured = [line for line in evaluations if line["train_loss"] is not None]
    axes.plot(*_column(measured, "train_loss"), color=BLUE, label="training")
    validation = _column(evaluations, "validation_loss")
    axes.plot(*validation, color=ORANGE, label="validation", marker="o", ms=3)
    if learned := [line for line in evaluations if line["step"] > 0]:
        best = min(learned, key=lambda line: line["validation_loss"])
        axes.annotate(
            f"best {best['validation_loss']:.4f} at step {best['step']:,}",
            (best["step"], best["validation_loss"]),
            xytext=(-8, 24),
            textcoords="offset points",
            ha="right",
            color=ORANGE,
            arrowprops={"arrowstyle": "-", "color": ORANGE},
        )
        axes.legend(frameon=False)


def _plot_accuracy(scored: Lines, title: str, axes: Any) -> None:
    """A task's accuracy in percent with its interval, and what guessing gives."""
    last, steps = scored[-1], [line["step"] for line in scored]
    lows, highs = ([100 * line["interval"][end] for line in scored] for end in (0, 1))
    axes.fill_between(steps, lows, highs, color=GREEN, alpha=0.15, lw=0)
    axes.plot(steps, [100 * line["accuracy"] for line in scored], color=GREEN, marker="o", ms=3)
    chance = 100 * last.get("chance", 0.25)  # a line that leaves it out is of four endings
    axes.axhline(chance, color=GREY, lw=0.9, ls=(0, (4, 3)), zorder=0)
    axes.set_ylabel(f"{title} (%)")
    said = f"{last['convention']} {last['measure']}, {last['items']:,} items"
    axes.set_title(f"{said}; guessing: {chance:.3g}%", loc="right", fontsize="small", color=GREY)


@dataclass(frozen=True)
class Curve:
    """A run to draw: its name, and its evaluations, at least one of them after the first step."""

    name: str
    evaluations: Lines


def _new_figure(width: float, height: float) -> "Figure":
    """An empty figure, in inches, that shows names as they are."""
    # matplotlib takes a third of a second: only who draws pays
    from matplotlib import rcParams
    from matplotlib.figure import Figure

    rcParams["text.parse_math"] = False  # a name with two dollars is no formula
    return Figure(figsize=(width, height), dpi=120, layout="constrained")


def plot_two(
    first: Curve,
    second: Curve,
    path: Path,
    *,
    field: str,
    unit: str,
    marks: Mapping[str, float | None],
) -> None:
    """Draw a loss of two runs over tokens and over seconds of training.

    Args:
        first: A run.
        second: The other run.
        path: The PNG file, which is replaced atomically.
        field: Which loss: `validation_loss` or `bits_per_byte`.
        unit: The unit of that loss.
        marks: For `tokens` and `seconds`, the number at which both runs are compared, or None.

    Raises:
        OSError: The file can't be written.
    """
    figure = _new_figure(11, 4.8)
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


def _limits(curves: list[Curve], field: str) -> tuple[float, float]:
    """Limits for the losses after the first step, which the loss at the start would dwarf."""
    losses = [line[field] for curve in curves for line in curve.evaluations if line["step"]]
    low, high = min(losses), max(losses)
    margin = 0.08 * (high - low) or 0.05 * low or 1.0
    return low - margin, high + margin


def _finish(figure: Any, path: Path) -> None:
    """Give a figure the look that all have, and write its file, if it is one, in one step."""
    for axes in figure.axes:
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(alpha=0.2)
    with open_whole(path) if is_replaced(path) else path.open("wb") as file:
        figure.savefig(file, format="png")
