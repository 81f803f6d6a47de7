"""The length of a run in steps, where the recipe states the length in epochs or minutes."""

import logging
import statistics
import time
from collections.abc import Callable
from functools import partial

from groundup.recipes.schema import Recipe
from groundup.runs.records import steps_within
from groundup.training.trainer import Trainer

WARMUP_STEPS, MEASURED_STEPS = 5, 15

logger = logging.getLogger(__name__)


def steps_of_epochs(recipe: Recipe, windows_per_epoch: int) -> int:
    """Return the number of steps nearest to the recipe's number of epochs, at least one."""
    return max(1, round(recipe.train.epochs * windows_per_epoch / recipe.train.batch_size))


def measure_steps(trainer: Trainer, minutes: float) -> int:
    """Measure how many steps fit into some minutes, and leave no trace in weights and optimizers.

    Args:
        trainer: A trainer for this measurement alone. Its model and its optimizers are put back as
            they were.
        minutes: The time that all steps, evaluations and tasks together may take.

    Returns:
        The number of steps, the same on every process.
    """
    before = {name: tensor.clone() for name, tensor in trainer.model.state_dict().items()}
    times = [
        seconds_of(lambda step=step: trainer.train_step(step))
        for step in range(WARMUP_STEPS + MEASURED_STEPS)
    ]
    step_seconds, seconds = statistics.median(times[WARMUP_STEPS:]), 60 * minutes
    place = trainer.model, trainer.session.world, trainer.machine.reduction_device
    with trainer.uncompiled():
        evaluation_seconds = seconds_of(trainer.measure_losses)
        scorings = [
            (seconds_of(partial(evaluation.run, *place)), evaluation.every)
            for evaluation in trainer.evaluations
        ]
    trainer.model.load_state_dict(before)
    for optimizer in trainer.optimizers:
        optimizer.state.clear()
    for scoring_seconds, every in scorings:  # at both ends, and on the way
        seconds -= 2 * scoring_seconds
        step_seconds += scoring_seconds / every
    steps = steps_within(seconds, step_seconds, evaluation_seconds, trainer.recipe.eval.every)
    steps = int(trainer.session.world.agree(str(steps)))
    logger.info(f"{minutes:g} minutes on this machine are {steps:,} steps")
    return steps


def seconds_of(work: Callable[[], object]) -> float:
    """Measure the seconds that some work takes, by a monotonic clock."""
    started = time.perf_counter()
    work()
    return time.perf_counter() - started
