"""The trainer: step, evaluate, sample, score and save, in the order in which things happen."""

import hashlib
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from groundup.checkpoints.lifecycle import publish, step_folder
from groundup.data.dataset import Dataset
from groundup.data.loader import Loader
from groundup.errors import TrainingError
from groundup.evaluation.units import bits_per_byte
from groundup.evaluation.validation import mean_loss
from groundup.generation.stream import SamplingSettings, encode_prompt, stream_text
from groundup.machine.device import Machine
from groundup.machine.kinds import to_device
from groundup.models.registry import Model
from groundup.optim.schedules import Schedule
from groundup.parallel.sharding import synchronise_only_if
from groundup.recipes.schema import OptimSection, Recipe
from groundup.runs.records import EvaluationRecord, StepRecord, tokens_per_second
from groundup.training.costs import TimeBudget
from groundup.training.periodic import PeriodicEvaluation
from groundup.training.session import Session
from groundup.training.state import Progress, StateWriter


class PhaseClock:
    """A clock that is told when each phase of a step begins. This class measures nothing."""

    def begin(self, phase: str) -> None:
        """Take note that `data`, `forward`, `backward`, `optimizer` or `rest` begins."""


UNTIMED = PhaseClock()


class AbandonedError(Exception):
    """A measurement was given up, because the run was asked to stop."""


