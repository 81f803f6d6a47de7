"""What a recipe will need on this machine, predicted from a few measured steps."""

import gc
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch

from groundup.console import messages_to
from groundup.data.dataset import Dataset
from groundup.machine import device as machines
from groundup.machine import memory
from groundup.machine.timing import timed
from groundup.models.config import largest_divisor
from groundup.models.registry import build_on_meta
from groundup.parallel.world import World
from groundup.profiling.bench import Bench, bench, describe_model
from groundup.profiling.operations import operations_per_token
from groundup.profiling.writing import HEADROOM, Writing, plan_writing
from groundup.recipes.schema import Recipe
from groundup.training.costs import Costs
from groundup.training.facts import parameter_counts
from groundup.training.length import measure_reports, steps_of_epochs
from groundup.training.periodic import PeriodicEvaluation
from groundup.training.session import Session
from groundup.training.setup import build_trainer, choose_machine
from groundup.training.trainer import Trainer

MEASURED_STEPS, MEASURED_SECONDS = 10, 0.5  # at least both
FEW = 4  # sequences that any machine should manage at once


@dataclass(frozen=True)
class Memory:
    """The bytes that training takes: those of the process on a CPU, of its tensors on a GPU.

    Attributes:
        fixed: The bytes of weights, gradients, optimizer states and the libraries.
        each: The bytes that every sequence of a forward pass adds.
        peak: The largest number of bytes in use at once.
        available: The bytes that this process could have in all.
        largest_micro_batch: The largest micro-batch that fits, up to the whole batch; 0 if not even
            one sequence does.
    """

    fixed: int
    each: int
    peak: int
    available: int
    largest_micro_batch: int


@dataclass(frozen=True)
class Time:
    """Times in seconds, without start-up and compilation.

    Attributes:
        step: The time of an optimizer step.
        evaluation: The time of measuring the losses.
        sample: The time of writing a sample.
        checkpoint: The time of writing a checkpoint.
        scores: The time of scoring the model on all tasks of the recipe.
        training: The time of all steps.
        total: The time of everything that the run does.
    """

    step: float
    evaluation: float
    sample: float
    checkpoint: float
    scores: float
    training: float
    total: float


@dataclass(frozen=True)
class Plan:
    """The time and memory that a run will need, and what they depend on.

    Attributes:
        model: The model in words.
        parameters: The number of the model's parameters, without adapters.
        operations_per_token: The number of floating-point operations that a token needs.
        machine: Device, precision, threads and compilation in words.
        micro_batch_size: The number of sequences of a forward pass.
        micro_steps: The number of forward passes of an optimizer step.
        tokens_per_step: The number of tokens of an optimizer step.
        steps: The length of the run in steps; 0 for one in minutes where the times aren't known.
        memory: The memory that the run needs.
        time: The time that the run takes; None where the run doesn't fit into the memory.
        writing: The memory that the trained model needs to write.
    """

    model: str
    parameters: int
    operations_per_token: float
    machine: str
    micro_batch_size: int
    micro_steps: int
    tokens_per_step: int
    steps: int
    memory: Memory
    time: Time | None
    writing: Writing


def plan(recipe: Recipe, dataset: Dataset, evaluations: Sequence[PeriodicEvaluation] = ()) -> Plan:
    """Predict the memory and the time that a recipe needs on this machine from a few steps.

    First steps with one sequence and with up to four are trained, which tell how the memory grows
    with the number of sequences. Then steps with a whole micro-batch are trained to measure the
    time, unless a micro-batch isn't expected to fit into the memory.

    Args:
        recipe: The recipe.
        dataset: What the recipe's model learns from, or random tokens.
        evaluations: The tasks on which the model will be scored while it trains.

    Raises:
        GroundupError: The recipe can't be trained here.
    """
    recipe, machine = choose_machine(recipe, dataset, World())
    rows = recipe.train.micro_batch_size or recipe.train.batch_size
    needed = probe(recipe, dataset, rows, machine.device)
    time = None
    if needed.peak <= HEADROOM * needed.available:
        trainer = one_pass(recipe, dataset, rows, recipe.train.compile, evaluations)
        trainer.train_step(0)  # compiles
        once = timed(lambda: trainer.train_step(1), machine.device)
        measured = bench(trainer, max(MEASURED_STEPS, int(MEASURED_SECONDS / once)))
        memory.forget_peak(machine.device)
        costs = measure_reports(trainer, step_seconds(recipe, trainer, measured))
        peak = max(measured.peak_memory, memory.peak(machine.device))
        each = max(0, peak - needed.fixed) // rows
        needed = memory_of(recipe, needed.fixed, each, peak, needed.available)
        steps = steps_of(recipe, trainer, costs)
        time = time_of(costs, steps)
    else:
        trainer = _quiet_pass(recipe, dataset, 1)
        steps = steps_of(recipe, trainer, None)
    compiled = ", compiled" if trainer.recipe.train.compile == "on" else ""
    architecture, config = recipe.model.architecture, trainer.model.config
    return Plan(
        model=describe_model(trainer),
        parameters=parameter_counts(trainer.model)["parameters"],
        operations_per_token=operations_per_token(architecture, config, recipe.lora.rank),
        machine=f"{machine.device}, {machine.precision}, {recipe.train.threads} threads{compiled}",
        micro_batch_size=rows,
        micro_steps=recipe.train.batch_size // rows,
        tokens_per_step=recipe.tokens_per_step,
        steps=steps,
        memory=needed,
        time=time,
        writing=plan_writing(build_on_meta(architecture, config), machine.device),
    )


