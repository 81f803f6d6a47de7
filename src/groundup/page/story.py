"""What the page says of the run that a model came from."""

import math
import re
import tomllib
from typing import Any

import tomli_w

from groundup.checkpoints.model_folder import LoadedModel
from groundup.errors import GroundupError, RunError
from groundup.export.model_card import model_card, without_folders
from groundup.recipes.schema import Recipe
from groundup.runs.folder import RunFolder

ABSOLUTE = re.compile(r"(^|,)\s*(/|~|[A-Za-z]:[\\/])")  # the beginning of a path, in a list perhaps
MOST_STEPS = 400  # points of a curve
EVALUATION = "step", "tokens", "seconds", "train_loss", "validation_loss", "bits_per_byte"
STEP = "step", "tokens", "loss", "learning_rate", "tokens_per_second"
TASK = "step", "accuracy", "interval"


def run_story(loaded: LoadedModel) -> dict[str, Any] | None:
    """Return what is on record of a model's run, in a form that JSON can write, or None.

    Args:
        loaded: The model.

    Raises:
        RunError: The records of the run are damaged.
    """
    if (run := loaded.run) is None:
        return None
    try:
        return _story(loaded, run)
    except (KeyError, TypeError, ValueError, AttributeError, OSError) as error:
        if isinstance(error, GroundupError):
            raise
        what = f"{type(error).__name__}: {error}"
        raise RunError(f"the records in {run.path} aren't what groundup wrote: {what}") from error


def _story(loaded: LoadedModel, run: RunFolder) -> dict[str, Any]:
    """Return what is on record, where the records are whole."""
    facts, kinds = run.read_facts(), dict[str, list[dict[str, Any]]]()
    for line in run.read_metrics():
        kinds.setdefault(line["kind"], []).append(line)
    steps, evaluations = kinds.pop("step", []), kinds.pop("evaluation", [])
    tasks = [
        {"task": name, **_fields(line, TASK)}
        for name, found in kinds.items()
        for line in found
        if "accuracy" in line
    ]
    return {
        "name": run.name,
        "recipe": _without_paths(run.read_recipe()),
        "facts": {
            "parameters": facts["parameters"],
            "corpus": without_folders(facts["corpus"]["name"]),
            "started": facts["started"],
            "machine": facts.get("processor", ""),
        },
        "evaluations": [_fields(line, EVALUATION) for line in evaluations],
        "steps": [_fields(line, STEP) for line in _thinned(steps)],
        "tasks": tasks,
        "samples": [
            {"step": step, "loss": _finite(loss), "text": text}
            for step, loss, text in run.read_samples()
        ],
        "card": model_card(loaded, run.name, has_curve=False),
    }


def _without_paths(recipe: Recipe) -> str:
    """Return a recipe as TOML in which absolute paths are names: they are nobody's business."""
    tables = tomllib.loads(recipe.to_toml())
    for section in tables.values():
        for key, value in section.items():
            if isinstance(value, str) and ABSOLUTE.search(value):
                section[key] = without_folders(value.replace("\\", "/"))
    return tomli_w.dumps(tables)


def _fields(line: dict[str, Any], names: tuple[str, ...]) -> dict[str, Any]:
    return {name: _finite(line.get(name)) for name in names}


def _finite(value: Any) -> Any:
    """Return a value, or None for a number that JSON can't write."""
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _thinned(lines: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return at most MOST_STEPS lines, evenly spaced, the last one among them."""
    every = -(-len(lines) // MOST_STEPS) or 1
    return lines[::-1][::every][::-1]
