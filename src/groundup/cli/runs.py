"""The command `groundup runs`: lists the runs in this folder, the best validation loss first."""

import math
import sys
from datetime import datetime

from groundup.console import plain_table, short_count, wide_console
from groundup.errors import GroundupError
from groundup.evaluation.units import perplexity
from groundup.runs.changes import measured_alike
from groundup.runs.folder import MetricsReader, RunFolder, all_runs


def runs() -> None:
    """List the runs in this folder, the best validation loss first."""
    console, rows, existing = wide_console(width=200), [], all_runs()
    for run in existing:
        try:
            rows.append(_row(run))
        except GroundupError as error:  # one damaged run doesn't hide the others
            sys.stderr.write(f"groundup: {error}\n")
    if not existing:
        console.print("no runs in this folder yet. Start one: groundup train")
        return
    names = ("run", "model", "parameters", "corpus", "steps", "best loss", "perplexity")
    table = plain_table(*names, "bits/byte", "started")
    for place in (2, 5, 6, 7):
        table.columns[place].justify = "right"
    for _, cells in sorted(rows, key=lambda row: row[0]):  # runs without a loss come last
        table.add_row(*cells)
    console.print(table)


def _row(run: RunFolder) -> tuple[float, list[str]]:
    """A run's best validation loss, by which runs are sorted, and the cells of its row."""
    recipe, facts, done, evaluations = run.read_recipe(), run.read_facts(), 0, []
    for line in MetricsReader(run).new_lines():  # there may be too many to keep them all
        done = max(done, line["step"])
        if line["kind"] == "evaluation" and line["step"] > 0:
            evaluations.append(line)
    evaluations = measured_alike(evaluations, facts)
    lowest = min(evaluations, key=lambda line: line["validation_loss"], default={})
    best = lowest.get("validation_loss", math.inf)
    started = datetime.fromisoformat(facts["started"]).astimezone()
    return best, [
        run.name,
        recipe.model.architecture,
        short_count(facts["parameters"]),
        recipe.data.corpus,
        f"{done:,}" if done == recipe.train.steps else f"{done:,} of {recipe.train.steps:,}",
        f"{best:.4f}" if lowest else "-",
        f"{perplexity(best):.2f}" if lowest else "-",
        f"{lowest['bits_per_byte']:.3f}" if "bits_per_byte" in lowest else "-",
        started.strftime("%Y-%m-%d %H:%M"),
    ]
