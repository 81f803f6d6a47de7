"""What the page says of the run that a model came from."""

from typing import Any

from groundup.checkpoints.model_folder import LoadedModel
from groundup.export.model_card import model_card
from groundup.runs.folder import RECIPE_FILE

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
        "recipe": (run.path / RECIPE_FILE).read_text("utf-8"),
        "facts": {
            "parameters": facts["parameters"],
            "corpus": facts["corpus"]["name"],
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


def _fields(line: dict[str, Any], names: tuple[str, ...]) -> dict[str, Any]:
    return {name: line.get(name) for name in names}


def _thinned(lines: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return at most MOST_STEPS lines, evenly spaced, the last one among them."""
    every = -(-len(lines) // MOST_STEPS) or 1
    return lines[::-1][::every][::-1]
