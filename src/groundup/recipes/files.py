"""Reads recipes from TOML and from flags, where later values override earlier ones.

An error names the key, where the key stands, and a remedy.
"""

import re
import shlex
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from importlib import resources
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

from groundup.errors import RecipeError, did_you_mean
from groundup.recipes.checks import faults
from groundup.recipes.schema import (
    LENGTHS,
    OLDER_NAMES,
    OLDER_TASK,
    ONLY_MODERN,
    SECTIONS,
    Recipe,
    Tables,
    field_types,
)


@dataclass(frozen=True)
class Layer:
    """Values of a recipe from one source: a packaged recipe, a file or the command line.

    Attributes:
        tables: The values by section and key.
        source: The source in words; empty for the command line.
        text: The TOML that the values were read from, or an empty text.
        older: The older name of each field of the section `eval` that was given by an older name.
    """

    tables: Tables
    source: str
    text: str = ""
    older: dict[str, str] = field(default_factory=dict)

    def place(self, section: str, key: str) -> str:
        """Say where a key stands, for an error: `my.toml:7`, or the flag."""
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
    """Read the values of a TOML text.

    Args:
        text: The text.
        source: Where it is from, in words.

    Raises:
        RecipeError: The text isn't TOML, a key isn't known, or a value has the wrong type.
    """
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
    """Make a `Layer` of values from the command line, whose parser has checked their types.

    Raises:
        RecipeError: A field was given by its older name and its present one, or an older name was
            given with another task than HellaSwag.
    """
    return _with_current_names(Layer(tables, source=""))


def _with_current_names(layer: Layer) -> Layer:
    """Read keys under older names as the fields that they are now."""
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
    """Make a recipe from values, of which later ones override earlier ones and defaults.

    Args:
        layers: The sources of the values in their order, each a packaged recipe by its name, a file
            by its path (a `Path`, or a name that ends in .toml), or a `Layer`.

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
    for section, key, complaint, remedy in faults(recipe):
        source = next(
            (layer for layer in reversed(layers) if key in layer.tables.get(section, {})), None
        )
        place = f" ({source.place(section, key)})" if source else ""
        raise RecipeError(f"{section}.{complaint}{place}. {remedy}")
    return recipe


def model_to_start_from(*layers: Layer) -> str:
    """Return the last `train.init` that a recipe's layers state, or an empty text without one."""
    given = (layer.tables.get("train", {}).get("init") for layer in reversed(layers))
    return next((name for name in given if name is not None), "")


def _outdated(section: str, values: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """What a layer takes back of those below: their length, what their architecture alone has."""
    if section == "train" and any(length in values for length in LENGTHS):
        yield from (("train", length) for length in LENGTHS)
    if section == "model" and values.get("architecture", "modern") != "modern":
        yield from (("model", key) for key in ONLY_MODERN)
    if section == "model" and values.get("architecture") == "bigram":
        yield "optim", "optimizer"


def packaged_names() -> list[str]:
    """List the packaged recipes: the README's first examples, and after them the rest by name."""
    order = ["quickstart", "bigram", "shakespeare-fast", "shakespeare-cpu", "shakespeare-best"]
    folder = resources.files("groundup.recipes")
    found = {Path(entry.name).stem for entry in folder.iterdir() if entry.name.endswith(".toml")}
    return sorted(
        found, key=lambda name: (order.index(name) if name in order else len(order), name)
    )


def packaged_text(name: str) -> str:
    """Read the TOML of a packaged recipe, comments included.

    Raises:
        RecipeError: There is no such recipe.
    """
    if name.endswith(".toml"):
        raise RecipeError(f"{name} is a file: give it with --config {shlex.quote(name)}")
    if name not in packaged_names():
        raise _unknown(name, "", packaged_names(), "recipe")
    return (resources.files("groundup.recipes") / f"{name}.toml").read_text("utf-8")


def packaged(name: str) -> Layer:
    """Read the values of a packaged recipe.

    Raises:
        RecipeError: There is no such recipe.
    """
    return parse_toml(packaged_text(name), f"recipe {name}")


def recipe_file(path: Path) -> Layer:
    """Read the values of a user's recipe file.

    Raises:
        RecipeError: The file can't be read, or isn't a recipe.
    """
    try:
        return parse_toml(path.read_text("utf-8"), str(path))
    except FileNotFoundError:
        place = shlex.quote(str(path if path.parent.is_dir() else path.name))
        raise RecipeError(
            f"{path} doesn't exist. Write one with: groundup recipes quickstart > {place}"
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise RecipeError(f"{path} can't be read as a recipe: {error}") from error


def _unknown(name: str, place: str, known: list[str], kind: str) -> RecipeError:
    """An error for a name that doesn't exist, with the nearest one that does."""
    where = f" ({place})" if place else ""
    return RecipeError(f"unknown {kind} {name}{where}. {did_you_mean(name, known)}")


def _checked(value: Any, section: str, key: str, layer: Layer, expected: Any) -> Any:
    """The value in its field's type, or an error that names it."""
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
