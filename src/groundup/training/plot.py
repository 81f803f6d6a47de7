"""The picture of a run: losses above, learning rate below."""

from pathlib import Path
from typing import Any

BLUE, ORANGE, GREY = "#0b6bcb", "#d9480f", "#868e96"


def plot_losses(lines: list[dict[str, Any]], path: Path, title: str) -> None:
    """Draw metrics.jsonl's `lines` to `path`, replaced in one step; nothing to draw leaves no file."""
    from matplotlib.figure import Figure  # matplotlib takes a third of a second: only who draws pays

    steps = [line for line in lines if line["kind"] == "step"]
    evaluations = [line for line in lines if line["kind"] == "evaluation"]
    if not steps:
        return
    figure = Figure(figsize=(8, 5.5), dpi=120, layout="constrained")
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=[4, 1])

    above.plot([line["step"] for line in steps], [line["loss"] for line in steps], color=BLUE, alpha=0.25, lw=0.8)
    measured = [line for line in evaluations if line["train_loss"] is not None]
    above.plot(
        [line["step"] for line in measured], [line["train_loss"] for line in measured], color=BLUE, label="training"
    )
    losses = [line["validation_loss"] for line in evaluations]
    above.plot([line["step"] for line in evaluations], losses, color=ORANGE, label="validation", marker="o", ms=3)
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

    below.plot([line["step"] for line in steps], [line["learning_rate"] for line in steps], color=GREY)
    below.set_ylabel("learning rate")
    below.set_ylim(bottom=0)
    below.set_xlabel("step")
    for axes in (above, below):
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(alpha=0.2)
    temporary = path.with_name(f".{path.name}")
    figure.savefig(temporary, format="png")
    temporary.replace(path)
