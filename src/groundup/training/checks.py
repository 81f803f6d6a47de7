"""Checks of what must hold before a run starts or is resumed."""

import logging
from dataclasses import asdict
from typing import Any

from groundup.checkpoints.adapter_folder import Base
from groundup.checkpoints.model_folder import LoadedModel, fits
from groundup.data.choice_items import possessive
from groundup.data.corpora import Corpus, fingerprint_of
from groundup.errors import RecipeError, RunError
from groundup.evaluation.task import TASKS
from groundup.models.config import ModelConfig, divisors
from groundup.parallel.world import World
from groundup.recipes.schema import Recipe
from groundup.runs.changes import since_when
from groundup.runs.folder import RunFolder
from groundup.tokenizers.base import Tokenizer
from groundup.training.periodic import PeriodicEvaluation
from groundup.training.trainer import Trainer

logger = logging.getLogger(__name__)

REMEDY = "Leave model.* out, as the recipe finetune does: its shape is then the model's"


def check_division(recipe: Recipe, world: World) -> None:
    """Check that every process gets the same share of every batch.

    Raises:
        RecipeError: The batch can't be divided by the processes and the micro-batches.
    """
    batch, micro = recipe.train.batch_size, recipe.train.micro_batch_size
    share, rest = divmod(batch, world.size)
    if rest or share % (micro or 1):
        what = f"{world.size} processes" + (f" x micro_batch_size = {micro}" if micro else "")
        remedy = f"Choose train.micro_batch_size from {', '.join(map(str, divisors(share)))}"
        if rest:
            *few, most = map(str, divisors(batch))
            remedy = f"Start {', '.join(few)} or {most} processes"
        raise RecipeError(f"train.batch_size = {batch} can't be divided by {what}. {remedy}")


def agreed_config(recipe: Recipe, tokenizer: Tokenizer, initial: LoadedModel | None) -> ModelConfig:
    """Make the config of the model that trains, and compare it with a model to start from.

    Args:
        recipe: The recipe.
        tokenizer: The tokenizer of the run; the vocabulary of a model may be padded beyond it.
        initial: The model to start from, or None.

    Raises:
        RecipeError: The recipe states another shape or architecture than the model has.
    """
    vocab_size, architecture = tokenizer.vocab_size, recipe.model.architecture
    if initial and fits(tokenizer, initial.model.config.vocab_size):
        vocab_size = initial.model.config.vocab_size
    config = recipe.model_config(vocab_size)
    if initial is None:
        return config
    if (found := initial.architecture) != architecture:
        raise RecipeError(
            f"model.architecture = {architecture}, but the model to start from is a {found}. "
            f"{REMEDY}"
        )
    compared = (
        {"block_size", "vocab_size"} if found == "bigram" else asdict(config).keys() - {"dropout"}
    )
    for field in sorted(compared):
        has, states = getattr(initial.model.config, field), getattr(config, field)
        if has != states:
            raise RecipeError(
                f"model.{field} = {states}, but the model to start from has {field} = {has}. "
                f"{REMEDY}"
            )
    return config


def check_incomplete(trainer: Trainer, run: RunFolder) -> None:
    """Check that a run to resume has something left to do.

    Raises:
        RunError: The run is finished.
    """
    if trainer.is_complete():
        steps, command = trainer.recipe.train.steps, trainer.session.world.command
        early = ", stopped early by eval.patience" if trainer.progress.stopped_early else ""
        raise RunError(
            f"{run.name} is finished: {trainer.progress.step:,} of {steps:,} steps{early}. To "
            f"train longer: {command} train --resume {run.argument} --steps {2 * steps}"
        )


def check_same_text(
    name: str, corpora: list[Corpus], facts: dict[str, Any], may_differ: bool
) -> None:
    """Check that a resumed run has the text that it had last.

    Args:
        name: What the recipe calls the text.
        corpora: The corpora as they are now.
        facts: The facts of the run, with the text that was accepted last.
        may_differ: Whether the user accepts another text.

    Raises:
        RunError: The text is another one, and the user doesn't accept that.
    """
    recorded, found = facts["corpus"]["fingerprint"], fingerprint_of(corpora)
    if recorded == found:
        return
    since = since_when(facts, "corpus")
    if not may_differ:
        before = facts["corpus"].get("parts", {})
        changed = [one.name for one in corpora if before.get(one.name) != one.fingerprint]
        name = changed[0] if len(corpora) > 1 and changed else name
        raise RunError(
            f"corpus {name} has changed since {since}: its SHA-256 is {found[:12]}... "
            f"instead of {recorded[:12]}.... Restore it, or go on with the new text: "
            "--accept-changed-data"
        )
    logger.info(
        f"the corpus has changed since {since} ({recorded[:12]}... to {found[:12]}...): "
        "going on as asked"
    )


def check_same_weights(base: Base | None, facts: dict[str, Any], recipe: Recipe) -> None:
    """Check that a run without a checkpoint begins again with the weights that it began with.

    Raises:
        RunError: The model that `train.init` names has other weights by now.
    """
    recorded = facts.get("init")
    if base is not None and recorded is not None and recorded != base.weights:
        raise RunError(
            f"the model {recipe.train.init} has other weights than when the run began, and the "
            "run has no checkpoint yet: put them back, or start a new run"
        )


def check_same_items(
    evaluations: list[PeriodicEvaluation], facts: dict[str, Any], may_differ: bool
) -> None:
    """Check that a resumed run is scored on the items that it had last.

    Raises:
        RunError: The items have changed, and the user doesn't accept that.
    """
    for task in (evaluation.task for evaluation in evaluations):
        recorded, found = (facts.get(task.name) or {}).get("sha256"), task.file.sha256
        if recorded is None or recorded == found:
            continue
        said = (
            f"{possessive(TASKS[task.name].title)} items have changed since "
            f"{since_when(facts, task.name)} (SHA-256 {recorded[:12]}... to {found[:12]}...)"
        )
        if not may_differ:
            raise RunError(
                f"{said}. Restore the file, or go on with the new ones: --accept-changed-data"
            )
        logger.info(f"{said}: going on as asked")


def check_same_processes(recipe: Recipe, facts: dict[str, Any], world: World) -> None:
    """Check that a resumed run has as many processes as before, or a model without dropout.

    With another number of processes the tokens and their order stay the same, but dropout is drawn
    from other random numbers.

    Raises:
        RunError: The number of processes has changed, and there is dropout.
    """
    if (before := facts["processes"]) == world.size:
        return
    if recipe.model.dropout:
        raise RunError(
            f"the run had {before} processes and can't go on with {world.size}: its dropout "
            f"({recipe.model.dropout}) is drawn by process. Resume it with {before}"
        )
    logger.info(
        f"the run had {before} processes and goes on with {world.size}: same tokens, other "
        "last bits"
    )