@dataclass
class Trainer:
    """One run while it trains.

    Attributes:
        recipe: The recipe, with everything automatic resolved and its length in steps.
        session: The processes, the journal and the request to stop.
        machine: The device and the precision.
        dataset: What the run learns from.
        loader: The batches of this process.
        model: The model. Its weights are saved, it writes samples and it is scored.
        objective: The model and its loss as one module, spread over the processes.
        optimizers: The optimizers, in which every parameter that trains is once.
        evaluations: The tasks on which the model is scored while it trains.
        writer: Writes the state of the run into a checkpoint.
        progress: How far the run has come.
        budget: The time that the run may take, while its length is to be decided once more.
        schedule: The learning rate as a function of the step.
        started: When the run would have begun without a break, by a monotonic clock.
        asked_to_stop: Whether any process was asked to stop, as of the newest step.
    """

    recipe: Recipe
    session: Session
    machine: Machine
    dataset: Dataset
    loader: Loader
    model: Model
    objective: nn.Module
    optimizers: list[torch.optim.Optimizer]
    evaluations: Sequence[PeriodicEvaluation]
    writer: StateWriter
    progress: Progress
    budget: TimeBudget | None = None
    schedule: Schedule = field(init=False)
    asked_to_stop: bool = False
    started: float = 0.0

    def __post_init__(self) -> None:
        self.set_length(self.recipe)

    def set_length(self, recipe: Recipe) -> None:
        """Train by a recipe that differs in its number of steps."""
        self.recipe = recipe
        self.schedule = Schedule.of(recipe.optim, max(1, recipe.train.steps))

    def train(self, checkpoints: Path, resumed_from: Path | None = None) -> None:
        """Train from the progress made so far to the last step, or until asked to stop.

        Args:
            checkpoints: The folder of the run's checkpoints.
            resumed_from: The checkpoint that the run was resumed from, which is never removed.

        Raises:
            TrainingError: A loss or a gradient isn't a number, or a checkpoint can't be written.
        """
        self.started = time.perf_counter() - self.progress.spent
        if self.progress.step == 0 or self.progress.owed:
            self.report_and_save(checkpoints, resumed_from)
        while not (self.is_finished() or self.asked_to_stop):
            self.decide_length()
            record = self.train_step(self.progress.step)
            self.progress.step, self.progress.seconds = record.step, record.seconds
            self.session.journal.step(record)
            self.report_and_save(checkpoints, resumed_from)

    def decide_length(self) -> None:
        """Decide the length of a run that has a time budget once more, when its turn has come."""
        budget, progress = self.budget, self.progress
        if budget is None or not progress.step == budget.review > 0:
            return
        steps = budget.decide(progress.seconds, time.perf_counter() - self.started).decided
        steps = int(self.session.world.agree(str(steps)))
        self.set_length(self.recipe.with_steps(steps))
        self.budget = None
        self.session.journal.length(self.recipe, replace(budget, decided=steps))

    def report_and_save(self, checkpoints: Path, resumed_from: Path | None) -> None:
        """Measure what is due after this step, and save the step if an evaluation was due.

        A run that was asked to stop saves at once. What it then owes, it does when it is resumed.
        """
        step, due = self.progress.step, self.is_due()
        scored = any(each.is_due(step, self.is_finished()) for each in self.evaluations)
        before = replace(self.progress, owed=due or scored)
        try:
            if due:
                self.stop_if_asked()
                self.sample(self.evaluate())
            self.evaluate_tasks()
            self.progress.owed = False
        except AbandonedError:
            self.progress = before
        if step and (due or self.asked_to_stop):
            self.save(step_folder(checkpoints, step), resumed_from)

    def stop_if_asked(self) -> None:
        """Give up a measurement if any process was asked to stop.

        Raises:
            AbandonedError: A process was asked to stop.
        """
        world, asked = self.session.world, bool(self.session.stop.signal)
        if world.size > 1:
            count = torch.tensor(float(asked), device=self.machine.reduction_device)
            asked = world.sum(count).item() > 0
        self.asked_to_stop = self.asked_to_stop or asked
        if self.asked_to_stop:
            raise AbandonedError

    def train_step(self, step: int, clock: PhaseClock = UNTIMED) -> StepRecord:
        """Do one optimizer step on batch `step`: accumulate gradients, check, clip, update."""
        started = time.perf_counter()
        learning_rate = self.schedule.apply(self.optimizers, step)
        totals = self.accumulate_gradients(step, clock)
        clock.begin("optimizer")
        norm = self.clip_gradients()
        # here alone a step waits for its device
        norm = norm.to(totals.device).double()  # first there: not every device has float64
        loss, batch_hash, stop, gradient_norm = torch.cat([totals, norm[None]]).tolist()
        self.asked_to_stop = stop > 0
        check_finite(step, loss, gradient_norm, self.recipe.optim)  # before the weights see a NaN
        for optimizer in self.optimizers:
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        clock.begin("rest")
        ended, tokens = time.perf_counter(), self.recipe.tokens_per_step
        speed = tokens_per_second(tokens, started, ended)
        seconds = self.progress.seconds + ended - started
        measured = loss, learning_rate, gradient_norm, speed, seconds
        return StepRecord(step + 1, (step + 1) * tokens, *measured, int(batch_hash))

    def accumulate_gradients(self, step: int, clock: PhaseClock = UNTIMED) -> Tensor:
        """Do the forward and backward passes of this process over its rows of batch `step`.

        Returns:
            The sums over all processes of the mean loss, the rows' hashes and the requests to
            stop: [3] float64.
        """
        world, micro_steps = self.session.world, self.loader.micro_steps
        losses, hashes = [], 0
        for micro_step in range(micro_steps):
            clock.begin("data")
            tokens, batch_hash = self.loader.take(step, micro_step)
            torch.manual_seed(dropout_seed(self.recipe.train.seed, step, micro_step, world.rank))
            with synchronise_only_if(micro_step == micro_steps - 1, self.objective):
                clock.begin("forward")
                loss = self.objective(tokens[:, :-1], tokens[:, 1:]) / micro_steps
                clock.begin("backward")
                loss.backward()
            losses.append(loss.detach())
            hashes += batch_hash
        where = self.machine.reduction_device
        mean = torch.stack(losses).to(where).double().sum() / world.size
        others = torch.tensor([hashes, self.session.stop.signal], dtype=torch.float64)
        return world.sum(torch.cat([mean[None], to_device(others, where)]))

    def clip_gradients(self) -> Tensor:
        """Scale the gradients down to the recipe's largest norm, and return the norm before."""
        limit = self.recipe.optim.clip_norm or float("inf")
        return torch.nn.utils.clip_grad_norm_(self.model.parameters(), limit)

    def evaluate(self) -> EvaluationRecord:
        """Measure and record the losses, note the best one, and stop a run that doesn't improve."""
        progress, recipe = self.progress, self.recipe
        with self.uncompiled():
            training, validation, by_corpus = self.measure_losses(self.stop_if_asked)
        # before a checkpoint holds a NaN
        check_losses(progress.step, training, validation, recipe.optim)
        evaluation = EvaluationRecord(
            progress.step,
            progress.step * recipe.tokens_per_step,
            training,
            validation,
            bits_per_byte(validation, self.dataset.bytes_per_token),
            progress.seconds,
            by_corpus if len(by_corpus) > 1 else None,
        )
        self.session.journal.evaluation(evaluation)
        if progress.step:  # before the first step nothing was learned, and nothing is saved
            progress.note_loss(validation, recipe.eval.patience, recipe.train.steps)
            progress.validation = self.dataset.validation_fingerprint
        return evaluation

    def measure_losses(
        self, interrupt: Callable[[], None] = lambda: None
    ) -> tuple[float | None, float, dict[str, float]]:
        """Measure the losses of the model as it stands, in nats a token.

        The losses of a mixture are means over its corpora, weighted by their shares. Of the tokens
        to measure, each corpus has its share.

        Args:
            interrupt: Is called before each forward pass, and ends the measurement by raising.

        Returns:
            The training loss, None where the recipe wants none, the validation loss, and the
            validation loss of each corpus by its name.
        """
        section, parts, training = self.recipe.eval, self.dataset.parts, None
        measure = partial(
            mean_loss,
            self.objective,
            block_size=self.model.block_size,
            batch_size=self.loader.rows,
            device=self.machine.device,
            world=self.session.world,
            interrupt=interrupt,
        )

        def share(weight: float, tokens: int) -> int:
            return max(1, round(weight * tokens)) if tokens else 0

        if tokens := section.train_tokens:
            losses = [measure(part.training, most=share(part.weight, tokens)) for part in parts]
            training = self.dataset.mean(losses)
        losses = [
            measure(part.validation, most=share(part.weight, section.tokens)) for part in parts
        ]
        by_corpus = {part.name: loss for part, loss in zip(parts, losses, strict=True)}
        return training, self.dataset.mean(losses), by_corpus

    def sample(self, evaluation: EvaluationRecord) -> None:
        """Let the model write a short text, with a random generator for this text alone.

        Before the first step there is none.

        Raises:
            AbandonedError: A process was asked to stop.
        """
        length, seed = self.recipe.eval.sample_length, self.recipe.train.seed
        if not (length and evaluation.step):
            return
        if self.session.world.is_main:
            settings = SamplingSettings(length=length, seed=seed)
            with self.session.journal.harmless("the sample"), self.uncompiled():
                tokenizer = self.dataset.tokenizer
                start, text = encode_prompt("", tokenizer, self.dataset.document_start), ""
                for piece in stream_text(self.model, tokenizer, start, settings):
                    text += piece
                    if self.session.stop.signal:
                        break
                else:
                    self.session.journal.sample(evaluation, text)
        self.stop_if_asked()

    def evaluate_tasks(self) -> None:
        """Score the model on the tasks that are due; at both ends of the run all of them are.

        Raises:
            AbandonedError: A process was asked to stop.
        """
        step, world, device = self.progress.step, self.session.world, self.machine.reduction_device
        for evaluation in self.evaluations:
            if evaluation.is_due(step, self.is_finished()):
                self.stop_if_asked()
                tokens = step * self.recipe.tokens_per_step
                seconds = self.progress.seconds
                with self.uncompiled():
                    record = evaluation.run(
                        *(self.model, world, device),
                        **{"step": step, "tokens": tokens, "seconds": seconds},
                        interrupt=self.stop_if_asked,
                    )
                self.session.journal.scores(record)

    def save(self, folder: Path, resumed_from: Path | None) -> None:
        """Publish the checkpoint `folder`. The main process writes, and the others wait."""
        self.progress.spent = time.perf_counter() - self.started
        if self.session.world.is_main:
            publish(
                folder,
                lambda into: self.writer.write(into, self.model, self.optimizers, self.progress),
                best=self.progress.best_step == self.progress.step,
                keep=self.recipe.train.keep_checkpoints,
                protected=resumed_from,
            )
        self.session.world.barrier()

    def uncompiled(self) -> AbstractContextManager[None]:
        """Return a context without the compiler, for shapes and modes too rare to compile for."""
        compiles = self.recipe.train.compile == "on"
        return torch.compiler.set_stance("force_eager") if compiles else nullcontext()

    def is_due(self) -> bool:
        """Return whether to evaluate now: every `eval.every` steps, and after the last step."""
        step, every = self.progress.step, self.recipe.eval.every
        return step == self.recipe.train.steps or (every > 0 and step % every == 0)

    def is_finished(self) -> bool:
        """Return whether the last step is done, or the run was stopped early."""
        return self.progress.is_finished(self.recipe.train.steps)

    def is_complete(self) -> bool:
        """Return whether the run is finished and nothing is left to measure."""
        return self.is_finished() and not self.progress.owed


