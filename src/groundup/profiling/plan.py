"""`groundup plan`: what a recipe will need on this machine, from a few measured steps."""

import gc
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from rich.table import Table

from groundup.console import messages_to, show
from groundup.data.dataset import Dataset, make_dataset
from groundup.errors import RecipeError
from groundup.machine import device as machines
from groundup.machine import memory
from groundup.parallel.world import World
from groundup.profiling.bench import Bench, bench, describe_model, timed
from groundup.profiling.operations import operations_per_token
from groundup.profiling.synthetic import alone, synthetic_text
from groundup.recipes.schema import Recipe
from groundup.runs.records import steps_within
from groundup.training.failures import explain_out_of_memory
from groundup.training.initial import initial_model
from groundup.training.journal import Journal, MainJournal
from groundup.training.session import choose_tokenizer, read_corpora
from groundup.training.setup import assemble, choose_machine, parameter_counts
from groundup.training.trainer import Trainer

MEASURED_STEPS, MEASURED_SECONDS = 10, 0.5  # at least both
FEW = 4  # sequences that any machine should manage at once
HEADROOM = 0.9  # of the available memory, that a run may fill


@dataclass(frozen=True)
class Memory:
    """Bytes of the process (on a CPU) or of its tensors (on a GPU) while it trains."""

    fixed: int  # weights, gradients, optimizer states and the libraries
    each: int  # that every sequence of a forward pass adds
    peak: int
    available: int
    largest_micro_batch: int  # that fits, up to the whole batch; 0: not even one


@dataclass(frozen=True)
class Time:
    """Seconds of wall time, without start-up and compilation."""

    step: float
    evaluation: float
    training: float  # of all steps
    total: float  # with the evaluations


@dataclass(frozen=True)
class Plan:
    """What a run will need."""

    model: str
    parameters: int
    operations_per_token: float
    machine: str
    micro_batch_size: int
    micro_steps: int
    tokens_per_step: int
    steps: int
    memory: Memory
    time: Time | None  # None where it doesn't fit


def print_plan(recipe: Recipe, vocab_size: int, as_json: bool) -> None:
    """Measure and predict: a table, or one JSON object. Raises GroundupError."""
    journal = Journal() if as_json else MainJournal()
    if vocab_size and recipe.train.epochs:
        raise RecipeError(
            "train.epochs are passes over a corpus, and --vocab-size is for none: give --steps"
        )
    with messages_to(journal.say), explain_out_of_memory(recipe):
        if vocab_size:
            text = synthetic_text(recipe, vocab_size)
        else:
            begun = initial_model(recipe)
            tokenizer = begun and begun.tokenizer
            around, here = alone(journal), Path.cwd()
            corpora = read_corpora(recipe.data.corpus, here, around)
            tokenizer = choose_tokenizer(recipe, tokenizer, corpora, here, around)
            text = make_dataset(corpora, recipe, tokenizer)
        result = plan(recipe, text, journal)
    show(result, table_of(result), as_json)


def plan(recipe: Recipe, text: Dataset, journal: Journal) -> Plan:
    """Measure one sequence and a few; then, if all should fit, a few steps and an evaluation of the
    recipe's.
    """
    recipe, machine = choose_machine(recipe, text, World())
    rows = recipe.train.micro_batch_size or recipe.train.batch_size
    needed = probe(recipe, text, rows, machine.device)
    time = None
    if needed.peak <= HEADROOM * needed.available:
        trainer = one_pass(recipe, text, rows, recipe.train.compile, journal)
        trainer.train_step(0)  # compiles
        once = timed(trainer, lambda: trainer.train_step(1))
        measured = bench(trainer, max(MEASURED_STEPS, int(MEASURED_SECONDS / once)))
        memory.forget_peak(trainer.machine.device)
        with trainer.uncompiled():
            evaluation = timed(trainer, trainer.measure_losses)
        peak = max(measured.peak_memory, memory.peak(trainer.machine.device))
        needed = memory_of(
            recipe, needed.fixed, max(0, peak - needed.fixed) // rows, peak, needed.available
        )
        time = time_of(recipe, trainer, measured, evaluation)
    else:
        trainer = one_pass(recipe, text, 1, "off", Journal())
    steps = steps_of(recipe, trainer, time)
    return Plan(
        model=describe_model(trainer),
        parameters=parameter_counts(trainer.model)["parameters"],
        operations_per_token=operations_per_token(
            recipe.model.architecture, trainer.model.config, recipe.lora.rank
        ),
        machine=(
            f"{trainer.machine.device}, {trainer.machine.precision}, {recipe.train.threads} threads"
        )
        + (", compiled" if trainer.recipe.train.compile == "on" else ""),
        micro_batch_size=rows,
        micro_steps=recipe.train.batch_size // rows,
        tokens_per_step=recipe.tokens_per_step,
        steps=steps,
        memory=needed,
        time=time,
    )