def one_pass(
    recipe: Recipe,
    dataset: Dataset,
    rows: int,
    compiled: str,
    evaluations: Sequence[PeriodicEvaluation] = (),
) -> Trainer:
    """Build a trainer of the recipe whose steps are one forward pass of `rows` sequences each."""
    train = replace(recipe.train, batch_size=rows, micro_batch_size=rows, compile=compiled)
    place = replace(recipe, train=train), dataset, Session(), None, evaluations
    return build_trainer(*place, measures_minutes=False)


def _quiet_pass(recipe: Recipe, dataset: Dataset, rows: int) -> Trainer:
    """The same, not compiled and without messages."""
    with messages_to(lambda text: None):
        return one_pass(recipe, dataset, rows, "off")


def probe(recipe: Recipe, dataset: Dataset, rows: int, device: torch.device) -> Memory:
    """Predict the memory of `rows` sequences at once from that of one and of up to four."""
    available, few = memory.available(device), min(rows, FEW)
    one = peak_of_steps(_quiet_pass(recipe, dataset, 1))  # gone before the next one is built
    more = peak_of_steps(_quiet_pass(recipe, dataset, few)) if few > 1 else one
    each = max(0, more - one) // max(1, few - 1)
    peak = max(one, more, one + (rows - 1) * each)
    return memory_of(recipe, max(0, one - each), each, peak, available)


def peak_of_steps(trainer: Trainer) -> int:
    """Measure the largest number of bytes in use at once in a trainer's first two steps.

    The second step has optimizer states from its start.
    """
    gc.collect()
    machines.give_back_memory()
    memory.forget_peak(trainer.machine.device)
    for step in range(2):
        trainer.train_step(step)
    return memory.peak(trainer.machine.device)


def memory_of(recipe: Recipe, fixed: int, each: int, peak: int, available: int) -> Memory:
    """Make a `Memory` from numbers of bytes, and find the largest micro-batch that fits."""
    fitting = (HEADROOM * available - fixed) / max(1, each)
    return Memory(fixed, each, peak, available, largest_divisor(recipe.train.batch_size, fitting))


def step_seconds(recipe: Recipe, trainer: Trainer, measured: Bench) -> float:
    """Predict the seconds of a step from those of a step with a single forward pass.

    Every further micro-step repeats all parts of a step except the update.

    Args:
        recipe: The recipe of the run.
        trainer: The trainer that was measured, whose steps are one forward pass each.
        measured: The times of the trainer's steps.
    """
    further = recipe.train.batch_size // trainer.recipe.train.batch_size - 1
    repeated = sum(measured.phases[phase] for phase in ("data", "forward", "backward"))
    return measured.step_seconds + further * repeated


def time_of(costs: Costs, steps: int) -> Time:
    """Predict the times of a run of so many steps from what its parts cost."""
    scores = sum(seconds for seconds, _ in costs.tasks)
    parts = costs.step, costs.evaluation, costs.sample, costs.checkpoint, scores
    return Time(*parts, training=steps * costs.step, total=costs.whole(steps))


def steps_of(recipe: Recipe, trainer: Trainer, costs: Costs | None) -> int:
    """Return a run's length in steps; 0 for a length in minutes if the costs aren't known."""
    section = recipe.train
    if section.epochs:
        return steps_of_epochs(recipe, trainer.loader.sampler.windows_per_epoch)
    if section.minutes and costs:
        return costs.steps_within(60 * section.minutes)
    return section.steps
