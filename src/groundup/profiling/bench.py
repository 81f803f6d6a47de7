"""What a recipe's training step reaches on this machine, and where its time goes."""

import statistics
from dataclasses import dataclass

import torch

from groundup.machine import memory
from groundup.machine.timing import now, timed
from groundup.profiling.operations import matmul_peak, operations_per_token
from groundup.training.facts import parameter_counts
from groundup.training.trainer import PhaseClock, Trainer

WARMUP_STEPS = 5
PHASES = ("data", "forward", "backward", "optimizer", "rest")


@dataclass(frozen=True)
class Bench:
    """What `bench` measured. Times are medians over the steps.

    Attributes:
        model: The model in words.
        parameters: The number of the model's parameters, without adapters.
        device, precision, compiled, threads: The machine and the settings of the measurement.
        tokens_per_step: The number of tokens of an optimizer step.
        step_seconds: The seconds of an optimizer step.
        tokens_per_second: The number of tokens that training learns from in a second.
        operations_per_token: The number of floating-point operations that a token needs.
        matmul_peak: The number of operations a second that the machine does in matrix products.
        mfu: The share of `matmul_peak` that training reaches (model FLOPs utilisation).
        peak_memory: The largest number of bytes in use at once.
        phases: Seconds of a step by phase. `data`: waiting for the next batch. `forward`,
            `backward`: of all micro-steps. `optimizer`: reading the loss, clipping and the
            updates. `rest`: schedule and record.
    """

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
    matmul_peak: float
    mfu: float
    peak_memory: int
    phases: dict[str, float]


def bench(trainer: Trainer, steps: int) -> Bench:
    """Train some steps and time them: first whole, then phase by phase.

    Args:
        trainer: A trainer for this measurement alone.
        steps: The number of steps that are timed whole, and again phase by phase.
    """
    recipe, machine = trainer.recipe, trainer.machine
    for step in range(WARMUP_STEPS):
        trainer.train_step(step)
    memory.forget_peak(machine.device)
    seconds = statistics.median(
        timed(lambda step=step: trainer.train_step(step), machine.device) for step in range(steps)
    )
    peak_memory = memory.peak(machine.device)
    operations = operations_per_token(
        recipe.model.architecture, trainer.model.config, recipe.lora.rank
    )
    peak = matmul_peak(machine.product_dtype, machine.device)
    return Bench(
        model=describe_model(trainer),
        parameters=parameter_counts(trainer.model)["parameters"],
        device=str(machine.device),
        precision=machine.precision,
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
    """Describe the model: architecture, layers x heads x width and context."""
    model = trainer.recipe.model
    if model.architecture == "bigram":
        return f"bigram of {trainer.model.config.vocab_size} tokens"
    adapters = f", LoRA of rank {trainer.recipe.lora.rank}" if trainer.recipe.lora.rank else ""
    shape = f"{model.n_layer} x {model.n_head} x {model.n_embd}"
    return f"{model.architecture} {shape}, context {model.block_size}{adapters}"


class Stopwatch(PhaseClock):
    """A clock that adds up the seconds of each phase, and waits for the device before each one."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.seconds: dict[str, float] = dict.fromkeys(PHASES, 0.0)
        self.phase, self.since = "rest", now(device)

    def begin(self, phase: str) -> None:
        """End the present phase, and begin another one."""
        moment = now(self.device)
        self.seconds[self.phase] += moment - self.since
        self.phase, self.since = phase, moment


def time_of_phases(trainer: Trainer, steps: int) -> dict[str, float]:
    """Train some steps, and return the median seconds of each phase of a step."""
    measured = []
    for step in range(steps):
        stopwatch = Stopwatch(trainer.machine.device)
        trainer.train_step(step, stopwatch)
        stopwatch.begin("rest")
        measured.append(stopwatch.seconds)
    return {phase: statistics.median(each[phase] for each in measured) for phase in PHASES}
