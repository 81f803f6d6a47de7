"""Loads the model that a run starts from or is resumed with, and reads its shape."""

import logging
import shlex
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from groundup.checkpoints.adapter_folder import base_of, config_file, is_adapter
from groundup.checkpoints.find import find_model
from groundup.checkpoints.layouts.config_json import read_config
from groundup.checkpoints.model_folder import LoadedModel, load_folder
from groundup.errors import RecipeError
from groundup.files import HERE
from groundup.recipes.files import Layer
from groundup.recipes.schema import Recipe, shape_of
from groundup.runs.folder import run_or_path

logger = logging.getLogger(__name__)


def shape_layer(name: str) -> Layer:
    """Return the shape of the model that `train.init` names, as a layer of the recipe.

    Raises:
        GroundupError: There is no such model.
    """
    shape = shape_of(*read_config(config_file(find_model(name))))
    return Layer({"model": shape}, f"the model {name}")


def initial_model(recipe: Recipe, folders: Sequence[Path] = HERE) -> LoadedModel | None:
    """Load what `train.init` names for a run that starts, or return None for random weights.

    The context and the dropout are the recipe's; a context longer than the model's is refused.

    Args:
        recipe: The recipe.
        folders: The folders that the name of a run and a path may be relative to.

    Returns:
        The model. Its `base` records it as the base of adapters that the run may train; the base
        is None for a model that consists of adapters itself.

    Raises:
        GroundupError: There is no such model, or the recipe can't start from it.
    """
    init = recipe.train.init
    if not init:
        return None
    place = run_or_path(init, folders)
    name = init if place == run_or_path(init) else str(place)
    folder, to_export = find_model(name), f"groundup export {shlex.quote(name)} --to folder"
    if recipe.lora.rank and is_adapter(folder):
        raise RecipeError(
            f"train.init = {init} is an adapter itself, and lora.rank = {recipe.lora.rank} would "
            f"put another on it. Merge it first: {to_export}"
        )
    section = recipe.model
    loaded = load_folder(folder, block_size=section.block_size, dropout=section.dropout)
    size = f"{loaded.architecture}, {loaded.parameters:,} parameters"
    logger.info(f"starting from {init}: {size}, in {folder}")
    base = None if is_adapter(folder) else base_of(init, folder, folders)
    if base and recipe.lora.rank and Path(base.place).is_absolute():
        logger.info(
            f"the adapters will need {base.place} as it is: training that model further can "
            f"remove it. A copy that stays: {to_export}"
        )
    return replace(loaded, base=base)


def resumed_model(folder: Path, recipe: Recipe) -> LoadedModel:
    """Load a verified checkpoint of the run, its adapters unmerged."""
    return load_folder(folder, not recipe.lora.rank)
