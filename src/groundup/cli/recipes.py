"""The command `groundup recipes`: lists the packaged recipes, or prints one."""

import sys

from groundup.console import plain_table, short_count, wide_console
from groundup.recipes.files import load_recipe, packaged, packaged_names, packaged_text
from groundup.recipes.schema import Recipe


def recipes(name: str | None = None, /) -> None:
    """List the recipes, or print one, ready to edit.

    Args:
        name: A recipe whose TOML to print: groundup recipes shakespeare > my.toml
    """
    if name is not None:
        sys.stdout.write(packaged_text(name))
        return
    table = plain_table("recipe", "model", "parameters", "corpus", "time", "loss", "what")
    table.columns[2].justify = "right"
    for known in packaged_names():
        recipe = load_recipe(packaged(known))
        about = recipe.about
        cells = (recipe.data.corpus, about.time, about.loss, about.summary)
        table.add_row(known, *_model_of(recipe), *cells)
    console = wide_console(width=200)
    console.print(table)
    console.print("Train one: groundup train NAME. Make it yours: groundup recipes NAME > my.toml")


def _model_of(recipe: Recipe) -> tuple[str, str]:
    """The architecture with its shape and the parameters, or the model that it starts from."""
    model = recipe.model
    if recipe.train.init:
        return f"from {recipe.train.init}", "its own"
    bigram = model.architecture == "bigram"
    shape = "" if bigram else f" {model.n_layer} x {model.n_head} x {model.n_embd}"
    parameters = recipe.parameter_count(recipe.about.vocab_size)
    return f"{model.architecture}{shape}", short_count(parameters)
