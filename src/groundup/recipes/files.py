"""Recipes from TOML and flags: strict keys, layer over layer; an error names the key, its place and
the remedy.
"""

import difflib
import re
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from importlib import resources
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

from groundup.errors import ConfigError, RecipeError
from groundup.models.config import adapted_matrices
from groundup.recipes.schema import (
    LENGTHS,
    OLDER_NAMES,
    OLDER_TASK,
    ONLY_MODERN,
    SECTIONS,
    LoraSection,
    Recipe,
    Tables,
    field_types,
)


@dataclass(frozen=True)
class Layer:
    """Values from one place: a packaged recipe, a file or the command line."""

    tables: Tables
    source: str
    text: str = ""
    older: dict[str, str] = field(default_factory=dict)

    def place(self, section: str, key: str) -> str:
        """Where a key stands, for an error: `my.toml:7`, or the flag."""
        key = self.older.get(key, key) if section == "eval" else key
        if not self.text:
            return f"--{section}.{key}".replace("_", "-") if not self.source else self.source
        current = ""
        for number, line in enumerate(self.text.splitlines(), 1):
            if header := re.match(r"\s*\[\s*(\w+)\s*\]", line):
                current = header[1]
            elif re.match(rf"""\s*["']?{re.escape(key)}["']?\s*=""", line) and current == section:
                return f"{self.source}:{number}"
        return self.source


def parse_toml(text: str, source: str) -> Layer:
    """TOML text -> values, its keys checked by name and type. Raises RecipeError."""
    try:
        tables = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise RecipeError(f"{source} is not valid TOML: {error}") from error
    layer = Layer(tables, source, text)
    known = [f"{name}.{other}" for name in SECTIONS for other in field_types(name)]
    for section, values in tables.items():
        if section in SECTIONS and not isinstance(values, dict):
            raise RecipeError(
                f"{section} = {values!r} ({layer.place('', section)}) must be a section: "
                f"[{section}]"
            )
        if not isinstance(values, dict):
            raise _unknown(section, layer.place("", section), known, "key")
        if section not in SECTIONS:
            raise _unknown(section, layer.source, list(SECTIONS), "section")
        for key, value in values.items():
            current = OLDER_NAMES.get(key, key) if section == "eval" else key
            if current not in field_types(section):
                raise _unknown(f"{section}.{key}", layer.place(section, key), known, "key")
            values[key] = _checked(value, section, key, layer, field_types(section)[current][0])
    return _with_current_names(layer)


def overrides(tables: Tables) -> Layer:
    """Values from the command line, already of their types (the parser saw to that), as the topmost
    layer.
    """
    return _with_current_names(Layer(tables, source=""))


def _with_current_names(layer: Layer) -> Layer:
    """Read keys under older names as the fields that they are now. Raises RecipeError."""
    values = dict(layer.tables.get("eval", {}))
    older = {new: old for old, new in OLDER_NAMES.items() if old in values}
    for new, old in older.items():
        task = values.get("task", OLDER_TASK)
        if new in values or task != OLDER_TASK:
            beside = f"eval.{new}" if new in values else f"eval.task = {task}"
            raise RecipeError(
                f"eval.{old} ({layer.place('eval', old)}) is the older name of eval.{new} with "
                f"eval.task = {OLDER_TASK}, and can't stand beside {beside}. Leave it out."
            )
        values[new] = values.pop(old)
    if not older:
        return layer
    tables = layer.tables | {"eval": values | {"task": OLDER_TASK}}
    return replace(layer, tables=tables, older=older)


def load_recipe(*layers: Layer | str | Path) -> Recipe:
    """Lay the layers over the defaults, the later ones on top, and check what they say together.

    Args:
        layers: Each a packaged recipe by its name, a file by its path (a `Path`, or a name that
            ends in .toml), or a layer.

    Raises:
        RecipeError: A recipe is missing, or a value is wrong or contradicts another.
    """
    return _combined([_layer(given) for given in layers])


def _layer(given: Layer | str | Path) -> Layer:
    if isinstance(given, Layer):
        return given
    if isinstance(given, Path) or given.endswith(".toml"):
        return recipe_file(Path(given))
    return packaged(given)


