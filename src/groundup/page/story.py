"""What the page says of the run that a model came from."""

import re
import tomllib
from typing import Any

import tomli_w

from groundup.checkpoints.model_folder import LoadedModel
from groundup.export.model_card import model_card, without_folders
from groundup.recipes.schema import Recipe

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
        GroundupError: The records of the run are damaged.
    """
    run = loaded.run
    if run is None:
        return None
    facts, lines = run.read_facts(), run.read_metrics()
    kinds: dict[str, list[dict[str, Any]]] = {"step": [], "evaluation": []}
    for line in lines:
        kinds.setdefault(line["kind"], []).append(line)
    steps, evaluations = kinds.pop("step"), kinds.pop("evaluation")
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
            {"step": step, "loss": loss, "text": text} for step, loss, text in run.read_samples()
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
    return {name: line.get(name) for name in names}


def _thinned(lines: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return at most MOST_STEPS lines, evenly spaced, the last one among them."""
    every = -(-len(lines) // MOST_STEPS) or 1
    return lines[::-1][::every][::-1]
