"""The model that a run starts from: its shape, which the recipe needn't repeat, and its weights."""

from groundup import model_folder
from groundup.layouts.config_file import CONFIG_FILE, read_config
from groundup.models.catalogue import Model, architecture_of
from groundup.notices import report
from groundup.pretrained import find_model
from groundup.recipe import Recipe, shape_of
from groundup.recipe_files import Layer
from groundup.tokenizers.base import Tokenizer
from groundup.training.journal import Journal


def shape_layer(name: str) -> Layer:
    """The shape of the model that `train.init` names, for below all other layers. Raises GroundupError."""
    folder = find_model(name, report)
    return Layer({"model": shape_of(*read_config(folder / CONFIG_FILE))}, f"the model {name}")


def initial_model(recipe: Recipe, journal: Journal) -> tuple[Model | None, Tokenizer | None]:
    """The model that `train.init` names, with its tokenizer; none where the run starts from random weights.

    Its context is the recipe's, which may be shorter and is refused where longer, and so is its dropout.
    Raises GroundupError.
    """
    if not recipe.train.init:
        return None, None
    folder = find_model(recipe.train.init, journal.say)
    section = recipe.model
    model, tokenizer = model_folder.load(folder, journal.say, block_size=section.block_size, dropout=section.dropout)
    parameters = sum(parameter.numel() for parameter in model.parameters())
    journal.say(f"starting from {recipe.train.init}: {architecture_of(model)}, {parameters:,} parameters, in {folder}")
    return model, tokenizer
