"""The ladder's two tables, for a reader and for the picture."""

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from groundup.ladder.cells import Cell
from groundup.ladder.climb import SLOWED, Plan
from groundup.ladder.rungs import Rung

TITLES = {"time": "At equal time", "tokens": "At equal tokens"}


@dataclass(frozen=True)
class Row:
    """One rung in one table.

    Args:
        rung: The rung.
        losses: The validation loss of each seed, in nats a token, in the order of the seeds.
        change: The median loss minus that of the rung below; None for the first, and where one of
            the two diverged.
        tokens_per_second: The median speed of training.
        tokens: The median number of tokens that were learned from.
        parameters: The number of parameters.
        compile_seconds: The longest time that compiling took.
        is_slowed: Whether the machine was slower than usual in any of the cells.
        sample: What the model of the first seed wrote.
    """

    rung: Rung
    losses: tuple[float, ...]
    change: float | None
    tokens_per_second: float
    tokens: float
    parameters: int
    compile_seconds: float
    is_slowed: bool
    sample: str

    @property
    def median(self) -> float:
        """The median loss of the seeds."""
        return statistics.median(self.losses)


def rows_of(table: str, cells: Sequence[Cell], plan: Plan) -> list[Row]:
    """Return a row for each rung whose cells are all there.

    Args:
        table: `time` or `tokens`.
        cells: All cells that are done.
        plan: The rungs and seeds of the table.
    """
    rows, below = list[Row](), None
    for rung in plan.rungs:
        own = [
            cell
            for seed in plan.seeds
            for cell in cells
            if (cell.table, cell.rung, cell.seed) == (table, rung.name, seed)
        ]
        if len(own) < len(plan.seeds):
            continue
        losses = tuple(cell.loss for cell in own)
        median = statistics.median(losses)
        rows.append(
            Row(
                rung,
                losses,
                _change(below, median),
                statistics.median(cell.tokens_per_second for cell in own),
                statistics.median(cell.tokens for cell in own),
                own[0].parameters,
                max(cell.compile_seconds for cell in own),
                table == "time" and any(cell.slowdown > SLOWED for cell in own),
                own[0].sample,
            )
        )
        below = median
    return rows


def _change(below: float | None, median: float) -> float | None:
    if below is None or not (math.isfinite(below) and math.isfinite(median)):
        return None
    return median - below


def tables_of(plan: Plan, cells: Sequence[Cell]) -> dict[str, list[Row]]:
    """Return the rows of both tables."""
    return {table: rows_of(table, cells, plan) for table in TITLES}


def as_markdown(plan: Plan, tables: Mapping[str, Sequence[Row]]) -> str:
    """Write both tables, what each rung does, and a text of each, in Markdown."""
    seeds = ", ".join(map(str, plan.seeds))
    shape = plan.base.model
    lines = [
        "# The ladder: what each step from a bigram to the modern GPT buys",
        "",
        f"Made by `groundup ladder` on {plan.machine}. Corpus {plan.dataset.name}, "
        f"{shape.n_layer} blocks of width {shape.n_embd} with {shape.n_head} heads, "
        f"{shape.block_size} tokens of context, {plan.base.train.batch_size} texts a step, "
        f"seeds {seeds}. Losses are of the validation split, in nats a token; each is the median "
        "of the seeds, with the lowest and the highest beside it, and how it differs from the rung "
        "below.",
        "",
        "![The ladder](ladder.png)",
    ]
    for table, rows in tables.items():
        lines += ["", f"## {TITLES[table]}", "", _explained(table, plan, rows), ""]
        lines += _table(rows)
    lines += ["", "## The rungs, and what their models write at equal time", ""]
    for row in tables["time"]:
        text = " ".join(row.sample.split())
        lines += [f"- **{row.rung.name}.** {row.rung.sentence}", f"  `{text.replace('`', ' ')}`"]
    return "\n".join(lines) + "\n"


def _explained(table: str, plan: Plan, rows: Sequence[Row]) -> str:
    if table == "time":
        said = (
            f"Each rung trains for {plan.budget:g} seconds a seed; compiling isn't counted and has "
            "its own column."
        )
        if any(row.is_slowed for row in rows):
            said += (
                " In a row with an asterisk the machine was more than a tenth slower than usual, "
                "in at least one of the seeds."
            )
        return said
    tokens = f"{rows[0].tokens:,.0f}" if rows else "the same number of"
    return (
        f"Each rung learns from {tokens} tokens: as many as the slowest one in half the time. "
        "On one machine these losses repeat to the last bit."
    )


def _table(rows: Sequence[Row]) -> list[str]:
    lines = [
        "| rung | loss | lowest .. highest | change | tokens | tokens/s | parameters | compiling |",
        "|---|--:|--:|--:|--:|--:|--:|--:|",
    ]
    for row in rows:
        change = "" if row.change is None else f"{row.change:+.4f}"
        compiling = f"{row.compile_seconds:.0f} s" if row.compile_seconds else ""
        name = row.rung.name + ("\\*" if row.is_slowed else "")
        lines.append(
            f"| {name} | {row.median:.4f} | {min(row.losses):.4f} .. {max(row.losses):.4f} | "
            f"{change} | {row.tokens:,.0f} | {row.tokens_per_second:,.0f} | {row.parameters:,} | "
            f"{compiling} |"
        )
    return lines
