"""Scales a recipe by its number of layers: width, heads, batch and learning rates go with it."""

import math
from typing import Any

from groundup.errors import RecipeError
from groundup.recipes.schema import Recipe, Tables


def scaled(recipe: Recipe, n_layer: int) -> Tables:
    """Scale a recipe to another depth, which is the number of layers.

    Width and heads grow with the depth; the width of a head stays. The batch grows with the depth
    too: a larger model still learns when a smaller one has stopped, and then larger batches pay.
    AdamW's learning rate is multiplied by the square root of the batch's growth (Malladi et al.
    2022) and divided by that of the width's growth. Muon's is multiplied by the first of these
    roots alone, because the length of its steps doesn't depend on the width. The recipe's limit to
    the micro-batch was for the unscaled model, and is removed: `groundup plan` finds a new one.

    Returns:
        The new values of the fields that change, by section and key.

    Raises:
        RecipeError: The depth is below 1, or the model has no layers.
    """
    if n_layer < 1:
        raise RecipeError(f"--size {n_layer} is below 1. Give a number of layers.")
    model, optim, batch_size = recipe.model, recipe.optim, recipe.train.batch_size
    if model.architecture == "bigram":
        raise RecipeError(f"--size {n_layer}: a bigram has no layers. Choose another recipe.")
    ratio = n_layer / model.n_layer
    sharing = model.n_head // model.n_kv_head if model.n_kv_head else 1
    n_head = sharing * max(1, round(model.n_head * ratio / sharing))
    n_embd = round(model.n_embd * n_head / model.n_head)
    batch = max(1, round(batch_size * ratio))
    noise, width = math.sqrt(batch / batch_size), math.sqrt(n_embd / model.n_embd)
    shape: dict[str, Any] = {"n_layer": n_layer, "n_head": n_head, "n_embd": n_embd}
    if model.n_kv_head:
        shape["n_kv_head"] = n_head // sharing
    if model.n_inner:
        shape["n_inner"] = max(1, round(model.n_inner * n_embd / model.n_embd))
    rates = {
        "learning_rate": optim.learning_rate * noise / width,
        "min_learning_rate": optim.min_learning_rate * noise / width,
        "muon_learning_rate": optim.muon_learning_rate * noise,
    }
    micro_batch = recipe.train.micro_batch_size if ratio == 1.0 else 0
    return {
        "model": shape,
        "optim": rates,
        "train": {"batch_size": batch, "micro_batch_size": micro_batch},
    }