def one_pass(recipe: Recipe, text: Dataset, rows: int, compiled: str, journal: Journal) -> Trainer:
    """The recipe's trainer with a step of one forward pass of `rows` sequences."""
    train = replace(recipe.train, batch_size=rows, micro_batch_size=rows, compile=compiled)
    return assemble(replace(recipe, train=train), text, None, alone(journal))


def probe(recipe: Recipe, text: Dataset, rows: int, device: torch.device) -> Memory:
    """What `rows` sequences should need by what one and a few need, not compiled, each trainer gone
    before the next.
    """
    available, few = memory.available(device), min(rows, FEW)
    one = peak_of_steps(one_pass(recipe, text, 1, "off", Journal()))
    more = peak_of_steps(one_pass(recipe, text, few, "off", Journal())) if few > 1 else one
    each = max(0, more - one) // max(1, few - 1)
    return memory_of(
        recipe, max(0, one - each), each, max(one, more, one + (rows - 1) * each), available
    )


def peak_of_steps(trainer: Trainer) -> int:
    """Bytes at the highest of two steps: in the second there are optimizer states from the
    start.
    """
    gc.collect()
    machines.give_back_memory()
    memory.forget_peak(trainer.machine.device)
    for step in range(2):
        trainer.train_step(step)
    return memory.peak(trainer.machine.device)


def memory_of(recipe: Recipe, fixed: int, each: int, peak: int, available: int) -> Memory:
    """The largest micro-batch is the largest divisor of the batch whose sequences fit beside what
    is fixed.
    """
    fitting = (HEADROOM * available - fixed) / max(1, each)
    batch = recipe.train.batch_size
    largest = max(
        (rows for rows in range(1, batch + 1) if batch % rows == 0 and rows <= fitting), default=0
    )
    return Memory(fixed, each, peak, available, largest)


def time_of(recipe: Recipe, trainer: Trainer, measured: Bench, evaluation: float) -> Time:
    """The measured step has one forward pass; every further micro-step repeats all but the
    update.
    """
    further = recipe.train.batch_size // trainer.recipe.train.batch_size - 1
    repeated = sum(measured.phases[phase] for phase in ("data", "forward", "backward"))
    step = measured.step_seconds + further * repeated
    steps = steps_of(recipe, trainer, Time(step, evaluation, 0.0, 0.0))
    every = recipe.eval.every
    evaluations = 1 + bool(every) + ((steps - 1) // every if every else 0)
    return Time(step, evaluation, steps * step, steps * step + evaluations * evaluation)


def steps_of(recipe: Recipe, trainer: Trainer, time: Time | None) -> int:
    """The length in steps; of a recipe in minutes that doesn't fit, 0: nobody can know."""
    if recipe.train.epochs:
        return max(
            1,
            round(
                recipe.train.epochs
                * trainer.batches.sampler.windows_per_epoch
                / recipe.train.batch_size
            ),
        )
    if recipe.train.minutes:
        return (
            steps_within(60 * recipe.train.minutes, time.step, time.evaluation, recipe.eval.every)
            if time
            else 0
        )
    return recipe.train.steps


def table_of(result: Plan) -> Table:
    """The plan as a table."""
    table = Table(
        title=f"{result.model}, {result.parameters:,} parameters",
        show_header=False,
        title_justify="left",
    )
    needed, time = result.memory, result.time
    table.add_row("machine", result.machine)
    table.add_row("operations a token", f"{result.operations_per_token:,.0f}")
    passes = f"{result.micro_steps} x {result.micro_batch_size} sequences"
    table.add_row("step", f"{result.tokens_per_step:,} tokens: {passes}")
    table.add_row("memory at the peak", f"{in_mib(needed.peak)} of {in_mib(needed.available)}")
    table.add_row("  of it fixed", in_mib(needed.fixed))
    table.add_row("  a sequence", in_mib(needed.each))
    table.add_row(
        "largest micro-batch",
        f"{needed.largest_micro_batch}" if needed.largest_micro_batch else "none fits",
    )
    if time is None:
        table.add_row("time", "doesn't fit: set train.micro_batch_size to the largest that does")
        return table
    table.add_row(
        "length", f"{result.steps:,} steps, {result.steps * result.tokens_per_step:,} tokens"
    )
    table.add_row(
        "time of a step",
        f"{1e3 * time.step:,.1f} ms, {result.tokens_per_step / time.step:,.0f} tokens/s",
    )
    table.add_row("time of an evaluation", in_words(time.evaluation))
    table.add_row("training", in_words(time.training))
    table.add_row("with its evaluations", in_words(time.total))
    return table


def in_mib(size: int) -> str:
    """Bytes for reading."""
    return f"{size / 2**20:,.0f} MiB"


def in_words(seconds: float) -> str:
    """Seconds for reading: 12.3 s, 4 min 10 s, 3 h 20 min, 2 d 5 h."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    for size, unit, small, smaller in (
        (86400, "d", 3600, "h"),
        (3600, "h", 60, "min"),
        (60, "min", 1, "s"),
    ):
        if seconds >= size:
            return f"{int(seconds // size)} {unit} {int(seconds % size // small)} {smaller}"
    raise AssertionError
