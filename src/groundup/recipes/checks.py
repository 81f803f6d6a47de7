"""Checks whether values of a recipe, which have the right types, are out of bounds or disagree."""

from collections.abc import Iterator
from typing import NamedTuple

from groundup.errors import ConfigError
from groundup.models.config import adapted_matrices
from groundup.recipes.schema import LENGTHS, ONLY_MODERN, LoraSection, Recipe


class Fault(NamedTuple):
    """What is wrong with a field, in words for the user.

    Attributes:
        section: The name of the field's section.
        key: The field's name.
        complaint: The field, its value, and what is wrong with the value.
        remedy: What the user can do.
    """

    section: str
    key: str
    complaint: str
    remedy: str


def faults(recipe: Recipe) -> Iterator[Fault]:
    """Find what is wrong with a recipe, the gravest first."""
    yield from _model_faults(recipe)
    yield from _lora_faults(recipe)
    for section, key in PATHS:
        value = getattr(getattr(recipe, section), key)
        if not value.isascii() and value != value.encode("utf-8", "replace").decode("utf-8"):
            said = f"{key} = {value!a} is no text in UTF-8, as a recipe is"
            yield Fault(section, key, said, "Rename the file, or give a folder above it.")
    optim, train = recipe.optim, recipe.train
    given = [length for length in LENGTHS if getattr(train, length)]
    if len(given) != 1:
        said = " and ".join(f"{length} = {getattr(train, length)}" for length in given)
        said = f"{said or 'steps = 0'} doesn't state one length"
        key = given[-1] if given else "steps"
        yield Fault("train", key, said, "Give one of steps, epochs and minutes.")
    for section, key, low, high, remedy in _BOUNDS:
        value = getattr(getattr(recipe, section), key)
        if not low <= value <= high:
            said = f"{key} = {value} is outside [{low:g}, {high:g}]"
            yield Fault(section, key, said, remedy)
    lowest, peak = optim.min_learning_rate, optim.learning_rate
    if lowest > peak:
        said = f"min_learning_rate = {lowest:g} is above learning_rate = {peak:g}"
        yield Fault("optim", "min_learning_rate", said, "The decay goes down: choose it lower.")
    if not all(0.0 <= beta < 1.0 for beta in optim.betas):
        said = f"betas = {list(optim.betas)} has a value outside [0, 1)"
        yield Fault("optim", "betas", said, "The usual: 0.9, 0.99.")
    micro, batch = train.micro_batch_size, train.batch_size
    if micro and batch % micro:
        said = f"micro_batch_size = {micro} doesn't divide batch_size = {batch}"
        remedy = "Choose a divisor, or 0 for the whole batch at once."
        yield Fault("train", "micro_batch_size", said, remedy)


def _model_faults(recipe: Recipe) -> Iterator[Fault]:
    """What a model's architecture can't have or isn't trained with."""
    model = recipe.model
    try:
        recipe.model_config(vocab_size=1)
    except ConfigError as error:
        yield Fault("model", error.field, error.complaint, error.remedy)
    for key in ONLY_MODERN if model.architecture != "modern" else ():
        if (value := getattr(model, key)) != getattr(type(model), key):
            remedy = (
                "Leave it out, or choose model.architecture = modern instead of "
                f"{model.architecture}."
            )
            yield Fault("model", key, f"{key} = {value} belongs to the modern model", remedy)
    if model.architecture == "bigram" and recipe.optim.optimizer == "muon":
        said = "optimizer = muon is for the matrices of blocks, and a bigram has none"
        yield Fault("optim", "optimizer", said, "Choose adamw.")


