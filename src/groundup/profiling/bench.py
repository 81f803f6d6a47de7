"""`groundup bench`: what a recipe's training step reaches on this machine, and where its
time goes.
"""

import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from rich.table import Table
from torch import Tensor

from groundup.console import show
from groundup.machine import memory
from groundup.profiling.operations import matmul_peak, operations_per_token
from groundup.profiling.synthetic import alone, synthetic_text
from groundup.recipes.schema import Recipe
from groundup.training.failures import explain_out_of_memory
from groundup.training.journal import Journal, MainJournal
from groundup.training.setup import assemble, parameter_counts
from groundup.training.trainer import Trainer

WARMUP_STEPS = 5
PHASES = ("data", "forward", "backward", "optimizer", "rest")


@dataclass(frozen=True)
class Bench:
    """What was measured. Times are medians over the steps, in seconds; memory is in bytes."""

    model: str
    parameters: int
    device: str
    precision: str
    compiled: bool
    threads: int
    tokens_per_step: int
    step_seconds: float
    tokens_per_second: float
    operations_per_token: float
    matmul_peak: float  # operations a second
    mfu: float  # the share of the peak that the formula's operations reach
    peak_memory: int
    phases: dict[str, float]  # seconds of a step


def print_bench(recipe: Recipe, vocab_size: int, steps: int, as_json: bool) -> None:
    """Measure, and print a table or one JSON object. Raises GroundupError."""
    journal = Journal() if as_json else MainJournal()
    with explain_out_of_memory(recipe):
        result = bench(
            assemble(recipe, synthetic_text(recipe, vocab_size), None, alone(journal)), steps
        )
    show(result, table_of(result), as_json)


def bench(trainer: Trainer, steps: int) -> Bench:
    """Train on random tokens and time it: first whole steps, then phase by phase."""
    for step in range(WARMUP_STEPS):
        trainer.train_step(step)
    memory.forget_peak(trainer.machine.device)
    whole = [timed(trainer, lambda step=step: trainer.train_step(step)) for step in range(steps)]
    peak_memory = memory.peak(trainer.machine.device)
    recipe, config = trainer.recipe, trainer.model.config
    operations = operations_per_token(recipe.model.architecture, config, recipe.lora.rank)
    seconds = statistics.median(whole)
    peak = matmul_peak(trainer.machine.product_dtype, trainer.machine.device)
    return Bench(
        model=describe_model(trainer),
        parameters=parameter_counts(trainer.model)["parameters"],
        device=str(trainer.machine.device),
        precision=trainer.machine.precision,
        compiled=recipe.train.compile == "on",
        threads=recipe.train.threads,
        tokens_per_step=recipe.tokens_per_step,
        step_seconds=seconds,
        tokens_per_second=recipe.tokens_per_step / seconds,
        operations_per_token=operations,
        matmul_peak=peak,
        mfu=operations * recipe.tokens_per_step / seconds / peak,
        peak_memory=peak_memory,
        phases=time_of_phases(trainer, steps),
    )


def describe_model(trainer: Trainer) -> str:
    """`gpt2 4 x 4 x 128, context 64`"""
    model = trainer.recipe.model
    if model.architecture == "bigram":
        return f"bigram of {trainer.model.config.vocab_size} tokens"
    adapters = f", LoRA of rank {trainer.recipe.lora.rank}" if trainer.recipe.lora.rank else ""
    shape = f"{model.n_layer} x {model.n_head} x {model.n_embd}"
    return f"{model.architecture} {shape}, context {model.block_size}{adapters}"


def timed(trainer: Trainer, work: Callable[[], object]) -> float:
    """Seconds until the work is done, on the device too."""
    started = clock(trainer)
    work()
    return clock(trainer) - started


def clock(trainer: Trainer) -> float:
    """Seconds of a monotonic clock, when the device has done all that it was given."""
    if trainer.machine.device.type == "cuda":
        torch.cuda.synchronize(trainer.machine.device)
    elif trainer.machine.device.type == "mps":
        torch.mps.synchronize()
    return time.perf_counter()


def time_of_phases(trainer: Trainer, steps: int) -> dict[str, float]:
    """The median over some steps of each phase's seconds. On a GPU, waiting at every border makes
    them a little longer.

    data: waiting for the next batch. forward, backward: of all micro-steps, reading the loss
    included. optimizer: clipping and the updates. rest: checks, schedule and record.
    """
    found: dict[str, list[float]] = {phase: [] for phase in PHASES}
    for step in range(steps):
        with borders(trainer) as marks:
            started = clock(trainer)
            trainer.train_step(step)
            ended = clock(trainer)
        spans: dict[str, float] = dict.fromkeys(PHASES, 0.0)
        for (phase, begin), (_, end) in zip(marks, [*marks[1:], ("rest", ended)], strict=True):
            spans[phase] += end - begin
        spans["rest"] = (ended - started) - sum(spans[phase] for phase in PHASES if phase != "rest")
        for phase, seconds in spans.items():
            found[phase].append(seconds)
    return {phase: statistics.median(seconds) for phase, seconds in found.items()}


@contextmanager
def borders(trainer: Trainer) -> Iterator[list[tuple[str, float]]]:
    """While inside, every border between phases is marked: (the phase that begins, when). The
    trainer isn't changed.
    """
    marks: list[tuple[str, float]] = []

    def mark(phase: str) -> Callable[..., None]:
        return lambda *_: marks.append((phase, clock(trainer)))

    def take(step: int, micro_step: int) -> tuple[Tensor, int]:
        marks.append(("data", clock(trainer)))
        return type(trainer.batches).take(trainer.batches, step, micro_step)

    def clip() -> Tensor:
        marks.append(("optimizer", clock(trainer)))
        return type(trainer).clip_gradients(trainer)

    handles = [
        trainer.objective.register_forward_pre_hook(mark("forward")),
        trainer.objective.register_forward_hook(mark("backward")),
        trainer.optimizers[-1].register_step_post_hook(mark("rest")),
    ]
    vars(trainer.batches)["take"], vars(trainer)["clip_gradients"] = take, clip
    try:
        yield marks
    finally:
        for handle in handles:
            handle.remove()
        del vars(trainer.batches)["take"], vars(trainer)["clip_gradients"]


def table_of(result: Bench) -> Table:
    """The measurement as a table."""
    compiled = ", compiled" if result.compiled else ""
    table = Table(
        title=f"{result.model}, {result.parameters:,} parameters",
        show_header=False,
        title_justify="left",
    )
    table.add_row(
        "machine", f"{result.device}, {result.precision}, {result.threads} threads{compiled}"
    )
    table.add_row("speed", f"{result.tokens_per_second:,.0f} tokens/s")
    table.add_row(
        "step", f"{1e3 * result.step_seconds:,.1f} ms for {result.tokens_per_step:,} tokens"
    )
    for phase, seconds in result.phases.items():
        share = seconds / sum(result.phases.values())
        table.add_row(f"  {phase}", f"{1e3 * seconds:,.1f} ms ({share:.0%})")
    table.add_row("operations a token", f"{result.operations_per_token:,.0f}")
    table.add_row(
        "matmul peak",
        f"{result.matmul_peak / 1e9:,.0f} billion operations a second in {result.precision}",
    )
    table.add_row("of that peak (MFU)", f"{result.mfu:.1%}")
    table.add_row("peak memory", f"{result.peak_memory / 2**20:,.0f} MiB")
    return table