def _combined(layers: list[Layer]) -> Recipe:
    merged: Tables = {section: {} for section in SECTIONS}
    for layer in layers:
        for section, values in layer.tables.items():
            for below, key in _outdated(section, values):
                merged[below].pop(key, None)
            merged[section] |= values
    recipe = Recipe(**{section: SECTIONS[section](**values) for section, values in merged.items()})
    for section, key, complaint, remedy in _contradictions(recipe):
        source = next(
            (layer for layer in reversed(layers) if key in layer.tables.get(section, {})), None
        )
        place = f" ({source.place(section, key)})" if source else ""
        raise RecipeError(f"{section}.{complaint}{place}. {remedy}")
    return recipe


def model_to_start_from(*layers: Layer) -> str:
    """The `train.init` that the layers come to, as the topmost that has one says; empty without
    one.
    """
    given = (layer.tables.get("train", {}).get("init") for layer in reversed(layers))
    return next((name for name in given if name is not None), "")


def _outdated(section: str, values: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """What a layer takes back of those below it: another length, and what only their architecture
    could have.
    """
    if section == "train" and any(length in values for length in LENGTHS):
        yield from (("train", length) for length in LENGTHS)
    if section == "model" and values.get("architecture", "modern") != "modern":
        yield from (("model", key) for key in ONLY_MODERN)
    if section == "model" and values.get("architecture") == "bigram":
        yield "optim", "optimizer"


def packaged_names() -> list[str]:
    """The recipes that ship with the package, smallest first as the README introduces them."""
    order = ["quickstart", "bigram", "shakespeare-fast", "shakespeare-cpu", "shakespeare-best"]
    folder = resources.files("groundup.recipes")
    found = {Path(entry.name).stem for entry in folder.iterdir() if entry.name.endswith(".toml")}
    return sorted(
        found, key=lambda name: (order.index(name) if name in order else len(order), name)
    )


def packaged_text(name: str) -> str:
    """The TOML of a packaged recipe, comments included. Raises RecipeError."""
    if name.endswith(".toml"):
        raise RecipeError(f"{name} is a file: give it with --config {name}")
    if name not in packaged_names():
        raise _unknown(name, "", packaged_names(), "recipe")
    return (resources.files("groundup.recipes") / f"{name}.toml").read_text("utf-8")


def packaged(name: str) -> Layer:
    """A packaged recipe's values. Raises RecipeError."""
    return parse_toml(packaged_text(name), f"recipe {name}")


def recipe_file(path: Path) -> Layer:
    """A user's recipe file. Raises RecipeError."""
    try:
        return parse_toml(path.read_text("utf-8"), str(path))
    except FileNotFoundError:
        raise RecipeError(
            f"{path} doesn't exist. Write one with: groundup recipes quickstart > {path.name}"
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise RecipeError(f"{path} can't be read as a recipe: {error}") from error


def _unknown(name: str, place: str, known: list[str], kind: str) -> RecipeError:
    """An error for a name that doesn't exist, with the nearest one that does."""
    leaf = name.rpartition(".")[2]
    nearest = difflib.get_close_matches(name, known, n=1, cutoff=0.6) or [
        other for other in known if other.rpartition(".")[2] == leaf
    ]
    remedy = f"Did you mean {nearest[0]}?" if nearest else f"Known: {', '.join(known)}."
    return RecipeError(f"unknown {kind} {name}{f' ({place})' if place else ''}. {remedy}")


def _checked(value: Any, section: str, key: str, layer: Layer, expected: Any) -> Any:
    """The value in its field's type. Raises RecipeError."""
    if get_origin(expected) is Literal:
        if value in get_args(expected):
            return value
        wanted = "one of " + ", ".join(get_args(expected))
    elif get_origin(expected) is tuple:
        if isinstance(value, list) and len(value) == 2 and all(_is_number(part) for part in value):
            return tuple(float(part) for part in value)
        wanted = "two numbers, as in [0.9, 0.99]"
    elif expected is float:
        if _is_number(value):
            return float(value)
        wanted = "a number"
    else:
        if isinstance(value, expected) and not isinstance(value, bool):
            return value
        wanted = {int: "a whole number", str: "text in quotes"}[expected]
    raise RecipeError(
        f"{section}.{key} = {value!r} ({layer.place(section, key)}) must be {wanted}."
    )


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _contradictions(recipe: Recipe) -> Iterator[tuple[str, str, str, str]]:
    """What is wrong with a recipe whose types are right: (section, key, complaint, remedy)."""
    yield from _model_contradictions(recipe)
    yield from _lora_contradictions(recipe)
    given = [length for length in LENGTHS if getattr(recipe.train, length)]
    if len(given) != 1:
        said = (
            " and ".join(f"{length} = {getattr(recipe.train, length)}" for length in given)
            or "steps = 0"
        )
        one = given[-1] if given else "steps"
        yield (
            "train",
            one,
            f"{said} doesn't state one length",
            "Give one of steps, epochs and minutes.",
        )
    for section, key, low, high, remedy in _BOUNDS:
        value = getattr(getattr(recipe, section), key)
        if not low <= value <= high:
            yield section, key, f"{key} = {value} is outside [{low:g}, {high:g}]", remedy
    optim, micro, batch = recipe.optim, recipe.train.micro_batch_size, recipe.train.batch_size
    if optim.min_learning_rate > optim.learning_rate:
        said = (
            f"min_learning_rate = {optim.min_learning_rate:g} is above learning_rate = "
            f"{optim.learning_rate:g}"
        )
        yield "optim", "min_learning_rate", said, "The decay goes down: choose it lower."
    if not all(0.0 <= beta < 1.0 for beta in optim.betas):
        yield (
            "optim",
            "betas",
            f"betas = {list(optim.betas)} has a value outside [0, 1)",
            "The usual: 0.9, 0.99.",
        )
    if micro and batch % micro:
        said = f"micro_batch_size = {micro} doesn't divide batch_size = {batch}"
        yield (
            "train",
            "micro_batch_size",
            said,
            "Choose a divisor, or 0 for the whole batch at once.",
        )


def _model_contradictions(recipe: Recipe) -> Iterator[tuple[str, str, str, str]]:
    """What a model's architecture can't have or isn't trained with."""
    model = recipe.model
    try:
        recipe.model_config(vocab_size=1)
    except ConfigError as error:
        yield "model", error.field, error.complaint, error.remedy
    if model.architecture != "modern":
        for key in ONLY_MODERN:
            if (value := getattr(model, key)) != getattr(type(model), key):
                remedy = (
                    "Leave it out, or choose model.architecture = modern instead of "
                    f"{model.architecture}."
                )
                yield "model", key, f"{key} = {value} belongs to the modern model", remedy
    if model.architecture == "bigram" and recipe.optim.optimizer == "muon":
        said = "optimizer = muon is for the matrices of blocks, and a bigram has none"
        yield "optim", "optimizer", said, "Choose adamw."


def _lora_contradictions(recipe: Recipe) -> Iterator[tuple[str, str, str, str]]:
    """What adapters can't be put on, or aren't trained with."""
    rank, model = recipe.lora.rank, recipe.model
    if rank < 1:
        if recipe.lora.alpha != LoraSection().alpha:
            said = f"alpha = {recipe.lora.alpha:g} scales adapters, and lora.rank = 0 has none"
            yield "lora", "alpha", said, "Give --lora.rank 8, or leave it out."
        return
    if not recipe.train.init:
        said = f"rank = {rank} adapts a model that has learned, and train.init names none"
        yield "lora", "rank", said, "Give one: --init gpt2 for instance."
    if model.architecture not in ADAPTABLE:
        said = f"rank = {rank} is for {' and '.join(ADAPTABLE)}, not for {model.architecture}"
        yield "lora", "rank", said, "Leave it out to train the whole model."
        return
    narrowest = min(min(sides) for sides in adapted_matrices(recipe.model_config(vocab_size=1)))
    if rank > narrowest:
        said = (
            f"rank = {rank} is more than {narrowest}, the smaller side of the model's smallest "
            "matrix"
        )
        yield (
            "lora",
            "rank",
            said,
            f"An adapter of {narrowest} changes it in every way already: choose at most that.",
        )
    if recipe.optim.optimizer == "muon":
        said = (
            "optimizer = muon orthogonalises steps of whole matrices, not of the factors that "
            "lora.rank trains"
        )
        yield "optim", "optimizer", said, "Choose adamw."


ADAPTABLE = ("gpt2", "modern")  # models/lora.py
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