def check_finite(step: int, loss: float, gradient_norm: float, optim: OptimSection) -> None:
    """Check that the loss and the gradient norm of a step are finite, before the weights change.

    Raises:
        TrainingError: The loss or the norm is infinite or NaN.
    """
    for name, value in (("loss", loss), ("gradient norm", gradient_norm)):
        if not np.isfinite(value):
            raise TrainingError(
                f"the {name} became {value} at step {step + 1}: {TOO_HIGH}. The update was not "
                f"made, and checkpoints are intact: {_advise_steadier(optim)}"
            )


def check_losses(step: int, training: float | None, validation: float, optim: OptimSection) -> None:
    """Check that the losses that were measured after `step` steps are finite.

    Raises:
        TrainingError: A loss is infinite or NaN: the last update made the weights useless.
    """
    for name, value in (("training", training), ("validation", validation)):
        if value is not None and not np.isfinite(value):
            raise TrainingError(
                f"the {name} loss is {value} after step {step}: {TOO_HIGH}. This step was not "
                f"saved, and earlier checkpoints are intact: {_advise_steadier(optim)}"
            )


TOO_HIGH = "most likely the learning rate is too high"


def _advise_steadier(optim: OptimSection) -> str:
    """What a new run can do against losses that explode; a resumed one has the same recipe."""
    clip = "" if optim.clip_norm else ", or set optim.clip_norm = 1.0"
    rate = f"optim.learning_rate = {optim.learning_rate:g}"
    return f"in a new run lower {rate}, lengthen optim.warmup_steps{clip}"


def dropout_seed(seed: int, step: int, micro_step: int, rank: int) -> int:
    """Derive the seed of a forward pass, in [0, 2^63), however often the run was resumed."""
    digest = hashlib.blake2b(f"{seed} {step} {micro_step} {rank}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1
