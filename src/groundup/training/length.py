"""The length of a run in steps, where the recipe states the length in epochs or minutes."""

import json
import logging
import math
import statistics
from dataclasses import replace
from functools import partial

from groundup.checkpoints.lifecycle import publish, step_folder
from groundup.generation.settings import SamplingSettings
from groundup.generation.stream import write_text
from groundup.machine.timing import timed
from groundup.recipes.schema import Recipe
from groundup.runs.folder import scratch_folder
from groundup.training.costs import Costs, TimeBudget
from groundup.training.periodic import PeriodicEvaluation
from groundup.training.trainer import Trainer

WARMUP_STEPS, MEASURED_STEPS, MEASURED_SECONDS = 5, 15, 0.5  # at least both of each
SCORED_ITEMS = 64  # of a task, from which the time of all its items is computed

logger = logging.getLogger(__name__)


def steps_of_epochs(recipe: Recipe, windows_per_epoch: int) -> int:
    """Return the number of steps nearest to the recipe's number of epochs, at least one."""
    return max(1, round(recipe.train.epochs * windows_per_epoch / recipe.train.batch_size))


def set_length(trainer: Trainer, budget: TimeBudget | None, measures_minutes: bool) -> None:
    """Resolve the length of a trainer's run to steps.

    Args:
        trainer: The trainer, before its first step.
        budget: The time budget that a run to resume began with, which is over where its length was
            decided.
        measures_minutes: Whether a length in minutes is turned into steps, by timing some.
    """
    recipe = trainer.recipe
    if recipe.train.epochs:
        windows = trainer.loader.sampler.windows_per_epoch
        trainer.set_length(recipe.with_steps(steps_of_epochs(recipe, windows)))
    elif recipe.train.minutes and measures_minutes:
        trainer.budget = measure_budget(trainer, recipe.train.minutes)
        trainer.set_length(recipe.with_steps(trainer.budget.planned))
    elif budget:
        is_open = trainer.progress.step <= budget.review
        trainer.budget = budget if is_open else None
        steps = budget.planned if is_open else budget.decided or budget.planned
        trainer.set_length(recipe.with_steps(steps))


def measure_budget(trainer: Trainer, minutes: float) -> TimeBudget:
    """Measure how many steps fit into some minutes, and leave no trace in weights and optimizers.

    Args:
        trainer: A trainer for this measurement alone. Its model and its optimizers are put back as
            they were.
        minutes: The time of all steps, evaluations, samples, checkpoints and scores together.

    Returns:
        The time budget, the same on every process.
    """
    world = trainer.session.world
    before = {name: tensor.clone() for name, tensor in trainer.model.state_dict().items()}
    once = statistics.median(times_of_steps(trainer, WARMUP_STEPS))
    count = int(world.agree(str(max(MEASURED_STEPS, math.ceil(MEASURED_SECONDS / once)))))
    step_seconds = statistics.median(times_of_steps(trainer, count))
    budget = TimeBudget.of(60 * minutes, measure_reports(trainer, step_seconds))
    trainer.model.load_state_dict(before)
    for optimizer in trainer.optimizers:
        optimizer.state.clear()
    trainer.asked_to_stop = False  # the first step of the run sees the request again
    budget = TimeBudget.from_json(json.loads(world.agree(json.dumps(budget.to_json()))))
    once_more = f", decided once more after step {budget.review:,}" if budget.review else ""
    steps = f"{budget.planned:,} step{'' if budget.planned == 1 else 's'}"
    logger.info(f"{minutes:g} minutes on this machine are {steps}{once_more}")
    if (needed := budget.costs.whole(1)) > budget.seconds:
        logger.warning(f"they are too short: one step and its reports take {needed:.3g} seconds")
    return budget


def measure_reports(trainer: Trainer, step_seconds: float) -> Costs:
    """Measure what a run does besides its steps, each thing once.

    Args:
        trainer: A trainer that has done a step, so that its optimizers have their state.
        step_seconds: The seconds of a step.
    """
    device = trainer.machine.device
    with trainer.uncompiled():
        evaluation = timed(trainer.measure_losses, device)
        tasks = tuple(
            (seconds_of_scores(trainer, each), each.every) for each in trainer.evaluations
        )
        sample = checkpoint = 0.0
        if trainer.session.world.is_main:
            sample = timed(partial(write_sample, trainer), device)
            checkpoint = timed(partial(write_checkpoint, trainer), device)
    every = trainer.recipe.eval.every
    return Costs(step_seconds, evaluation, sample, checkpoint, every, tasks)


def seconds_of_scores(trainer: Trainer, evaluation: PeriodicEvaluation) -> float:
    """Compute the seconds of scoring the model on a task from those of some of its items."""
    requests = evaluation.requests
    some = requests[:: max(1, len(requests) // SCORED_ITEMS)]
    place = trainer.model, trainer.session.world, trainer.machine.reduction_device
    seconds = timed(partial(replace(evaluation, requests=some).run, *place), trainer.machine.device)
    return seconds * len(requests) / len(some)


def write_sample(trainer: Trainer) -> None:
    """Let the model write a sample as a run has them, which nobody sees."""
    if length := trainer.recipe.eval.sample_length:
        settings = SamplingSettings(length=length, seed=trainer.recipe.train.seed)
        tokenizer, start = trainer.dataset.tokenizer, trainer.dataset.document_start
        write_text(trainer.model, tokenizer, settings, document_start=start)


def write_checkpoint(trainer: Trainer) -> None:
    """Write a checkpoint where runs are written, and remove it."""
    with scratch_folder() as folder:
        publish(
            step_folder(folder, 0),
            lambda into: trainer.writer.write(
                into, trainer.model, trainer.optimizers, trainer.progress
            ),
            **{"best": False, "keep": 1, "protected": None},
        )


def times_of_steps(trainer: Trainer, count: int) -> list[float]:
    """Measure the seconds of so many steps, each on a batch of its own."""
    device = trainer.machine.device
    return [timed(partial(trainer.train_step, step), device) for step in range(count)]
