"""The facts of a run, which its recipe can't know, and what has changed since the run began.

`run.json` holds both. The facts are those of now. The list `changes` says from which step on
something was another one than before, so that what held at any step can be told.
"""

import platform
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

import groundup
from groundup.checkpoints.adapter_folder import Base
from groundup.machine.device import processor
from groundup.models.lora import adapter_of
from groundup.models.registry import Model, count_parameters
from groundup.recipes.schema import Recipe, differences
from groundup.runs.changes import last_change
from groundup.training.trainer import Trainer

# Fields that belong to the machine, and that a resumed run may have otherwise.
OF_THE_MACHINE = ("train.threads", "train.device", "train.compile", "train.micro_batch_size")


def may_change(field: str, recipe: Recipe) -> bool:
    """Return whether a resumed run may have another value of a field than it began with."""
    if field == "train.micro_batch_size" and recipe.model.dropout:  # another mask each
        return False
    return field == "train.steps" or field in OF_THE_MACHINE


def parameter_counts(model: Model) -> dict[str, int]:
    """Count a model's parameters and those that train.

    With adapters only the adapters train. Adapters aren't counted among the model's parameters,
    because a model into which they are merged has no more parameters than before.
    """
    everything = count_parameters(model)
    adapters = sum(tensor.numel() for tensor in adapter_of(model).values())
    return {"parameters": everything - adapters, "trained_parameters": adapters or everything}


def versions() -> dict[str, str]:
    """Return what decides the last bits of a run's numbers besides its recipe, text and device."""
    return {
        "groundup": groundup.__version__,
        "torch": torch.__version__,
        "machine": platform.machine(),
        "python": platform.python_version(),
    }


def facts_now(trainer: Trainer) -> dict[str, Any]:
    """Collect the facts of a run that can be others when it is resumed."""
    dataset = trainer.dataset
    facts: dict[str, Any] = {
        **parameter_counts(trainer.model),
        "vocab_size": dataset.tokenizer.vocab_size,
        "corpus": {
            "name": dataset.name,
            "fingerprint": dataset.fingerprint,
            "validation": dataset.validation_fingerprint,
            "training_tokens": dataset.training_tokens,
            "validation_tokens": dataset.validation_tokens,
            "parts": {part.name: part.fingerprint for part in dataset.parts},
        },
        "processes": trainer.session.world.size,
        "versions": versions(),
        "processor": processor(trainer.machine.device),
    }
    for evaluation in trainer.evaluations:
        facts[evaluation.task.name] = {"sha256": evaluation.task.file.sha256}
    return facts


def facts_of(trainer: Trainer, began_with: Base | None) -> dict[str, Any]:
    """Collect what `run.json` states of a run that starts.

    Args:
        trainer: The trainer of the run.
        began_with: The model that the run starts from, or None.
    """
    facts = {
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        **facts_now(trainer),
        "folder": str(Path.cwd()),
    }
    if trainer.budget:
        facts["time_budget"] = trainer.budget.to_json()
    if began_with:
        facts["init"] = began_with.weights
    return facts


def with_changes(
    facts: dict[str, Any], recorded: Recipe, trainer: Trainer
) -> tuple[dict[str, Any], list[str]]:
    """Bring the facts of a resumed run up to date, with a list of all changes.

    A change that was recorded at a later step than the one that is resumed holds from here on.
    Another validation text makes the run forget its best loss.

    Args:
        facts: The facts as they were recorded.
        recorded: The recipe as it was recorded.
        trainer: The trainer of the resumed run.

    Returns:
        The facts of now, and the new changes in words.
    """
    now, step, said = facts_now(trainer), trainer.progress.step, list[str]()
    if trainer.budget:  # the length is still to be decided, or was decided at a later step
        recorded = recorded.with_steps(trainer.recipe.train.steps)
    changes = [each | {"step": min(each["step"], step)} for each in facts.get("changes", [])]
    time = datetime.now(UTC).isoformat(timespec="seconds")
    for what, was, is_now in _found(facts, now, recorded, trainer.recipe):
        changes.append({"step": step, "time": time, "what": what, "was": was, "is": is_now})
        said += _described(what, was, is_now, step)
    facts = facts | now | ({"changes": changes} if changes else {})
    text_changed = last_change(facts, "corpus") is not None
    if trainer.progress.is_of_another_text(trainer.dataset.validation_fingerprint, text_changed):
        trainer.progress.forget_best()
        said.append("the best loss is looked for anew: the validation text is another one")
    return facts, said


def _found(
    facts: dict[str, Any], now: dict[str, Any], recorded: Recipe, recipe: Recipe
) -> Iterator[tuple[str, Any, Any]]:
    """What has changed: its name, what was recorded and what is now."""
    for name in filter(facts.__contains__, now):  # older runs record less
        before, after = facts[name], now[name]
        identity = "fingerprint" if name == "corpus" else None
        if (before[identity] != after[identity]) if identity else (before != after):
            yield name, before, after
    for field, before, after in differences(recorded, recipe):
        if may_change(field, recipe):
            yield field, before, after


def _described(what: str, was: Any, is_now: Any, step: int) -> Iterator[str]:
    """What to say of a change that nothing else has said."""
    may_differ = "numbers may differ in the last bits"
    if what in OF_THE_MACHINE:
        yield (
            f"{what} {was} -> {is_now}: from step {step:,} on the run equals no unbroken run bit "
            "for bit, because its numbers differ in the last bits"
        )
    if what == "processor":
        yield f"the processor is {is_now}, and was {was} before: {may_differ}"
    for name in ("groundup", "torch", "machine") if what == "versions" else ():
        if was.get(name) != is_now[name]:
            yield f"{name} is {is_now[name]}, and was {was.get(name)} before: {may_differ}"