def _lora_faults(recipe: Recipe) -> Iterator[Fault]:
    """What adapters can't be put on, or aren't trained with."""
    rank, alpha, model = recipe.lora.rank, recipe.lora.alpha, recipe.model
    if rank < 1:
        if alpha != LoraSection().alpha:
            said = f"alpha = {alpha:g} scales adapters, and lora.rank = 0 has none"
            yield Fault("lora", "alpha", said, "Give --lora.rank 8, or leave it out.")
        return
    if not recipe.train.init:
        said = f"rank = {rank} adapts a model that has learned, and train.init names none"
        yield Fault("lora", "rank", said, "Give one: --init gpt2 for instance.")
    if model.architecture not in ADAPTABLE:
        said = f"rank = {rank} is for {' and '.join(ADAPTABLE)}, not for {model.architecture}"
        yield Fault("lora", "rank", said, "Leave it out to train the whole model.")
        return
    narrowest = min(min(sides) for sides in adapted_matrices(recipe.model_config(vocab_size=1)))
    if rank > narrowest:
        said = (
            f"rank = {rank} is more than {narrowest}, the smaller side of the model's smallest "
            "matrix"
        )
        remedy = f"An adapter of {narrowest} changes it in every way already: choose at most that."
        yield Fault("lora", "rank", said, remedy)
    if recipe.optim.optimizer == "muon":
        said = (
            "optimizer = muon orthogonalises steps of whole matrices, not of the factors that "
            "lora.rank trains"
        )
        yield Fault("optim", "optimizer", said, "Choose adamw.")


ADAPTABLE = ("gpt2", "modern")  # models/lora.py
PATHS = [("data", "corpus"), ("data", "validation_corpus"), ("data", "tokenizer")]
PATHS += [("train", "init"), ("eval", "task_file")]
_MANY = 2**31 - 1
_BOUNDS = [  # section, key, lowest, highest, remedy
    ("data", "validation_fraction", 1e-6, 0.9, "The usual: 0.1."),
    ("optim", "learning_rate", 1e-12, 1e30, "The usual: 1e-4 to 1e-2."),
    ("optim", "min_learning_rate", 0.0, 1e30, "The usual: a tenth of learning_rate."),
    ("optim", "muon_learning_rate", 1e-12, 1e30, "The usual: 0.02."),
    ("optim", "muon_momentum", 0.0, 0.9999, "The usual: 0.95."),
    ("optim", "decay_share", 1e-6, 1.0, "The usual: 0.2 to 0.7."),
    ("optim", "warmup_steps", 0, _MANY, "The usual: 100."),
    ("optim", "weight_decay", 0.0, 1e6, "The usual: 0.1."),
    ("optim", "clip_norm", 0.0, 1e30, "The usual: 1.0; 0 doesn't clip."),
    ("lora", "rank", 0, _MANY, "The usual: 8; 0 trains the whole model."),
    ("lora", "alpha", 1e-6, 1e6, "The usual: 16."),
    ("train", "steps", 0, _MANY, "Give a positive number of steps."),
    ("train", "epochs", 0.0, 1e9, "Give a positive number of epochs."),
    ("train", "minutes", 0.0, 1e6, "Give a positive number of minutes."),
    ("train", "batch_size", 1, _MANY, "The usual: 64."),
    ("train", "micro_batch_size", 0, _MANY, "0 takes the whole share of a process at once."),
    ("train", "seed", 0, 2**63 - 1, "Any whole number from 0 will do."),
    ("train", "threads", 0, 4096, "0 takes the cores there are."),
    ("train", "keep_checkpoints", 1, _MANY, "Keep at least 1, or a run can't be resumed."),
    ("eval", "every", 0, _MANY, "0 evaluates only at the end."),
    ("eval", "tokens", 0, _MANY, "0 takes the whole validation split."),
    ("eval", "train_tokens", 0, _MANY, "0 measures none."),
    ("eval", "patience", 0, _MANY, "0 never stops early."),
    ("eval", "sample_length", 0, _MANY, "0 writes no sample."),
    ("eval", "task_every", 0, _MANY, "0 never scores."),
    ("eval", "task_items", 0, _MANY, "The usual: 200; 0 takes all."),
]
