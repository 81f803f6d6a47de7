"""The command `groundup ladder`: trains each rung from a bigram to the modern GPT."""

import re
from pathlib import Path
from typing import TYPE_CHECKING

import tomli_w

from groundup.console import duration, report, show_at_once
from groundup.errors import LadderError

if TYPE_CHECKING:
    from groundup.ladder.cells import Cell
    from groundup.ladder.climb import Plan

UNITS = {"": 1.0, "s": 1.0, "min": 60.0, "m": 60.0}


def ladder(
    *,
    budget: str = "15s",
    seeds: int = 3,
    corpus: str = "python-docs",
    out: Path = Path("ladder"),
    rungs: list[str] | None = None,
    sweep: bool = False,
    device: str = "auto",
    threads: int = 0,
) -> None:
    """Measure what each step from a bigram to the modern GPT buys, in two tables and a picture.

    It goes on where it was stopped. All rungs from three seeds, 15 seconds each, take less than
    half an hour on two cores.

    Args:
        budget: The training time of a rung and seed: 15s or 1min. Compiling isn't counted.
        seeds: The number of seeds from which each rung is trained.
        corpus: python-docs, shakespeare, or a file or folder of text.
        out: The folder for ladder.md, ladder.png and the finished cells.
        rungs: Only these rungs, a flag each: --rungs bigram --rungs "one head".
        sweep: Search the learning rates of the rungs, on a seed of its own, and write rates.toml.
        device: auto, cpu, cuda, cuda:1 or mps.
        threads: CPU threads; 0 takes the cores there are.
    """
    from groundup.ladder.climb import make_plan

    if threads < 0:
        raise LadderError(f"--threads {threads} is below 0: 0 takes the cores there are")
    if seeds < 1:
        raise LadderError(f"--seeds {seeds} is below 1: there is nothing to train")
    numbers, place = range(1, seeds + 1), {"device": device, "threads": threads}
    plan = make_plan(corpus, seconds_of(budget), numbers, rungs or (), **place)
    _sweep(plan, out) if sweep else _climb(plan, out)


def seconds_of(text: str) -> float:
    """Read a time such as 15s, 0.5s or 2min.

    Raises:
        LadderError: It is none.
    """
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*(s|min|m|)", text.strip())
    if found is None:
        raise LadderError(f"--budget {text} is no time. Write it as 15s or 1min")
    return float(found[1]) * UNITS[found[2]]


def _climb(plan: "Plan", out: Path) -> None:
    """Train what is missing, and write the tables and the picture."""
    from groundup.files import write_whole
    from groundup.ladder.climb import Climb
    from groundup.ladder.picture import draw
    from groundup.ladder.report import as_markdown, tables_of

    climb = Climb(plan, out)
    if climb.cells:
        report(f"{out} has {len(climb.cells)} finished cells: going on from them")
    for cell in climb.run():
        report(described(cell))
    tables = tables_of(plan, climb.cells)
    write_whole(out / "ladder.md", as_markdown(plan, tables))
    draw(tables, out / "ladder.png")
    written = f"{out / 'ladder.md'} and {out / 'ladder.png'}"
    show_at_once(f"{written} say what each rung bought.\n")


def described(cell: "Cell") -> str:
    """Say in a line what became of a cell."""
    speed = f"{cell.tokens_per_second:,.0f} tokens/s"
    length = f"{cell.tokens:,} tokens in {duration(cell.seconds)}"
    return f"{cell.rung}, seed {cell.seed}: loss {cell.loss:.4f} after {length}, {speed}"


def _sweep(plan: "Plan", out: Path) -> None:
    """Search the learning rates, and write them."""
    from groundup.files import write_whole
    from groundup.ladder.cells import Rates
    from groundup.ladder.sweep import sweep

    found: Rates = {}
    for name, rates, loss in sweep(plan, found):
        report(f"{name}: loss {loss:.4f} at {', '.join(f'{k} {v:g}' for k, v in rates.items())}")
    out.mkdir(parents=True, exist_ok=True)
    write_whole(out / "rates.toml", tomli_w.dumps(found))
    show_at_once(f"{out / 'rates.toml'} has the learning rates of {len(found)} rungs.\n")
