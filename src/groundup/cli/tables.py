"""The tables that `groundup recipes` and `groundup runs` print."""

import sys
from datetime import datetime

from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table

from groundup.errors import GroundupError
from groundup.evaluation.units import perplexity
from groundup.recipes.files import load_recipe, packaged, packaged_names
from groundup.recipes.schema import Recipe
from groundup.runs.folder import RunFolder, all_runs


def print_recipes() -> None:
    """Each packaged recipe in a line."""
    table = _table("recipe", "model", "parameters", "corpus", "time", "loss", "what")
    for name in packaged_names():
        recipe = load_recipe(packaged(name))
        table.add_row(
            name,
            *_model_of(recipe),
            recipe.data.corpus,
            recipe.about.time,
            recipe.about.loss,
            recipe.about.summary,
        )
    console = _console()
    console.print(table)
    console.print("Train one: groundup train NAME. Make it yours: groundup recipes NAME > my.toml")


def _model_of(recipe: Recipe) -> tuple[str, str]:
    """Its architecture and shape, and its parameters; or where it comes from."""
    model = recipe.model
    if recipe.train.init:
        return f"from {recipe.train.init}", "its own"
    shape = (
        ""
        if model.architecture == "bigram"
        else f" {model.n_layer} x {model.n_head} x {model.n_embd}"
    )
    return f"{model.architecture}{shape}", short_count(
        recipe.parameter_count(recipe.about.vocab_size)
    )


def print_runs() -> None:
    """The runs in this folder, the lowest validation loss first; runs without one come last."""
    console, rows, existing = _console(), [], all_runs()
    for run in existing:
        try:
            rows.append(_row(run))
        except GroundupError as error:  # one damaged run doesn't hide the others
            sys.stderr.write(f"groundup: {error}\n")
    rows.sort(key=lambda row: row[0])
    if not existing:
        console.print("no runs in this folder yet. Start one: groundup train")
        return
    table = _table(
        "run",
        "model",
        "parameters",
        "corpus",
        "steps",
        "best loss",
        "perplexity",
        "bits/byte",
        "started",
    )
    for _, cells in rows:
        table.add_row(*cells)
    console.print(table)


def _row(run: RunFolder) -> tuple[float, list[str]]:
    """A run's best validation loss, for sorting, and its cells."""
    recipe, lines, facts = run.read_recipe(), run.read_metrics(), run.read_facts()
    evaluations = [line for line in lines if line["kind"] == "evaluation" and line["step"] > 0]
    done = max((line["step"] for line in lines), default=0)
    lowest = min(evaluations, key=lambda line: line["validation_loss"], default={})
    best = lowest.get("validation_loss", float("inf"))
    cells = [
        run.name,
        recipe.model.architecture,
        short_count(facts["parameters"]),
        recipe.data.corpus,
        f"{done:,}" if done == recipe.train.steps else f"{done:,} of {recipe.train.steps:,}",
        f"{best:.4f}" if lowest else "-",
        f"{perplexity(best):.2f}" if lowest else "-",
        f"{lowest['bits_per_byte']:.3f}" if "bits_per_byte" in lowest else "-",
        datetime.fromisoformat(facts["started"]).astimezone().strftime("%Y-%m-%d %H:%M"),
    ]
    return best, cells


def short_count(number: int) -> str:
    """A count as people say it: 803 thousand is 803K, 10.7 million is 10.7M."""
    for size, letter in ((10**9, "B"), (10**6, "M"), (10**3, "K")):
        if number >= size:
            return f"{number / size:.3g}{letter}"
    return str(number)


def _table(*columns: str) -> Table:
    table = Table(box=SIMPLE, pad_edge=False)
    for column in columns:
        table.add_column(
            column,
            justify="right"
            if column in {"parameters", "best loss", "perplexity", "bits/byte"}
            else "left",
        )
    return table


def _console() -> Console:
    """The terminal as it is; a pipe gets lines as long as they need to be."""
    console = Console(highlight=False)
    return console if console.is_terminal else Console(highlight=False, width=200)
