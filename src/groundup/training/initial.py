"""The model that a run starts from or goes on with: its shape, which the recipe needn't repeat, and
its weights.
"""

from dataclasses import dataclass, field
from pathlib import Path

from groundup.checkpoints import model_folder
from groundup.checkpoints.adapter_folder import (
    Base,
    base_of,
    config_file,
    is_adapter,
    read_adapter,
    recorded_base,
)
from groundup.checkpoints.find import find_model
from groundup.checkpoints.layouts.config_json import read_config
from groundup.console import report
from groundup.errors import RecipeError
from groundup.models.lora import Adapter
from groundup.models.registry import Model, architecture_of, count_parameters
from groundup.recipes.files import Layer
from groundup.recipes.schema import Recipe, shape_of
from groundup.tokenizers.base import Tokenizer
from groundup.training.journal import Journal


@dataclass(frozen=True)
class Beginning:
    """A model with its tokenizer; without one, random weights.

    base: what `train.init` named, for a run that starts; in a checkpoint of adapters, what they are
    for. adapter: what they have become.
    """

    model: Model | None = None
    tokenizer: Tokenizer | None = None
    base: Base | None = None
    adapter: Adapter = field(default_factory=dict)


def shape_layer(name: str) -> Layer:
    """The shape of the model that `train.init` names, for below all other layers. Raises
    GroundupError.
    """
    folder = find_model(name, report)
    return Layer(
        {"model": shape_of(*read_config(config_file(folder, report)))}, f"the model {name}"
    )


def beginning_of(recipe: Recipe, journal: Journal) -> Beginning:
    """What `train.init` names, for a run that starts.

    Its context is the recipe's, which may be shorter and is refused where longer, and so is its
    dropout. Raises GroundupError.
    """
    init = recipe.train.init
    if not init:
        return Beginning()
    folder = find_model(init, journal.say)
    if recipe.lora.rank and is_adapter(folder):
        raise RecipeError(
            f"train.init = {init} is an adapter itself, and lora.rank = {recipe.lora.rank} would "
            f"put another on it. Merge it first: groundup export {init} --to folder"
        )
    section = recipe.model
    model, tokenizer = model_folder.load_found(
        folder, journal.say, block_size=section.block_size, dropout=section.dropout
    )
    parameters = count_parameters(model)
    journal.say(
        f"starting from {init}: {architecture_of(model)}, {parameters:,} parameters, in {folder}"
    )
    base = None if is_adapter(folder) else base_of(init, folder)
    if base and recipe.lora.rank and Path(base.place).is_absolute():
        journal.say(
            f"the adapters will need {base.place} as it is: training that model further can "
            f"remove it. A copy that stays: groundup export {init} --to folder"
        )
    return Beginning(model, tokenizer, base)


def going_on_from(folder: Path, recipe: Recipe, journal: Journal) -> Beginning:
    """What a checkpoint of the run holds, for one that is resumed. Raises GroundupError."""
    if not recipe.lora.rank:
        return Beginning(*model_folder.load_found(folder, journal.say))
    model = model_folder.load_base(folder, journal.say)
    adapter, _ = read_adapter(folder, model)
    return Beginning(
        model, model_folder.tokenizer_of(folder, model, journal.say), recorded_base(folder), adapter
    )
