"""A run's length in steps, whatever it was given in. Minutes are measured once, and leave no trace
in the run.
"""

import statistics
import time
from typing import TYPE_CHECKING

from groundup.recipes.schema import Recipe
from groundup.runs.records import steps_within
from groundup.training.periodic import PeriodicEvaluation

if TYPE_CHECKING:
    from groundup.training.trainer import Trainer

WARMUP_STEPS, MEASURED_STEPS = 5, 15


def resolve_length(trainer: "Trainer") -> Recipe:
    """The trainer's recipe with its length in `steps`, the same on every process."""
    recipe = trainer.recipe
    if recipe.train.epochs:
        windows = recipe.train.epochs * trainer.batches.sampler.windows_per_epoch
        return recipe.with_steps(max(1, round(windows / recipe.train.batch_size)))
    if recipe.train.minutes:
        steps = int(
            trainer.world.agree(str(measure_steps_within(trainer, 60 * recipe.train.minutes)))
        )
        trainer.journal.say(f"{recipe.train.minutes:g} minutes on this machine are {steps:,} steps")
        return recipe.with_steps(steps)
    return recipe


def measure_steps_within(trainer: "Trainer", seconds: float) -> int:
    """The steps that fit into `seconds`, from a few steps and one evaluation whose effects are
    undone.
    """
    before = {name: tensor.clone() for name, tensor in trainer.model.state_dict().items()}
    times = []
    for step in range(WARMUP_STEPS + MEASURED_STEPS):
        started = time.perf_counter()
        trainer.train_step(step)
        times.append(time.perf_counter() - started)
    started = time.perf_counter()
    with trainer.uncompiled():
        trainer.measure_losses()
    evaluation_seconds = time.perf_counter() - started
    scorings = [(measure_scoring(trainer, each), each.every) for each in trainer.evaluations]
    trainer.model.load_state_dict(before)
    for optimizer in trainer.optimizers:
        optimizer.state.clear()
    # whoever asked meanwhile is heard again, and saved, after the first real step
    trainer.asked_to_stop = False
    section, step_seconds = trainer.recipe.eval, statistics.median(times[WARMUP_STEPS:])
    for scoring_seconds, every in scorings:  # at both ends, and on the way
        seconds -= 2 * scoring_seconds
        step_seconds += scoring_seconds / every
    return steps_within(seconds, step_seconds, evaluation_seconds, section.every)


def measure_scoring(trainer: "Trainer", evaluation: PeriodicEvaluation) -> float:
    """Measure the seconds that an evaluation on the way takes."""
    started = time.perf_counter()
    with trainer.uncompiled():
        evaluation.run(trainer.model, trainer.world, trainer.machine.reduction_device)
    return time.perf_counter() - started
